"""Everything that a monitoring reads, in Prometheus' text format; the home of its library.

No label names a patient, a study or a file. Each has a few values: those of the code, or names of the configuration.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from ich_node import __version__
from ich_node.certificates import certificate_ends_at
from ich_node.config import Config
from ich_node.config.load import CHANNELS
from ich_node.database import Database
from ich_node.queries import NO_ANSWER, REPLACED, NodeMeasures, happenings_since, last_self_test, measure_node
from ich_node.records import (
    AlertKind,
    AlertState,
    DeliveryState,
    NotAnalysedReason,
    RunningWorker,
    SeriesState,
    Triage,
)
from ich_node.records.alerts import NOT_ANALYSED, WITHDRAWN
from ich_node.records.self_tests import SelfTestStatus
from ich_node.web.disk_use import DiskUse, look_at_disk
from ich_node.web.folder_sizes import FolderSizes
from ich_node.web.readiness import roles_alive
from ich_node.web.totals import BOUNDS_S, StepTimes, Sums, Totals

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
OTHER: Final = "other"
"""A destination or channel that the configuration does not name: it was taken out, or is a sender's own address."""
_KEPT_S: Final = 2.0
"""Several who read at once cost no more than one."""
_ANSWERS: Final = (*Triage, NOT_ANALYSED, WITHDRAWN)


Values = dict[tuple[str, ...], float]
"""By the values of labels."""


class Exposition:
    """Makes the text that a monitoring reads."""

    def __init__(self, config: Config, database: Database, sizes: FolderSizes) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_NodeCollector(config, database, sizes))
        ProcessCollector(registry=self._registry)
        self._lock = threading.Lock()
        self._made_at = -_KEPT_S
        self._text = b""

    def text(self) -> bytes:
        """Give the metrics as of the last seconds.

        Raises:
            StorageUnavailable, StorageFailed: the database cannot be read.
        """
        with self._lock:
            if time.monotonic() - self._made_at >= _KEPT_S:
                self._text = generate_latest(self._registry)
                self._made_at = time.monotonic()
            return self._text


