"""The training loop, from top to bottom: data, network, steps, and what is kept."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.errors import TrainingError
from ich_node.service import stop_on_signals
from ich_node.training.fit.augment import select
from ich_node.training.fit.checkpoint import pack, save_state
from ich_node.training.fit.images import draw_batch
from ich_node.training.fit.log import RunLog
from ich_node.training.fit.networks import BEST, CHECKPOINT, FINAL
from ich_node.training.fit.objective import area_under_roc, class_weights, weighted_log_loss
from ich_node.training.fit.processes import join_processes
from ich_node.training.fit.run import Run, open_run
from ich_node.training.fit.sampling import seed_step
from ich_node.training.fit.scoring import autocast, score_slices
from ich_node.training.fit.settings import FitSettings
from ich_node.training.fit.store import StoredSlices
from ich_node.training.predictions import write_predictions
from ich_node.training.prepared import PreparedSet
from ich_node.training.run_folder import HELD_OUT

LOG: Final = "log.csv"

_LOG_EVERY_S: Final = 15.0
_LOOK_EVERY: Final = 50
"""Steps between two looks at the loss, which make the device wait."""


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
    torch.set_flush_denormal(True)  # numbers below 1e-38 slow a processor down by a twelfth, and are worth nothing
    with join_processes(device) as processes:
        try:
            run = open_run(settings, data, directory, processes)
            if _is_finished(run):
                return
            log = RunLog(directory / LOG, run.step, run.schedule.steps) if processes.first else None
            with stop_on_signals() as stop:
                _train(run, log, stop)
                _finish(run, log, stop)
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"out of memory with {settings.batch} images of {settings.size_px} px. If the data lie on the device, "
                "try the same command with --set resident_gib=0: it goes on from the last checkpoint. Else choose "
                f"another folder, a smaller --batch or --size, and --init {directory} to begin with what was learned"
            ) from None
        finally:
            torch.set_flush_denormal(False)  # the process may go on with something else


def _is_finished(run: Run) -> bool:
    """Nothing is left to do."""
    wanted = [FINAL, HELD_OUT] if len(run.held_out) else [FINAL]
    return run.step == run.schedule.steps and all((run.directory / name).exists() for name in wanted)


# ------------------------------------------------------------------------------------------- the loop


def _train(run: Run, log: RunLog | None, stop: Event) -> None:
    if log and run.step:
        log.say(f"going on at step {run.step} of {run.schedule.steps}")
    began, before_s = time.monotonic(), run.seconds
    kept, logged = _Mark(run.step), _Mark(run.step)
    while run.step < run.schedule.steps:
        epoch = run.step // run.schedule.steps_per_epoch
        for slices, stored in _batches(run, epoch):
            run.losses.append(_step(run, slices, stored))
            run.step += 1
            run.seconds = before_s + time.monotonic() - began
            if log:
                log.advance()
            looking = run.step % _LOOK_EVERY == 0
            if not (looking or run.processes.count == 1):
                continue  # processes agree now and then: it makes them wait for each other
            stopping, keeping, logging = run.processes.any_of(
                stop.is_set(),
                run.processes.first and kept.age_s > 60 * run.settings.checkpoint_minutes,
                run.processes.first and looking and logged.age_s > _LOG_EVERY_S,
            )
            if logging and run.step % run.schedule.steps_per_epoch:  # the end of an epoch is logged below
                _write_log(run, log, logged, logged.age_s)
                logged = _Mark(run.step)
            if stopping or keeping:
                _keep(run)
                kept = _Mark(run.step)
            if stopping:
                raise KeyboardInterrupt
        trained_s = logged.age_s
        _write_log(run, log, logged, trained_s, _validation(run, epoch + 1, stop))
        _keep(run)
        kept, logged = _Mark(run.step), _Mark(run.step)


class _Mark:
    """A step and when it was done."""

    def __init__(self, step: int) -> None:
        self.step = step
        self._at = time.monotonic()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._at


def _batches(run: Run, epoch: int) -> Iterator[tuple[NDArray[np.int64], list[StoredSlices]]]:
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


def _step(run: Run, slices: NDArray[np.int64], stored: list[StoredSlices]) -> Tensor:
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
    shown = torch.from_numpy(slices).to(images.device)
    loss = weighted_log_loss(logits.float(), run.labels[shown], run.weights, run.importance[shown])
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch annotates most
    if settings.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), settings.clip_norm)
    run.optimizer.step()
    if run.average is not None:
        run.average.update(run.network, step=run.step)
    return loss.detach()


def _validation(run: Run, epochs_done: int, stop: Event) -> tuple[float, float | None] | None:
    """Score slices held out: weighted log loss and AUC of ``any``; keep the best weights."""
    due = epochs_done % run.settings.validate_epochs == 0 or epochs_done == run.settings.epochs
    if not len(run.held_out) or not due:
        return None
    some = run.held_out
    if run.settings.validation_slices and epochs_done < run.settings.epochs:
        chosen = np.random.default_rng(run.settings.seed).permutation(len(some))[: run.settings.validation_slices]
        some = some[np.sort(chosen)]
    logits = _scores(run, some, stop)
    if epochs_done == run.settings.epochs:
        run.final_logits = logits
    labels = run.labels[torch.from_numpy(some).to(logits.device)]
    loss = float(weighted_log_loss(logits, labels, class_weights(2.0).to(logits.device)))
    if loss < run.best:
        run.best = loss
        _save_weights(run, BEST)
    return loss, area_under_roc(logits[:, 0], labels[:, 0])


def _scores(run: Run, slices: NDArray[np.int64], stop: Event) -> Tensor:
    """Logits of slices (slices, 6), corrected for sampling. A stop is heeded where no other process waits."""

    def look(_: int) -> None:
        if stop.is_set() and run.processes.count == 1:
            raise KeyboardInterrupt

    logits, _ = score_slices(run.judged, run.images, slices, run.settings, run.processes, look)
    correction = torch.from_numpy(run.sampler.logit_correction).to(logits)
    return logits + correction


def _write_log(
    run: Run,
    log: RunLog | None,
    since: _Mark,
    trained_s: float,
    validation: tuple[float, float | None] | None = None,
) -> None:
    """Look at the losses since the last time, of so many seconds of training.

    Raises:
        TrainingError: one of them is no number.
    """
    loss = run.processes.mean(torch.stack(run.losses).mean()) if run.losses else math.nan
    run.losses.clear()
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is no number any more at step {run.step}; give the same command with a smaller --learning-rate "
            f"or --set clip_norm=1: it goes on from the last checkpoint in {run.directory}"
        )
    if log is None:
        return
    epoch = run.step / run.schedule.steps_per_epoch
    rate = (run.step - since.step) * run.settings.batch / max(trained_s, 1e-9)
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


def _keep(run: Run) -> None:
    """Write the checkpoint, but never one with something in it that is no number.

    Raises:
        TrainingError: the weights are none any more; the checkpoint before stays.
    """
    tensors = pack(run.network, run.average and run.average.module, run.optimizer)
    _demand_numbers(run, tensors)
    if run.processes.first:
        facts = {"step": run.step, "seconds": run.seconds, "best": run.best}
        save_state(run.directory / CHECKPOINT, tensors, facts)
    run.processes.wait()


def _demand_numbers(run: Run, tensors: Mapping[str, Tensor]) -> None:
    broken = sum((~tensor.isfinite()).sum() for tensor in tensors.values() if tensor.is_floating_point())
    if run.processes.any_of(bool(broken))[0]:
        raise TrainingError(
            f"the weights are no numbers any more at step {run.step}; give the same command with a smaller "
            f"--learning-rate or --set clip_norm=1: it goes on from the last checkpoint in {run.directory}"
        )


def _save_weights(run: Run, name: str) -> None:
    """Write the judged network's weights as a bundle has them: the correction for sampling is in the last bias."""
    if not run.processes.first:
        return
    state = {name: tensor.detach().clone() for name, tensor in run.judged.state_dict().items()}
    state["classifier.bias"] += torch.from_numpy(run.sampler.logit_correction).to(state["classifier.bias"])
    save_state(run.directory / name, state, {"step": run.step})


def _finish(run: Run, log: RunLog | None, stop: Event) -> None:
    """Keep the final weights, and score every slice that was held out."""
    _save_weights(run, FINAL)
    if len(run.held_out):
        logits = _scores(run, run.held_out, stop) if run.final_logits is None else run.final_logits
        if run.processes.first:
            rows = [run.store.rows[number] for number in run.held_out]
            write_predictions(run.directory / HELD_OUT, rows, logits.cpu().numpy())
    if log:
        log.close()
        log.say(f"done: {run.directory}")
