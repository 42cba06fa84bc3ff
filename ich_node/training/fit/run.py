"""What a run holds in memory, and how it begins or goes on."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node import __version__
from ich_node.durable import replace_durably
from ich_node.errors import TrainingError
from ich_node.model.network import SliceNetwork
from ich_node.training.fit.checkpoint import load_state, unpack
from ich_node.training.fit.images import ImageMaker
from ich_node.training.fit.networks import (
    CHECKPOINT,
    data_of,
    demand_unseen,
    make_average,
    make_network,
    make_optimizer,
)
from ich_node.training.fit.objective import class_weights
from ich_node.training.fit.processes import Processes
from ich_node.training.fit.sampling import Sampler, make_sampler
from ich_node.training.fit.schedule import Schedule, make_schedule
from ich_node.training.fit.settings import FitSettings
from ich_node.training.fit.store import SliceStore
from ich_node.training.prepared import PreparedSet, SliceRow
from ich_node.training.run_folder import CONFIG, OF_THE_MACHINE


@dataclass(slots=True, eq=False)
class Run:
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
    importance: Tensor
    """(all slices,), see ``Sampler``."""
    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    losses: list[Tensor] = field(default_factory=list)
    final_logits: Tensor | None = None
    """Of all slices held out, from the validation after the last epoch."""

    @property
    def judged(self) -> SliceNetwork:
        """The network that is validated and kept."""
        return self.network if self.average is None else self.average.module


def open_run(settings: FitSettings, data: Sequence[PreparedSet], directory: Path, processes: Processes) -> Run:
    """Read the data, make the network, and load the checkpoint where a run is to go on.

    Raises:
        TrainingError: see ``fit``.
    """
    if settings.batch % processes.count:
        raise TrainingError(f"--batch {settings.batch} cannot be shared evenly by {processes.count} processes")
    store = SliceStore(data, processes.device, settings.resident_gib)
    training, held_out = _split(store, settings)
    sampler = make_sampler([store.rows[number] for number in training], settings)
    if sampler.draws < settings.batch:
        raise TrainingError(
            f"an epoch of {sampler.draws} slices fills no batch of {settings.batch}; make --batch smaller"
        )
    if settings.init is not None and len(held_out):
        demand_unseen(Path(settings.init), settings.fold, data)
    network = make_network(settings, processes.device)
    spread = processes.spread(network)
    run = Run(
        settings=settings,
        directory=directory,
        processes=processes,
        store=store,
        images=ImageMaker(store, settings.preprocessing, settings.neighbours),
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
        importance=_of_all(store, training, sampler).to(processes.device),
    )
    _begin_or_go_on(run, data)
    return run


def _of_all(store: SliceStore, training: NDArray[np.int64], sampler: Sampler) -> Tensor:
    importance = torch.ones(len(store.rows))
    importance[torch.from_numpy(training)] = torch.from_numpy(sampler.importance).float()
    return importance


def _split(store: SliceStore, settings: FitSettings) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    folds = np.array([row.fold for row in store.rows])
    held_out = np.flatnonzero(folds == settings.fold) if settings.fold is not None else np.array([], np.int64)
    if settings.fold is not None and not len(held_out):
        raise TrainingError(f"no slice is in fold {settings.fold}; the data have folds {sorted(set(folds.tolist()))}")
    training = np.setdiff1d(np.arange(len(folds)), held_out)
    _demand_apart([store.rows[number] for number in training], [store.rows[number] for number in held_out])
    return training, held_out


def _demand_apart(training: Sequence[SliceRow], held_out: Sequence[SliceRow]) -> None:
    """Folds of sets that were prepared one by one know nothing of each other."""
    for what, marks_of in _MARKS.items():
        both = {mark for row in training if (mark := marks_of(row))} & {
            mark for row in held_out if (mark := marks_of(row))
        }
        if both:
            raise TrainingError(
                f"{len(both)} {what}s are trained on and held out, such as {min(both)}: these sets have folds that "
                "know nothing of each other; prepare all sources together in one `ich-train prepare`"
            )


_MARKS: Final[dict[str, Callable[[SliceRow], str]]] = {
    "image": lambda row: f"{row.source} {row.image_id}",
    "patient": lambda row: row.patient_id,
    "group": lambda row: row.group,
}


def _begin_or_go_on(run: Run, data: Sequence[PreparedSet]) -> None:
    """Write the configuration of a new run, or load the checkpoint of one that was interrupted."""
    config = _configuration(run, data)
    path = run.directory / CONFIG
    if path.exists():
        demand_same(path, config)
        if (run.directory / CHECKPOINT).exists():
            tensors, facts = load_state(run.directory / CHECKPOINT)
            unpack(tensors, run.network, run.average and run.average.module, run.optimizer)
            run.step, run.seconds, run.best = facts["step"], facts["seconds"], facts["best"]
    if run.processes.mean(torch.tensor(float(run.step), device=run.processes.device)) != run.step:
        raise TrainingError(f"not every process sees the checkpoint; put {run.directory} where all machines see it")
    if run.processes.first:
        run.directory.mkdir(parents=True, exist_ok=True)
        _write_configuration(path, config, run.step)
    run.processes.wait()


def _write_configuration(path: Path, config: dict[str, Any], step: int) -> None:
    """Write the configuration of a new run; of one that goes on, add what is done otherwise from here on."""
    if path.exists():
        before = json.loads(path.read_text())
        last = dict(before["settings"])
        for one in before["changed"]:
            last |= one["settings"]
        taming = {name: config["settings"][name] for name in sorted(_TAMING) if config["settings"][name] != last[name]}
        if not taming:
            return
        config = before | {"changed": [*before["changed"], {"from_step": step, "settings": taming}]}
    replace_durably(path, [(json.dumps(config, indent=1) + "\n").encode()])


def _configuration(run: Run, data: Sequence[PreparedSet]) -> dict[str, Any]:
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
        "data": [*(one for prepared in data for one in _sources(prepared, run)), *_before(settings)],
        "training_slices": len(run.training),
        "held_out_slices": len(run.held_out),
        "logit_correction": run.sampler.logit_correction.tolist(),
        "settings": settings.model_dump(mode="json"),
        "changed": [],
    }


def _sources(data: PreparedSet, run: Run) -> Iterator[dict[str, Any]]:
    """What is trained on, by source."""
    for name in data.manifest.counts:
        rows = [row for row in data.rows if row.source == name and row.fold != run.settings.fold]
        yield {
            "name": name,
            "terms": data.manifest.terms.get(name, "not stated"),
            "slices": len(rows),
            "patients": len({row.patient_id for row in rows if row.patient_id}),
            "table_sha256": data.manifest.table_sha256,
        }


def _before(settings: FitSettings) -> Iterator[dict[str, Any]]:
    """What the weights were trained on that the run starts from."""
    if settings.pretrained:
        yield {"name": f"weights of timm for {settings.backbone}", "terms": "as timm states them for these weights"}
    if settings.init is not None:
        yield from (dict(one) for one in data_of(Path(settings.init)))


_TAMING: Final = frozenset(("learning_rate", "clip_norm"))
"""What a run may go on with otherwise where its loss ran away; the configuration says from which step on."""


def demand_same(path: Path, config: dict[str, Any]) -> None:
    """Compare a run's configuration with the one that is wanted.

    Raises:
        TrainingError: they differ in more than what may change.
    """
    try:
        before = json.loads(path.read_text())
        mine, theirs = config["settings"], before["settings"]
    except (ValueError, KeyError) as error:
        raise TrainingError(f"{path}: damaged ({error}); choose another folder") from None
    fixed = mine.keys() - OF_THE_MACHINE - _TAMING
    changed = sorted(name for name in fixed if theirs.get(name) != mine[name])
    different = [name for name in ("data", "training_slices") if before.get(name) != config[name]]
    if changed or different:
        different = ["settings"] * bool(changed) + different
        raise TrainingError(
            f"{path.parent} holds a run with other {' and '.join(different)}"
            + (f" ({', '.join(changed)})" if changed else "")
            + "; choose another folder, or give the same command to go on"
        )
