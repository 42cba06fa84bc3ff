"""Shards are made in child processes, a few at a time: a crash of a codec costs one slice, memory stays bounded."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from pebble import ProcessExpired, ProcessPool

from ich_node.decode.sandbox import limit_this_process
from ich_node.errors import TrainingError
from ich_node.records import NotAnalysedReason
from ich_node.training.prepare.shard import ShardTask, make_shard, read_alone

_AHEAD: Final = 1
"""Shards that wait beside those being made, so that no child idles."""
_START_S: Final = 60.0
_STOP_WAIT_S: Final = 5.0
_ADDRESS_SPACE_BYTES: Final = 4 * 1024**3
_TRIES: Final = 3
_THREADS: Final = "OPENBLAS_NUM_THREADS"

Tell = Callable[[int, int], None]
"""Called with the slices looked at, and those that can be used, whenever a shard is finished."""


def make_shards(tasks: Iterable[ShardTask], processes: int, tell: Tell) -> None:
    """Make the shards of all tasks, in any order.

    Raises:
        TrainingError: a shard cannot be made.
    """
    with _open_pool(processes) as pool:
        running: dict[Future[int], ShardTask] = {}
        for task in tasks:
            running[_submit(pool, task)] = task
            if len(running) >= processes + _AHEAD:
                _finish_some(pool, running, tell)
        while running:
            _finish_some(pool, running, tell)


@contextmanager
def _open_pool(processes: int) -> Iterator[ProcessPool]:
    context = multiprocessing.get_context("spawn")
    with _one_thread_each():
        pool = ProcessPool(
            max_workers=processes,
            context=context,
            initializer=limit_this_process,
            initargs=(_ADDRESS_SPACE_BYTES, os.getpid(), True),
        )
        try:
            yield pool
        finally:
            pool.stop()  # type: ignore[no-untyped-call]  # pebble annotates most, not this
            pool.join(timeout=_STOP_WAIT_S)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Have children begin with one thread of linear algebra: those of many cores would pass the memory limit."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before


def _submit(pool: ProcessPool, task: ShardTask) -> Future[int]:
    limit_s = _START_S + task.seconds_per_item * len(task.lot.items)
    future: Future[int] = pool.schedule(make_shard, args=(task,), timeout=limit_s)
    return future


def _finish_some(pool: ProcessPool, running: dict[Future[int], ShardTask], tell: Tell) -> None:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        task = running.pop(future)
        tell(task.lot.slices, _result(pool, task, future))


def _result(pool: ProcessPool, task: ShardTask, future: Future[int]) -> int:
    """Wait for a shard; where its child died, find what killed it and make the shard without that."""
    for _ in range(_TRIES):
        try:
            return future.result()
        except (TimeoutError, ProcessExpired):
            task = replace(task, skipped={**task.skipped, **_culprits(pool, task)})
            future = _submit(pool, task)
    raise TrainingError(
        f"shard {task.number} ({task.lot.source}, from {task.lot.items[0].image_id}): its child dies each time, "
        "though no single slice does it; give fewer slices per shard or fewer processes, in case memory runs out"
    )


def _culprits(pool: ProcessPool, task: ShardTask) -> dict[int, str]:
    """Try the items one by one; say of those that end a child how they do it."""
    found = {}
    for index, item in enumerate(task.lot.items):
        if index not in task.skipped:
            alone = pool.schedule(
                read_alone,
                args=(task.lot.reader, item, task.seconds_per_item),
                timeout=_START_S + task.seconds_per_item,
            )
            if reason := _death(alone):
                found[index] = reason
    return found


def _death(alone: Future[Any]) -> str:
    try:
        alone.result()
    except TimeoutError:
        return NotAnalysedReason.DECODE_TIMEOUT.text
    except ProcessExpired as crash:
        timed_out = crash.exitcode == -signal.SIGALRM
        reason = NotAnalysedReason.DECODE_TIMEOUT if timed_out else NotAnalysedReason.DECODE_CRASHED
        return reason.text if timed_out else f"{reason.text}: exit code {crash.exitcode}"
    return ""
