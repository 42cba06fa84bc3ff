"""``ich-train prepare``: sources of labelled slices → a prepared set."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from ich_node.errors import TrainingError
from ich_node.training.prepare.children import make_shards
from ich_node.training.prepare.finish import finish, read_sidecar
from ich_node.training.prepare.lot import Source
from ich_node.training.prepare.plan import begin_or_resume, make_plan, shard_tasks
from ich_node.training.prepare.shard import ShardTask
from ich_node.training.prepare.watch import Watch, watching
from ich_node.training.prepared import FoldRule, PreparedSet, open_prepared

NEAR_DUPLICATE_BITS: Final = 2
"""Of 64. Among 3,269 slices of known patients (RSNA 2019, CT-ICH) 16 of 5 million pairs are as close, all of them
neighbouring slices of one patient, and of 3,368 images of unknown patients two are. With 4 bits 127 pairs are as close,
22 of them of different patients, and three patients of CT-ICH are joined by images of RSNA 2019; with 6 bits clusters
run together. A picture that was enlarged, compressed and shifted in level by up to 4 HU is found in 77 of 100 cases,
with 4 bits in 95."""


@dataclass(frozen=True, slots=True)
class PrepareSettings:
    """How a set is prepared, whatever its sources. Folds, seed, bits and terms may change without reading again."""

    folds: int = 5
    seed: int = 0
    near_duplicate_bits: int = NEAR_DUPLICATE_BITS
    slices_per_shard: int = 256
    processes: int = 0
    """0: one for each core."""
    seconds_per_item: float = 30.0
    """Longer and the slice is left out."""
    terms: Mapping[str, str] = field(default_factory=dict)
    """Of use, per source."""


def prepare(
    sources: Sequence[Source], directory: Path, settings: PrepareSettings, say: Callable[[str], None]
) -> PreparedSet:
    """Read sources into a folder; called again after an interruption, go on where it stopped.

    Args:
        say: called with what is worth a line: what was found, how fast it went.

    Raises:
        TrainingError: the sources or the folder cannot be used; says what to do.
    """
    _check(settings)
    known = {lot.source for source in sources for lot in source.lots}
    if strangers := set(settings.terms) - known:
        raise TrainingError(
            f"terms are given for {', '.join(sorted(strangers))}; the sources are called {', '.join(sorted(known))}"
        )
    for note in (note for source in sources for note in source.notes):
        say(note)
    plan = make_plan(sources, settings.slices_per_shard)
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        begin_or_resume(plan, directory)
        tasks = list(shard_tasks(plan, directory, settings.seconds_per_item))
        _make_missing(tasks, settings, say)
        rule = FoldRule(folds=settings.folds, seed=settings.seed, near_duplicate_bits=settings.near_duplicate_bits)
        finish(directory, [task.sidecar_path for task in tasks], rule, plan.left_out, settings.terms)
    return open_prepared(directory)


def _make_missing(tasks: Sequence[ShardTask], settings: PrepareSettings, say: Callable[[str], None]) -> None:
    missing = [task for task in tasks if not _is_made(task)]
    if len(missing) < len(tasks):
        say(f"{len(tasks) - len(missing)} of {len(tasks)} shards are there already")
    if not missing:
        return
    processes = min(settings.processes or len(os.sched_getaffinity(0)), len(missing))
    watch = Watch(sum(task.lot.slices for task in missing), processes)
    with watching(watch) as tell:
        make_shards(missing, processes, tell)
    say(watch.summary())


def _is_made(task: ShardTask) -> bool:
    """Tell whether a shard is whole: its sidecar is written after it. One that somebody deleted is made again."""
    if not task.sidecar_path.exists():
        return False
    return task.shard_path.exists() or read_sidecar(task.sidecar_path).shard is None


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    lock = FileLock(directory / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(f"{directory}: another `ich-train prepare` works in it; wait for it, or end it") from None
    try:
        yield
    finally:
        lock.release()


def _check(settings: PrepareSettings) -> None:
    if not 2 <= settings.folds <= 100 or not 0 <= settings.near_duplicate_bits <= 16:
        raise TrainingError("settings: give 2 to 100 folds, and 0 to 16 bits for near-duplicates")
    if not 1 <= settings.slices_per_shard <= 4096 or settings.processes < 0 or settings.seconds_per_item <= 0:
        raise TrainingError("settings: give 1 to 4096 slices per shard, 0 or more processes, more than 0 s per slice")
