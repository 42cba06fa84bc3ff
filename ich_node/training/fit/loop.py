"""The training loop, from top to bottom: data, network, steps, and what is kept."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node import __version__
from ich_node.errors import TrainingError
from ich_node.model.network import SliceNetwork
from ich_node.service import stop_on_signals
from ich_node.training.fit.augment import select
from ich_node.training.fit.checkpoint import load_state, pack, save_state, unpack
from ich_node.training.fit.images import ImageMaker, draw_batch
from ich_node.training.fit.log import RunLog
from ich_node.training.fit.networks import BEST, FINAL, make_average, make_network, make_optimizer
from ich_node.training.fit.objective import area_under_roc, class_weights, weighted_log_loss
from ich_node.training.fit.processes import Processes, join_processes
from ich_node.training.fit.sampling import Sampler, make_sampler, seed_step
from ich_node.training.fit.schedule import Schedule, make_schedule
from ich_node.training.fit.scoring import autocast, score_slices
from ich_node.training.fit.settings import FitSettings
from ich_node.training.fit.store import SliceStore, StoredSlices
from ich_node.training.predictions import write_predictions
from ich_node.training.prepared import PreparedSet
from ich_node.training.run_folder import CONFIG, HELD_OUT

CHECKPOINT: Final = "checkpoint.safetensors"
LOG: Final = "log.csv"

_LOG_EVERY_S: Final = 15.0
_LOOK_EVERY: Final = 50
"""Steps between two looks at the loss, which make the device wait."""


@dataclass(slots=True, eq=False)
class _Run:
    """Everything that a run holds in memory."""

    settings: FitSettings
    directory: Path
    processes: Processes
    store: SliceStore
    images: ImageMaker
    labels: Tensor
    training: NDArray[np.int64]
    """Numbers of the slices that are trained on."""
    held_out: NDArray[np.int64]
    sampler: Sampler
    schedule: Schedule
    network: SliceNetwork
    spread: Callable[[Tensor], tuple[Tensor, Tensor]]
    """The network as it is called in training: compiled, spread over the processes."""
    average: Any
    """ModelEmaV3, or None."""
    optimizer: torch.optim.Optimizer
    weights: Tensor
    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    losses: list[Tensor] = field(default_factory=list)

    @property
    def judged(self) -> SliceNetwork:
        """The network that is validated and kept."""
        return self.network if self.average is None else self.average.module


def fit(settings: FitSettings, data: Sequence[PreparedSet], directory: Path, device: str = "auto") -> None:
    """Train a network and leave a run folder; the same call again goes on from the last checkpoint.

    The folder holds ``config.json``, ``log.csv``, ``checkpoint.safetensors``, ``best.safetensors`` and
    ``final.safetensors`` (weights as a bundle has them, corrected for sampling), and ``held-out.csv``.

    Args:
        settings: See ``make_settings``.
        data: Prepared sets.
        directory: Of the run.
        device: ``auto``, ``cuda`` or ``cpu``.

    Raises:
        TrainingError: the data, the settings or the machine do not allow it; says what to change. What was reached
            before stays in the folder.
    """
    with stop_on_signals() as stop, join_processes(device) as processes:
        run = _open(settings, data, directory, processes)
        log = RunLog(directory / LOG, run.step, run.schedule.steps) if processes.first else None
        try:
            _train(run, log, stop)
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"out of memory with {settings.batch} images of {settings.size_px} px; make --batch or --size smaller, "
                "or --set resident_gib=0; the last checkpoint is kept, and the same command goes on from it"
            ) from None
        _finish(run, log)


# ------------------------------------------------------------------------------------------ beginning


def _open(settings: FitSettings, data: Sequence[PreparedSet], directory: Path, processes: Processes) -> _Run:
    if settings.batch % processes.count:
        raise TrainingError(f"--batch {settings.batch} cannot be shared evenly by {processes.count} processes")
    store = SliceStore(data, processes.device, settings.resident_gib)
    training, held_out = _split(store, settings)
    sampler = make_sampler([store.rows[number] for number in training], settings)
    network = make_network(settings, processes.device)
    spread = processes.spread(network)
    run = _Run(
        settings=settings,
        directory=directory,
        processes=processes,
        store=store,
        images=ImageMaker(store, settings.preprocessing, settings.neighbours, settings.augmentation),
        labels=torch.tensor([row.labels for row in store.rows], dtype=torch.float32, device=processes.device),
        training=training,
        held_out=held_out,
        sampler=sampler,
        schedule=make_schedule(settings, sampler.draws),
        network=network,
        spread=torch.compile(spread) if settings.compile else spread,
        average=make_average(settings, network),
        optimizer=make_optimizer(settings, network),
        weights=class_weights(settings.any_weight).to(processes.device),
    )
    _begin_or_go_on(run, data)
    return run


def _split(store: SliceStore, settings: FitSettings) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    folds = np.array([row.fold for row in store.rows])
    held_out = np.flatnonzero(folds == settings.fold) if settings.fold is not None else np.array([], np.int64)
    if settings.fold is not None and not len(held_out):
        raise TrainingError(f"no slice is in fold {settings.fold}; the data have folds {sorted(set(folds.tolist()))}")
    return np.setdiff1d(np.arange(len(folds)), held_out), held_out


def _begin_or_go_on(run: _Run, data: Sequence[PreparedSet]) -> None:
    """Write the configuration of a new run, or load the checkpoint of one that was interrupted."""
    config = _configuration(run, data)
    path = run.directory / CONFIG
    if path.exists():
        _demand_same(path, config)
        if (run.directory / CHECKPOINT).exists():
            tensors, facts = load_state(run.directory / CHECKPOINT)
            unpack(tensors, run.network, run.average and run.average.module, run.optimizer)
            run.step, run.seconds, run.best = facts["step"], facts["seconds"], facts["best"]
    run.processes.wait()
    if run.processes.first:
        run.directory.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config, indent=1) + "\n")


def _configuration(run: _Run, data: Sequence[PreparedSet]) -> dict[str, Any]:
    """What export, evaluate and a reader need to know of a run."""
    settings = run.settings
    preprocessing = settings.preprocessing.model_copy(update={"size_px": settings.used_at_px})
    return {
        "format_version": 1,
        "made_by": f"ich-node {__version__}, torch {torch.__version__}",
        "name": settings.name,
        "backbone": settings.backbone,
        "size_px": settings.used_at_px,
        "neighbours": settings.neighbours,
        "preprocessing": preprocessing.model_dump(mode="json"),
        "data": [one for prepared in data for one in _sources(prepared)],
        "training_slices": len(run.training),
        "held_out_slices": len(run.held_out),
        "logit_correction": run.sampler.logit_correction.tolist(),
        "settings": settings.model_dump(mode="json"),
    }


def _sources(data: PreparedSet) -> Iterator[dict[str, Any]]:
    for name, counts in data.manifest.counts.items():
        terms = data.manifest.terms.get(name, "not stated")
        yield {"name": name, "terms": terms, "slices": counts["slices"], "patients": counts.get("patients"),
               "table_sha256": data.manifest.table_sha256}  # fmt: skip


def _demand_same(path: Path, config: dict[str, Any]) -> None:
    before = json.loads(path.read_text())
    different = [name for name in ("settings", "data", "training_slices") if before.get(name) != config[name]]
    if different:
        changed = sorted(
            name for name, value in config["settings"].items() if before.get("settings", {}).get(name) != value
        )
        raise TrainingError(
            f"{path.parent} holds a run with other {' and '.join(different)}"
            + (f" ({', '.join(changed)})" if changed else "")
            + "; choose another folder, or give the same command to go on"
        )


# ------------------------------------------------------------------------------------------- the loop


def _train(run: _Run, log: RunLog | None, stop: Event) -> None:
    if log and run.step:
        log.say(f"going on at step {run.step} of {run.schedule.steps}")
    began, kept_at, logged_at, steps_before = time.monotonic(), time.monotonic(), time.monotonic(), run.step
    before_s = run.seconds
    while run.step < run.schedule.steps:
        epoch = run.step // run.schedule.steps_per_epoch
        for slices, stored in _batches(run, epoch):
            run.losses.append(_step(run, slices, stored))
            run.step += 1
            if log:
                log.advance()
            run.seconds = before_s + time.monotonic() - began
            if run.step % _LOOK_EVERY == 0 and time.monotonic() - logged_at > _LOG_EVERY_S:
                _write_log(run, log, steps_before, time.monotonic() - logged_at)
                logged_at, steps_before = time.monotonic(), run.step
            if stop.is_set():
                _keep(run)
                raise KeyboardInterrupt
            if time.monotonic() - kept_at > 60 * run.settings.checkpoint_minutes and run.processes.count == 1:
                _keep(run)
                kept_at = time.monotonic()
        _write_log(run, log, steps_before, time.monotonic() - logged_at, _validation(run, epoch + 1))
        _keep(run)
        kept_at = logged_at = time.monotonic()
        steps_before = run.step


def _batches(run: _Run, epoch: int) -> Iterator[tuple[NDArray[np.int64], list[StoredSlices]]]:
    """What is left of an epoch, this process's share of each batch; pixels are read ahead."""
    settings, schedule = run.settings, run.schedule
    drawn = run.training[run.sampler.draw_epoch(epoch)]
    start, stop = run.processes.part(settings.batch)
    batches = [
        drawn[at * settings.batch :][start:stop]
        for at in range(run.step - epoch * schedule.steps_per_epoch, schedule.steps_per_epoch)
    ]
    stored = run.store.fetch_ahead(run.images.numbers(batch) for batch in batches)
    return zip(batches, stored, strict=True)


