"""A pool of models on the machines of a Ray cluster. The only module that knows Ray.

Plain actors, one series at a time each: so it is known which series were scored whenever the program ends, a series
that kills its worker is known by name, and no more series are in flight than there are models.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

from ich_node.archive_scoring.scorer import ScoringSetup, SeriesScorer, failed_row, open_scorer
from ich_node.archive_scoring.unpacking import delete_left_over
from ich_node.errors import BulkScoringStopped, DeviceFailed, IchNodeError, ModelError, StartError
from ich_node.records import ArchivedSeries, ModelIdentity
from ich_node.score_table import ScoreRow

_MOST_TRIES: Final = 3
"""Of a series whose worker, or its machine, is gone."""
_CORES_A_MODEL: Final = 4
_WAIT_S: Final = 1.0
_LONGEST_WITHOUT_S: Final = 900.0
"""Without a model on any machine, and none that gets ready: all are gone, or busy with other work."""
_REACH_S: Final = 10.0
_OBJECT_STORE_BYTES: Final = 128 * 1024 * 1024
"""Of a cluster on this machine: rows are small."""
_SILENCE: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Nothing is reported to Ray's makers; no message on what does not concern us."""


class RayPool:
    """Score series on a Ray cluster.

    Args:
        identity: of the model; a machine with another one under the same path is refused.
        address: of the cluster; empty: one is made on this machine, and ends with the work.
        workers: how many models there are to be; None: as many as the machines have room for.
    """

    def __init__(self, setup: ScoringSetup, identity: ModelIdentity, address: str, workers: int | None) -> None:
        self._setup = setup
        self._identity = identity
        self._address = address
        self._workers = workers

    def score(self, series: Iterator[ArchivedSeries]) -> Iterator[ScoreRow]:
        """Take series as workers are free, and give their rows as they come.

        Raises:
            StartError: Ray is missing, or the cluster cannot be reached.
            ModelError: a machine has another model, or none.
            IchNodeError: a worker's disk failed.
        """
        if (first := next(series, None)) is None:
            return
        ray = _connect(self._address)
        try:
            yield from _Work(ray, self._setup, self._identity, self._workers).run(chain([first], series))
        finally:
            ray.shutdown()


class _Work:
    """Workers, what each of them does, and what is to be done again."""

    def __init__(self, ray: Any, setup: ScoringSetup, identity: ModelIdentity, workers: int | None) -> None:
        self._ray = ray
        self._identity = identity
        self._places, needs, threads = _room(ray.nodes(), workers)
        self._make = _maker(ray, setup, needs, threads)
        self._starting: dict[Any, Any] = {}
        self._scoring: dict[Any, tuple[Any, ArchivedSeries]] = {}
        self._again: list[ArchivedSeries] = []
        self._tries: Counter[tuple[str, str]] = Counter()
        self._died_starting = 0

    def run(self, series: Iterator[ArchivedSeries]) -> Iterator[ScoreRow]:
        waiting = iter(series)
        for _ in range(self._places):
            self._start()
        free: list[Any] = []
        last_done_at = time.monotonic()
        while True:
            while free and (one := self._again.pop() if self._again else next(waiting, None)) is not None:
                worker = free.pop()
                self._scoring[worker.score.remote(one)] = (worker, one)
            if not self._scoring and free:
                return
            done, _ = self._ray.wait([*self._starting, *self._scoring], num_returns=1, timeout=_WAIT_S)
            if done or self._scoring:
                last_done_at = time.monotonic()
            elif time.monotonic() - last_done_at > _LONGEST_WITHOUT_S:
                raise BulkScoringStopped("no machine of the Ray cluster has had room for a model for 15 minutes")
            for task in done:
                worker, row = self._started(task) if task in self._starting else self._scored(task)
                if worker is not None:
                    free.append(worker)
                if row is not None:
                    yield row

    def _start(self) -> None:
        worker = self._make()
        self._starting[worker.model_sha256.remote()] = worker

    def _started(self, task: Any) -> tuple[Any, None]:
        """Take a worker that is ready; where it died, start another."""
        worker = self._starting.pop(task)
        try:
            sha256 = self._answer(task)
        except _WorkerGone as gone:
            self._died_starting += 1
            if self._died_starting > self._places * _MOST_TRIES:
                raise BulkScoringStopped("workers on the Ray cluster end before they are ready; see its logs") from gone
            self._start()
            return None, None
        if sha256 != self._identity.sha256:
            raise ModelError("a machine of the Ray cluster has another model in the same folder; make them alike")
        self._died_starting = 0
        return worker, None

    def _scored(self, task: Any) -> tuple[Any, ScoreRow | None]:
        """Take a row; where the worker is gone, another tries the series again, a few times."""
        worker, series = self._scoring.pop(task)
        try:
            return worker, self._answer(task)
        except _WorkerGone as gone:
            self._ray.kill(worker)
            self._start()
            key = (series.study_instance_uid, series.series_instance_uid)
            self._tries[key] += 1
            if self._tries[key] < _MOST_TRIES:
                self._again.append(series)
                return None, None
            return None, failed_row(series, self._identity, f"scoring failed {_MOST_TRIES} times ({gone})")

    def _answer(self, task: Any) -> Any:
        from ray.exceptions import RayError, RayTaskError

        try:
            return self._ray.get(task)
        except RayTaskError as error:
            if isinstance(error.cause, DeviceFailed):
                raise _WorkerGone("its processor failed") from error
            if isinstance(error.cause, IchNodeError):
                raise error.cause from error
            raise
        except RayError as error:
            raise _WorkerGone("its worker ended") from error


