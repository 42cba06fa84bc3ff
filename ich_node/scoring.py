"""``ich-node score``: files and folders in, results out, without a network or a database."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ich_node.decode import DecodedInstance, DecoderPool, DecodeTask
from ich_node.pipeline import Analysis, Model, analyse_series, report, score_slices
from ich_node.records import (
    InstanceState,
    PlaneScore,
    ReportIdentity,
    ResultObject,
    SeriesContent,
    SliceFacts,
    Step,
    StoredInstance,
    TriageFinding,
)

_AHEAD = 8
"""Files that are being decoded while one is scored."""


@dataclass(frozen=True, slots=True)
class UnreadFile:
    """A file that could not be read, and why."""

    path: Path
    why: str


@dataclass(slots=True, eq=False)
class ScoredSeries:
    """One series of the files given."""

    study_instance_uid: str
    series_instance_uid: str
    files: list[Path] = field(default_factory=list)
    facts: list[SliceFacts] = field(default_factory=list)
    planes: list[PlaneScore] = field(default_factory=list)
    declined: list[Any] = field(default_factory=list)
    unreadable: int = 0
    seconds: float = 0.0
    seen: set[str] = field(default_factory=set)
    analysis: Analysis | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What became of the files given."""

    series: tuple[ScoredSeries, ...]
    unread: tuple[UnreadFile, ...]


def score_paths(
    paths: Sequence[Path], model: Model, decoder: DecoderPool, progress: Callable[[int, int], None]
) -> Scores:
    """Analyse every series found under some paths.

    Args:
        progress: called with the number of files done and of all.
    """
    files = list(_files(paths))
    series: dict[tuple[str, str], ScoredSeries] = {}
    unread: list[UnreadFile] = []
    for number, (path, decoded) in enumerate(_decode_ahead(files, decoder), start=1):
        began = time.perf_counter()
        if decoded.state is InstanceState.UNREADABLE:
            unread.append(UnreadFile(path, _why(decoded)))
        if decoded.series_instance_uid:
            key = (decoded.study_instance_uid, decoded.series_instance_uid)
            mine = series.setdefault(key, ScoredSeries(*key))
            _add(mine, path, decoded, model)
            mine.seconds += time.perf_counter() - began
        progress(number, len(files))
    for one in series.values():
        began = time.perf_counter()
        one.analysis = analyse_series(_content(one), model)
        one.seconds += time.perf_counter() - began
    return Scores(tuple(series.values()), tuple(unread))


def as_json(scored: ScoredSeries, model: Model) -> dict[str, Any]:
    """Give one entry of what ``ich-node score --json`` prints."""
    analysis = scored.analysis
    assert analysis is not None, "score_paths analyses every series"
    finding, identity = analysis.finding, model.identity
    return {
        "study_instance_uid": scored.study_instance_uid,
        "series_instance_uid": scored.series_instance_uid,
        "analysed": finding.reason is None,
        "not_analysed_reason": None if finding.reason is None else finding.reason.text,
        "complete": finding.completeness.complete,
        "triage": finding.triage,
        "probabilities": finding.probabilities or None,
        "thresholds": {name: {"low": one.low, "high": one.high} for name, one in finding.thresholds.items()} or None,
        "slices": _slices(finding),
        "model": {"name": identity.name, "version": identity.version, "sha256": identity.sha256},
        "seconds": round(scored.seconds, 3),
    }


def build_report(scored: ScoredSeries, model: Model) -> tuple[ResultObject, ...]:
    """Build the result objects of one series, of an installation of their own.

    Raises:
        ReportError: no file has a readable header.
    """
    assert scored.analysis is not None, "score_paths analyses every series"
    installation_uid = f"2.25.{uuid.uuid4().int}"
    identity = ReportIdentity(installation_uid, scored.study_instance_uid, 1)
    steps = (Step("analysed", datetime.now(UTC)),)
    return report(identity, scored.analysis.finding, scored.files, model.identity, steps)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file())
        else:
            yield path


def _decode_ahead(files: Sequence[Path], decoder: DecoderPool) -> Iterator[tuple[Path, DecodedInstance]]:
    """Keep some files decoding while others are scored, and memory bounded."""
    tasks: list[tuple[Path, DecodeTask]] = []
    for path in files:
        tasks.append((path, decoder.submit(path)))
        if len(tasks) > _AHEAD:
            done, task = tasks.pop(0)
            yield done, task.result()
    for path, task in tasks:
        yield path, task.result()


def _add(series: ScoredSeries, path: Path, decoded: DecodedInstance, model: Model) -> None:
    uid = decoded.facts[0].sop_instance_uid if decoded.facts else ""
    if uid and uid in series.seen:  # the same object twice in the folder is one object
        return
    series.seen.add(uid)
    series.files.append(path)
    series.facts += decoded.facts
    series.planes += score_slices(decoded.slices, model)
    series.unreadable += decoded.state is InstanceState.UNREADABLE
    if decoded.state is InstanceState.NOT_NEEDED:
        series.declined.append(decoded.reason)


def _content(series: ScoredSeries) -> SeriesContent:
    instances = [StoredInstance(number, "", "", str(path)) for number, path in enumerate(series.files)]
    return SeriesContent(
        facts=tuple(series.facts),
        planes=tuple(series.planes),
        instances=tuple(instances),
        unreadable=series.unreadable,
        declined=tuple(series.declined),
    )


def _slices(finding: TriageFinding) -> list[dict[str, Any]]:
    return [
        {
            "sop_instance_uid": one.sop_instance_uid,
            "frame": one.frame,
            "position_mm": one.position_mm,
            "probabilities": one.probabilities,
        }
        for one in finding.slices
    ]


def _why(decoded: DecodedInstance) -> str:
    reason = decoded.reason.text if decoded.reason else "unreadable"
    return f"{reason} ({decoded.detail})" if decoded.detail else reason