def _step(run: _Run, slices: NDArray[np.int64], stored: list[StoredSlices]) -> Tensor:
    """Show one batch and move the weights: gives the loss, on the device."""
    settings = run.settings
    generator = seed_step(settings.seed, run.step, run.processes.rank)
    draws, restoration = draw_batch(settings.batch, settings.augmentation, generator)
    mine = slice(*run.processes.part(settings.batch))
    images = run.images.training_images(
        slices, stored, select(draws, mine), select(restoration, mine), run.schedule.size_px(run.step)
    )
    run.network.train()
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule.learning_rate(run.step)
    with autocast(settings, run.processes.device):
        logits, _ = run.spread(images.contiguous(memory_format=torch.channels_last))
    loss = weighted_log_loss(logits.float(), run.labels[torch.from_numpy(slices).to(images.device)], run.weights)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch annotates most
    if settings.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), settings.clip_norm)
    run.optimizer.step()
    if run.average is not None:
        run.average.update(run.network, step=run.step)
    return loss.detach()


def _validation(run: _Run, epochs_done: int) -> tuple[float, float | None] | None:
    """Score slices held out: weighted log loss and AUC of ``any``; keep the best weights."""
    due = epochs_done % run.settings.validate_epochs == 0 or epochs_done == run.settings.epochs
    if not len(run.held_out) or not due:
        return None
    some = run.held_out
    if run.settings.validation_slices and epochs_done < run.settings.epochs:
        chosen = np.random.default_rng(run.settings.seed).permutation(len(some))[: run.settings.validation_slices]
        some = some[np.sort(chosen)]
    logits = _scores(run, some)
    labels = run.labels[torch.from_numpy(some).to(logits.device)]
    loss = float(weighted_log_loss(logits, labels, class_weights(2.0).to(logits.device)))
    if loss < run.best:
        run.best = loss
        _save_weights(run, BEST)
    return loss, area_under_roc(logits[:, 0], labels[:, 0])


