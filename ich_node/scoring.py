"""``ich-node score``: files and folders in, results out, without a network or a database.

Every series is analysed that can be, also where the node would choose one of a study: a researcher compares them.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ich_node.decode import DecodedInstance, DecoderPool, DecodeTask
from ich_node.pictures import pictures_of_slices
from ich_node.pipeline import (
    Analysis,
    Model,
    analyse_series,
    assess_series,
    eligible_slices,
    plan_series,
    report,
    score_planes,
    study_context,
)
from ich_node.plane_reader import PlaneReader
from ich_node.planes import PlannedPlane
from ich_node.records import (
    UNREADABLE_REASONS,
    USUAL_OBJECTS,
    EligibilityRules,
    InstanceState,
    NotAnalysedReason,
    PlaneMember,
    PlaneScore,
    ReportIdentity,
    ResultObject,
    SeriesContent,
    SliceFacts,
    SliceKey,
    Step,
    StoredInstance,
    TriageFinding,
)
from ich_node.report.viewer_objects import VIEWER_KINDS

_AHEAD = 8
"""Files that are being decoded while one is scored, and planes, or as many as the engine computes at once."""
_KINDS = tuple(kind for kind in VIEWER_KINDS if kind.lower() in USUAL_OBJECTS)
_PLAN_EVERY = 8
"""Files of a series between two looks at which of its planes are ready."""


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
    paths: dict[str, Path] = field(default_factory=dict)
    """File of each SOP instance."""
    planes: list[PlaneScore] = field(default_factory=list)
    declined: list[NotAnalysedReason] = field(default_factory=list)
    unreadable: int = 0
    """Files without facts."""
    seconds: float = 0.0
    analysis: Analysis | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What became of the files given."""

    series: tuple[ScoredSeries, ...]
    unread: tuple[UnreadFile, ...]


def score_paths(
    paths: Sequence[Path],
    model: Model,
    decoder: DecoderPool,
    progress: Callable[[int, int], None],
    rules: EligibilityRules | None = None,
    lost: Mapping[tuple[str, str], int] | None = None,
) -> Scores:
    """Analyse every series found under some paths.

    Args:
        progress: called with the number of files done and of all.
        lost: how many more files a series has, by the UIDs of study and series, that nobody can read.
    """
    files = list(_files(paths))
    reader = PlaneReader(decoder)
    series = {key: ScoredSeries(*key, unreadable=count) for key, count in (lost or {}).items()}
    unread: list[UnreadFile] = []
    for number, (path, decoded) in enumerate(_decode_ahead(files, decoder), start=1):
        began = time.perf_counter()
        if decoded.state is InstanceState.UNREADABLE:
            unread.append(UnreadFile(path, _why(decoded)))
        if decoded.series_instance_uid:
            key = (decoded.study_instance_uid, decoded.series_instance_uid)
            mine = series.setdefault(key, ScoredSeries(*key))
            if _add(mine, path, decoded):
                reader.remember(path, decoded.slices)
            if len(mine.files) % max(_PLAN_EVERY, model.engine.batch_size) == 0:
                _score(mine, model, reader, unread, closing=False)
            mine.seconds += time.perf_counter() - began
        progress(number, len(files))
    for one in series.values():
        began = time.perf_counter()
        _score(one, model, reader, unread, closing=True)
        one.analysis = _analyse(one, model, rules or EligibilityRules())
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
        "test_model": finding.test_model,
        "seconds": round(scored.seconds, 3),
    }


def build_results(scored: ScoredSeries, model: Model, decoder: DecoderPool) -> tuple[ResultObject, ...]:
    """Build the report on one series, and the objects for viewers, of an installation of their own.

    The report comes first, in each of its encodings. The summary is drawn whatever the answer.

    Raises:
        ReportError: no file has a readable header.
    """
    assert scored.analysis is not None, "score_paths analyses every series"
    installation_uid = f"2.25.{uuid.uuid4().int}"
    identity = ReportIdentity(installation_uid, scored.study_instance_uid, 1)
    steps = (Step("analysed", datetime.now(UTC)),)
    read = {one.sop_instance_uid for plane in scored.planes for one in plane.members}
    facts = [one for one in scored.facts if one.sop_instance_uid in read] or scored.facts
    study = study_context(scored.study_instance_uid, scored.series_instance_uid, facts, scored.files)
    finding = scored.analysis.finding
    reader = PlaneReader(decoder)
    pictures = pictures_of_slices(
        finding,
        scored.paths,
        scored.facts,
        lambda members: reader.read(members).result(),
        model.windowing,
        model.engine,
    )
    return report(identity, study, finding, model.identity, steps, pictures=pictures, kinds=_KINDS)


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


