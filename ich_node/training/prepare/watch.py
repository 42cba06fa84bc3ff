"""Progress: a bar on a terminal, a line now and then elsewhere; how fast, and how long it will take."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

RSNA_SLICES: Final = 752_803
"""Labelled slices of RSNA 2019, stage 2."""
_LINE_EVERY_S: Final = 10.0

Tell = Callable[[int, int], None]


class Watch:
    """Count what is finished and tell how fast it goes."""

    def __init__(self, total: int, processes: int) -> None:
        self.total = total
        self.done = 0
        """Items looked at, those left out among them."""
        self.slices = 0
        self._processes = processes
        self._began = time.monotonic()

    def count(self, done: int, slices: int) -> None:
        """Add a finished shard."""
        self.done += done
        self.slices += slices

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def slices_per_s(self) -> float:
        return self.done / max(self.seconds, 1e-6)

    def speed(self) -> str:
        """Say how fast it goes, such as `85.3 slices/s`."""
        return f"{self.slices_per_s:.1f} slices/s"

    def line(self) -> str:
        """Say how far it is and how long it will take."""
        left_s = (self.total - self.done) / max(self.slices_per_s, 1e-6)
        return f"{self.done:,} of {self.total:,} slices, {self.speed()}, {duration(left_s)} left"

    def summary(self) -> str:
        """Say how long it took, and how long the whole of RSNA 2019 would take at this rate."""
        per_core = self.slices_per_s / self._processes
        whole = duration(RSNA_SLICES / max(self.slices_per_s, 1e-6))
        return (
            f"{self.done:,} slices in {duration(self.seconds)} with {self._processes} processes: {self.speed()}, "
            f"{per_core:.1f} per process; all {RSNA_SLICES:,} of RSNA 2019 would take {whole}"
        )


@contextmanager
def watching(watch: Watch, stream: TextIO | None = None) -> Iterator[Tell]:
    """Show progress on standard error while shards are told of."""
    out = stream or sys.stderr
    if out.isatty():
        with _bar(out) as bar:
            task = bar.add_task("preparing", total=watch.total, speed="")
            yield lambda done, slices: _advance(watch, bar, task, done, slices)
    else:
        yield _Lines(watch, out).tell


class _Lines:
    def __init__(self, watch: Watch, out: TextIO) -> None:
        self._watch = watch
        self._out = out
        self._told_at = 0.0

    def tell(self, done: int, slices: int) -> None:
        self._watch.count(done, slices)
        if self._watch.seconds - self._told_at >= _LINE_EVERY_S:
            self._told_at = self._watch.seconds
            self._out.write(f"{self._watch.line()}\n")
            self._out.flush()


def _bar(out: TextIO) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=Console(file=out))


def _advance(watch: Watch, bar: Progress, task: TaskID, done: int, slices: int) -> None:
    watch.count(done, slices)
    bar.update(task, advance=done, speed=watch.speed())


def duration(seconds: float) -> str:
    """Write a duration as people say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