class _WorkerGone(Exception):
    """A worker, or the machine it was on, is there no more."""


class _Worker:
    """One model on some machine."""

    def __init__(self, setup: ScoringSetup) -> None:
        self._opened = open_scorer(setup)
        self._scorer: SeriesScorer | None = None

    def model_sha256(self) -> str:
        """Open the model: here, since what a constructor raises does not reach who asked."""
        delete_left_over()
        self._scorer = self._opened.__enter__()
        return self._scorer.identity.sha256

    def score(self, series: ArchivedSeries) -> ScoreRow:
        assert self._scorer is not None, "the model is opened first"
        return self._scorer.score(series)


def _connect(address: str) -> Any:
    """Join a cluster, or make one that nobody else can use.

    Raises:
        StartError: Ray is missing, or the cluster cannot be reached.
    """
    os.environ.update(_SILENCE)
    if address:
        _reach(address)
    else:  # its ports are open to every interface; whoever has no token is refused
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    try:
        import ray
    except ImportError as missing:
        raise StartError("Ray is missing: pip install 'ich-node[scale]', or leave --ray out") from missing
    try:
        if address:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                configure_logging=False,
            )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        place = f"the Ray cluster at {address} cannot be joined" if address else "Ray cannot be started here"
        raise StartError(f"{place} ({type(error).__name__}); see docs/scaling.md") from error
    return ray


def _reach(address: str) -> None:
    """See that somebody listens there: Ray itself would try for minutes, without a word.

    Raises:
        StartError: nobody does.
    """
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise StartError(f"the Ray cluster at {address} cannot be reached: {why}; see docs/scaling.md") from error


def _room(nodes: list[dict[str, Any]], workers: int | None) -> tuple[int, dict[str, float], int]:
    """Say how many models there is room for, what Ray is to keep for each, and how many threads each uses."""
    alive = [one["Resources"] for one in nodes if one["Alive"] and one["Resources"].get("CPU")]
    if not alive:
        raise StartError("no machine of the Ray cluster has a processor to spare")
    gpus = int(sum(one.get("GPU", 0) for one in alive))
    cores = int(min(_CORES_A_MODEL, *(one["CPU"] for one in alive)))
    if gpus:
        return workers or gpus, {"num_gpus": 1, "num_cpus": 1}, cores
    return workers or sum(int(one["CPU"]) // cores for one in alive), {"num_cpus": cores}, cores


def _maker(ray: Any, setup: ScoringSetup, needs: dict[str, float], threads: int) -> Callable[[], Any]:
    own = dataclasses.replace(setup, threads=setup.threads or threads, decoders=threads)
    remote = ray.remote(**needs, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(_Worker)
    return lambda: remote.remote(own)