def _scores(run: _Run, slices: NDArray[np.int64]) -> Tensor:
    logits, _ = score_slices(run.judged, run.images, slices, run.settings, run.processes)
    correction = torch.from_numpy(run.sampler.logit_correction).to(logits)
    return logits + correction


def _write_log(
    run: _Run,
    log: RunLog | None,
    steps_before: int,
    seconds: float,
    validation: tuple[float, float | None] | None = None,
) -> None:
    """Look at the losses since the last time.

    Raises:
        TrainingError: one of them is no number.
    """
    loss = run.processes.mean(torch.stack(run.losses).mean()) if run.losses else math.nan
    run.losses.clear()
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is no number any more at step {run.step}; make --learning-rate smaller or --set clip_norm=1, "
            f"and go on from the last checkpoint in {run.directory}"
        )
    if log is None:
        return
    epoch = run.step / run.schedule.steps_per_epoch
    rate = (run.step - steps_before) * run.settings.batch / max(seconds, 1e-9)
    left_s = (run.schedule.steps - run.step) * run.settings.batch / max(rate, 1e-9)
    log.add({
        "step": run.step, "epoch": epoch, "seconds": run.seconds, "size_px": run.schedule.size_px(run.step - 1),
        "learning_rate": run.schedule.learning_rate(run.step - 1), "loss": loss, "slices_per_s": rate,
        "validation_log_loss": validation[0] if validation else None,
        "validation_auc_any": validation[1] if validation else None,
    })  # fmt: skip
    held_out = (
        f", held out: log loss {validation[0]:.4f}, AUC any {validation[1] or math.nan:.4f}" if validation else ""
    )
    log.say(
        f"epoch {epoch:.2f} of {run.settings.epochs}, step {run.step} of {run.schedule.steps}: "
        f"loss {loss:.4f}{held_out}; {rate:.1f} slices/s, {left_s / 60:.0f} min left"
    )


# -------------------------------------------------------------------------------------- what is kept


def _keep(run: _Run) -> None:
    """Write the checkpoint; it is never one whose loss was not looked at."""
    if run.losses and not all(bool(loss.isfinite()) for loss in run.losses):
        return
    if run.processes.first:
        facts = {"step": run.step, "seconds": run.seconds, "best": run.best}
        tensors = pack(run.network, run.average and run.average.module, run.optimizer)
        save_state(run.directory / CHECKPOINT, tensors, facts)
    run.processes.wait()


def _save_weights(run: _Run, name: str) -> None:
    """Write the judged network's weights as a bundle has them: the correction for sampling is in the last bias."""
    if not run.processes.first:
        return
    state = {name: tensor.detach().clone() for name, tensor in run.judged.state_dict().items()}
    state["classifier.bias"] += torch.from_numpy(run.sampler.logit_correction).to(state["classifier.bias"])
    save_state(run.directory / name, state, {"step": run.step})


def _finish(run: _Run, log: RunLog | None) -> None:
    """Keep the final weights, and score every slice that was held out."""
    _save_weights(run, FINAL)
    if len(run.held_out):
        logits = _scores(run, run.held_out)
        if run.processes.first:
            rows = [run.store.rows[number] for number in run.held_out]
            write_predictions(run.directory / HELD_OUT, rows, logits.cpu().numpy())
    if log:
        log.close()
        log.say(f"done: {run.directory}")
