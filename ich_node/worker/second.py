"""Score in silence, with a second model, what the first has answered: only while nothing else is to be done."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ich_node.decode import MemberFile
from ich_node.errors import DeviceFailed, ModelError
from ich_node.job_queue import load_content, load_plan
from ich_node.job_queue.model_choices import AnsweredSeries, next_without_opinion, save_opinion
from ich_node.log import EventLog
from ich_node.pipeline import Model, analyse_series, assess_series, plan_series, score_planes
from ich_node.planes import PlannedPlane
from ich_node.records import ModelChoice, NotAnalysedReason, PlaneScore, SecondOpinion, SliceKey
from ich_node.worker.bench import Workbench, batch_of
from ich_node.worker.models import ModelKeeper

_LOOK_S: Final = 2.0
_AGAIN_S: Final = 3600.0
"""So far before the last look at which nothing was left one looks again: clocks are set."""

log = EventLog("work")

Attempt = Callable[[Callable[[], object]], Exception | None]


@dataclass(slots=True, eq=False)
class _Going:
    """A series that is being scored, some planes at a time."""

    series: AnsweredSeries
    paths: dict[str, str] = field(default_factory=dict)
    missing: list[PlannedPlane] | None = None
    """None until they are planned."""
    scores: list[PlaneScore] = field(default_factory=list)
    seconds: float = 0.0


class SecondReader:
    """Goes through what was concluded since the silent model was chosen, the newest first."""

    def __init__(self, models: ModelKeeper) -> None:
        self._models = models
        self._going: _Going | None = None
        self._choice_id = 0
        self._look_at = 0.0
        self._all_read_at = 0.0

    def step(self, bench: Workbench, attempt: Attempt) -> bool:
        """Score one batch; False where there is nothing to score. Never raises for what the silent model does."""
        silent = self._models.silent
        if silent is None or silent[1].identity.sha256 == bench.model_sha256:
            self._going = None
            return False
        choice, model = silent
        if choice.id != self._choice_id:
            self._choice_id, self._all_read_at, self._going, self._look_at = choice.id, 0.0, None, 0.0
        if self._going is None and not self._begin(bench, choice):
            return False
        going = self._going
        assert going is not None, "one was begun"
        try:
            error = attempt(lambda: _go_on(bench, choice, model, going))
        except (ModelError, DeviceFailed) as failed:
            self._going = None
            self._models.drop_silent(str(failed))
            return False
        if error is not None:
            log.warning(
                "no second opinion", study=going.series.study_id, series=going.series.id, why=type(error).__name__
            )
            none = SecondOpinion(None, NotAnalysedReason.ANALYSIS_FAILED, None, going.seconds)
            save_opinion(bench.database, going.series, choice, none)
        if error is not None or not going.missing:
            self._going = None
        return True

    def _begin(self, bench: Workbench, choice: ModelChoice) -> bool:
        if time.monotonic() < self._look_at:
            return False
        now = time.time()
        since = max(choice.settled_at or choice.chosen_at, min(self._all_read_at, now) - _AGAIN_S)
        found = next_without_opinion(bench.database, choice.sha256, since)
        if found is None:
            self._look_at, self._all_read_at = time.monotonic() + _LOOK_S, now
            return False
        self._going = _Going(found)
        return True


def _go_on(bench: Workbench, choice: ModelChoice, model: Model, going: _Going) -> None:
    """Score the next planes of a series; after the last ones, say what it is."""
    began = time.perf_counter()
    if going.missing is None:
        plan = load_plan(bench.database, going.series.id, choice.sha256)
        going.paths, going.missing = plan.paths, list(plan_series(plan.facts, closing=True))
    size = batch_of(model)
    going.scores += _scored(bench, model, going, going.missing[:size])
    going.missing = going.missing[size:]  # only now: where the store was away, they are still to be scored
    going.seconds += time.perf_counter() - began
    if not going.missing:
        _conclude(bench, choice, model, going)


def _scored(bench: Workbench, model: Model, going: _Going, planes: Sequence[PlannedPlane]) -> list[PlaneScore]:
    def file(key: SliceKey) -> MemberFile:
        return bench.file(going.paths[key[0]]), key[1]

    tasks = [(one, bench.reader.read([file(member.key) for member in one.members])) for one in planes]
    read = [(one, task.result()) for one, task in tasks]
    return list(score_planes([(one, pixels) for one, pixels in read if not pixels.unreadable], model))


def _conclude(bench: Workbench, choice: ModelChoice, model: Model, going: _Going) -> None:
    """Say what the silent model would have answered, by its own thresholds and of the same slices."""
    content = load_content(bench.database, going.series.id, choice.sha256)
    content = dataclasses.replace(content, planes=tuple(going.scores))
    finding = analyse_series(content, assess_series(content, bench.rules), model, bench.rules).finding
    probabilities = None if finding.triage is None else dict(finding.probabilities)
    opinion = SecondOpinion(finding.triage, finding.reason, probabilities, going.seconds)
    if save_opinion(bench.database, going.series, choice, opinion):
        log.info("second opinion", study=going.series.study_id, series=going.series.id, triage=finding.triage,
                 agrees=finding.triage == going.series.answer.triage)  # fmt: skip