class _NodeCollector(Collector):
    """Reads everything anew, each time it is asked."""

    def __init__(self, config: Config, database: Database, sizes: FolderSizes) -> None:
        self._config = config
        self._database = database
        self._totals = Totals(config.host_directory, lambda mark: happenings_since(database, mark))
        self._sizes = sizes
        self._names = _Names(config)

    def describe(self) -> Iterable[Metric]:
        """Say nothing beforehand: the library would read everything to know the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        began = time.perf_counter()
        measures = measure_node(self._database)
        yield _info("build", "Version of the program.", {"version": __version__, "python": platform.python_version()})
        yield from _studies(measures)
        yield from _outboxes(measures, self._names)
        yield from _models(measures)
        if self._config.drift.enabled:  # else it stays as it was last found, for ever
            yield from _drift(measures)
        yield from _back_off(measures, self._names)
        with suppress(OSError):  # a disk that cannot be looked at takes no other metric away
            yield from _disk(look_at_disk(self._config, self._sizes))
        yield from _certificates(self._config)
        alive = {role: float(is_alive) for role, is_alive in roles_alive(self._config).items()}
        if self._config.self_test.enabled and (test := last_self_test(self._database)) is not None:
            yield from _self_test(test)
        yield _gauge("role_up", "Whether a role has a process: 1 or 0.", "role", alive)
        if (sums := self._totals.now()) is not None:
            yield from _counters(sums, self._names)
            yield _histogram(sums.steps)
        yield _number("collect_seconds", "How long it took to collect these metrics.", time.perf_counter() - began)


class _Names:
    """Destinations and alert channels of the configuration."""

    def __init__(self, config: Config) -> None:
        self.destinations = tuple(one.name for one in config.destination)
        self.channels = tuple(one.name for kind in CHANNELS for one in getattr(config, kind))

    def destination(self, name: str) -> str:
        return name if name in self.destinations else OTHER

    def channel(self, name: str) -> str:
        return name if name in self.channels else OTHER


# ------------------------------------------------------------------------------------------------ the node now


def _studies(measures: NodeMeasures) -> Iterator[Metric]:
    answers = _with_zeros((*_ANSWERS, NO_ANSWER), measures.answers)
    reasons = _with_zeros((one.name for one in NotAnalysedReason), measures.reasons)
    states = _with_zeros(SeriesState, measures.series)
    oldest = measures.oldest_waiting_s
    yield _gauge("studies", "Studies by what they say now.", "answer", answers)
    yield _gauge("studies_not_analysed", "Studies whose report gives no result, by the reason.", "reason", reasons)
    yield _gauge("series", "Series by their state.", "state", states)
    yield _number("slices_waiting", "Slices that wait to be read or scored.", measures.slices_waiting)
    yield _gauge("oldest_waiting_seconds", "Age of what has waited longest; 0 where nothing waits.", "queue", oldest)
    yield _number("conditions", "What the watchdog says that a person must look at.", measures.conditions)


def _drift(measures: NodeMeasures) -> Iterator[Metric]:
    yield _number("drift_found", "What the last look for drift found, and still holds.", measures.drift_found)
    if measures.drift_looked_at is not None:
        text = "When it was last looked for drift, in seconds since 1970."
        yield _number("drift_last_look_timestamp_seconds", text, measures.drift_looked_at)


def _models(measures: NodeMeasures) -> Iterator[Metric]:
    if measures.model is not None:
        labels = {key: str(measures.model.get(key, "")) for key in ("name", "version", "sha256")}
        yield _info("model", "The model of the newest result.", labels)
    yield from _devices(measures.workers)


def _devices(workers: Iterable[RunningWorker]) -> Iterator[Metric]:
    """Say what workers on the same kind of device hold; a machine has few kinds.

    Workers on one GPU all tell of the whole of it: of these the largest figure counts, and no sum.
    """
    memory: Values = {}
    running: Values = {}
    for one in workers:
        running[one.device, one.model_version] = running.get((one.device, one.model_version), 0) + 1
        before = memory.get((one.device, "used"), 0)
        memory[one.device, "used"] = max(before, one.memory_used) if one.engine == "cuda" else before + one.memory_used
        memory[one.device, "total"] = max(memory.get((one.device, "total"), 0), one.memory_total)
    yield _pairs("workers", "Workers that run, by device and version of their model.", ("device", "version"), running)
    text = "Memory of what computes: of a GPU all that is in use, of a processor what the workers hold."
    yield _pairs("device_memory_bytes", text, ("device", "kind"), memory)


def _with_zeros(known: Iterable[str], found: Mapping[str, int]) -> dict[str, float]:
    return {str(one): 0.0 for one in known} | {name: float(count) for name, count in found.items()}


def _outboxes(measures: NodeMeasures, names: _Names) -> Iterator[Metric]:
    deliveries = _by_name(measures.deliveries, names.destinations, names.destination, DeliveryState)
    alerts = _by_name(measures.alerts, names.channels, names.channel, AlertState)
    yield _pairs("deliveries", "Deliveries by destination and state.", ("destination", "state"), deliveries)
    yield _pairs("alerts", "Alerts by channel and state.", ("channel", "state"), alerts)


def _by_name(
    found: Mapping[tuple[str, str], int], known: Iterable[str], name_of: Callable[[str], str], states: Iterable[str]
) -> Values:
    """Add up by the names that the configuration knows, each with every state."""
    summed: Values = {(name, str(state)): 0 for name in known for state in states}
    for (name, state), count in found.items():
        key = name_of(name), state
        summed[key] = summed.get(key, 0) + count
    return summed


def _back_off(measures: NodeMeasures, names: _Names) -> Iterator[Metric]:
    paused = {name: float(name in measures.paused) for name in names.destinations}
    next_at = {name: at for name, at in measures.paused.items() if name in paused}
    text = "Whether a destination is paused, since it refuses our associations: 1 or 0."
    yield _gauge("destination_paused", text, "destination", paused)
    text = "When a paused destination is tried again, in seconds since 1970."
    yield _gauge("destination_next_attempt_timestamp_seconds", text, "destination", next_at)


def _disk(disk: DiskUse) -> Iterator[Metric]:
    yield _number("disk_free_bytes", "Free on the disk of the state folder.", disk.free)
    yield _number("disk_size_bytes", "Size of the disk of the state folder.", disk.total)
    yield _number("disk_reserve_bytes", "Below so much free the receiver takes no more images.", disk.reserve)
    sizes = {name: float(size) for name, size in disk.database.items()}
    yield _gauge("database_bytes", "Size of the database, and of its write-ahead log.", "file", sizes)
    sizes = {name: float(one.size_bytes) for name, one in disk.folders.items()}
    files = {name: float(one.files) for name, one in disk.folders.items()}
    yield _gauge("folder_bytes", "Size of what lies in a folder, as of the last minutes.", "folder", sizes)
    yield _gauge("folder_files", "Files in a folder, as of the last minutes.", "folder", files)


def _certificates(config: Config) -> Iterator[Metric]:
    """What cannot be read here, a credential of another unit for one, is left out."""
    files = {
        "dicom": None if config.tls.files is None else config.tls.files.certificate,
        "web": Path(config.web.certificate) if config.web.certificate else None,
    }
    ends = {name: certificate_ends_at(path) for name, path in files.items() if path is not None}
    known = {name: at.timestamp() for name, at in ends.items() if at is not None}
    text = "When our certificate expires, in seconds since 1970."
    yield _gauge("certificate_expiry_timestamp_seconds", text, "certificate", known)


def _self_test(test: SelfTestStatus) -> Iterator[Metric]:
    yield _number("self_test_passed", "Whether the last self-test passed: 1 or 0.", float(bool(test.passed)))
    text = "When the last self-test ended, in seconds since 1970."
    yield _number("self_test_last_timestamp_seconds", text, test.finished_at or 0.0)
    if test.seconds is not None:
        text = "From the first byte to the saved report, in the last self-test."
        yield _number("self_test_seconds", text, test.seconds)
    if test.probability is not None:
        yield _number("self_test_probability", "Of any hemorrhage, in the last self-test.", test.probability)


# ------------------------------------------------------------------------------------------- what has happened


def _counters(sums: Sums, names: _Names) -> Iterator[Metric]:
    counts = sums.counts
    yield _counter("instances_received", "Instances that were stored.", ("kind",),
                   {(kind,): counts["instances", kind] for kind in ("ct", "other")})  # fmt: skip
    yield _counter("received_bytes", "Size of the instances that were stored.", (), {(): counts["bytes",]})
    yield _counter("series_received", "Series of which something was stored.", (), {(): counts["series",]})
    yield _counter("studies_received", "Studies of which something was stored.", (), {(): counts["studies",]})
    answers: Values = {(str(one),): counts["reports", str(one)] for one in (*_ANSWERS, REPLACED)}
    yield _counter("reports", "Reports that were saved, by what they say.", ("answer",), answers)
    tests: Values = {(outcome,): counts["self-tests", outcome] for outcome in ("passed", "failed")}
    yield _counter("self_tests", "Self-tests that have ended.", ("outcome",), tests)
    delivered: Values = {(name,): 0 for name in names.destinations}
    told: Values = {(name, str(kind)): 0 for name in names.channels for kind in AlertKind}
    for key, count in counts.items():
        if key[0] == "delivered":
            _add(delivered, (names.destination(key[1]),), count)
        elif key[0] == "told":
            _add(told, (names.channel(key[1]), key[2]), count)
    yield _counter("delivered", "Objects that a destination took.", ("destination",), delivered)
    yield _counter("alerts_told", "Alerts that a channel took.", ("channel", "kind"), told)


def _add(counts: Values, key: tuple[str, ...], count: int) -> None:
    counts[key] = counts.get(key, 0) + count


def _histogram(steps: Mapping[str, StepTimes]) -> Metric:
    text = "How long the steps of a study take."
    family = HistogramMetricFamily("ich_node_step_seconds", text, labels=["step"])
    bounds = [f"{float(one)}" for one in BOUNDS_S] + ["+Inf"]
    for name, times in steps.items():
        within, buckets = 0, []
        for bound, count in zip(bounds, times.buckets, strict=True):
            within += count
            buckets.append((bound, float(within)))
        family.add_metric([name], buckets, times.sum_s)
    return family


# --------------------------------------------------------------------------------------------------- families


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(f"ich_node_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _pairs(name, text, (label,), {(str(key),): value for key, value in values.items()})


def _pairs(name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(f"ich_node_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _number(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"ich_node_{name}", text, value=value)


def _info(name: str, text: str, labels: Mapping[str, str]) -> Metric:
    return _pairs(f"{name}_info", text, tuple(labels), {tuple(labels.values()): 1})