def _add(series: ScoredSeries, path: Path, decoded: DecodedInstance) -> bool:
    """Enter what was read of a file. False: the same object twice in the folder is one object."""
    uid = decoded.facts[0].sop_instance_uid if decoded.facts else ""
    if uid in series.paths:
        return False
    series.files.append(path)
    series.facts += decoded.facts
    if decoded.facts:
        series.paths[uid] = path
    series.unreadable += decoded.state is InstanceState.UNREADABLE and not decoded.facts
    if decoded.state is InstanceState.NOT_NEEDED and decoded.reason is not None:
        series.declined.append(decoded.reason)
    return True


def _score(series: ScoredSeries, model: Model, reader: PlaneReader, unread: list[UnreadFile], *, closing: bool) -> None:
    """Score the planes that are ready and were not scored as they are now."""
    while missing := _missing(series, closing=closing):
        now = missing[: max(_AHEAD, model.engine.batch_size)]
        tasks = [(one, reader.read([(series.paths[key[0]], key[1]) for key in _keys(one)])) for one in now]
        read = [(one, task.result()) for one, task in tasks]
        bad = {one.members[fault.index].key: fault.reason for one, pixels in read for fault in pixels.unreadable}
        if bad:
            _mark_unreadable(series, bad, unread)
        series.planes += score_planes([(one, pixels) for one, pixels in read if not pixels.unreadable], model)


def _missing(series: ScoredSeries, *, closing: bool) -> list[PlannedPlane]:
    planned = plan_series(eligible_slices(series.facts), closing=closing)
    wanted = {one.members for one in planned}
    series.planes = [one for one in series.planes if one.members in wanted]
    scored = {one.members for one in series.planes}
    return [one for one in planned if one.ready and one.members not in scored]


def _keys(plane: PlannedPlane) -> list[SliceKey]:
    return [one.key for one in plane.members]


def _mark_unreadable(series: ScoredSeries, bad: Mapping[SliceKey, NotAnalysedReason], unread: list[UnreadFile]) -> None:
    series.facts = [dataclasses.replace(one, reason=bad[one.key]) if one.key in bad else one for one in series.facts]
    unread += [UnreadFile(series.paths[uid], bad[uid, frame].text) for uid, frame in bad]


def _analyse(series: ScoredSeries, model: Model, rules: EligibilityRules) -> Analysis:
    content = _content(series)
    return analyse_series(content, assess_series(content, rules), model, rules)


def _content(series: ScoredSeries) -> SeriesContent:
    instances = [StoredInstance(number, "", "", str(path)) for number, path in enumerate(series.files)]
    return SeriesContent(
        facts=tuple(series.facts),
        planes=tuple(series.planes),
        instances=tuple(instances),
        unreadable=series.unreadable + sum(one.reason in UNREADABLE_REASONS for one in series.facts),
        declined=tuple(series.declined),
    )


def _slices(finding: TriageFinding) -> list[dict[str, Any]]:
    """Every slice in anatomical order; those of a slab carry its probabilities."""
    return [
        {
            "sop_instance_uid": member.sop_instance_uid,
            "frame": member.frame,
            "position_mm": member.position_mm,
            "probabilities": one.probabilities,
        }
        for one in finding.slices
        for member in one.members or (PlaneMember(one.sop_instance_uid, one.frame, one.position_mm),)
    ]


def _why(decoded: DecodedInstance) -> str:
    reason = decoded.reason.text if decoded.reason else "unreadable"
    return f"{reason} ({decoded.detail})" if decoded.detail else reason
