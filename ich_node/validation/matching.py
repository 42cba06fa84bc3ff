"""Labels and results of the same studies, brought together. What does not fit is named, never dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ich_node.records import StudyResult
from ich_node.validation.labels import StudyLabel

UNKNOWN = "not among the results: it was never received here, or its row is gone"
IN_PROGRESS = "still being analysed"
LOST = "answered, but its probabilities are not in the database any more"


@dataclass(frozen=True, slots=True)
class Case:
    """One study with its label."""

    label: StudyLabel
    result: StudyResult

    @property
    def hemorrhage(self) -> bool:
        return self.label.hemorrhage


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A labelled study that is in no figure."""

    study_instance_uid: str
    hemorrhage: bool
    why: str


@dataclass(frozen=True, slots=True)
class Matched:
    """What became of every label and every result."""

    analysed: tuple[Case, ...]
    not_analysed: tuple[Case, ...]
    """Received, and the node gave no answer."""
    left_out: tuple[LeftOut, ...]
    unlabelled: tuple[StudyResult, ...]
    """Results that no label speaks of."""
    model: tuple[str, str, str] | None
    """Name, version and SHA-256 of the model that is validated; None where it is not known."""


def match(labels: Sequence[StudyLabel], results: Sequence[StudyResult], model_sha256: str = "") -> Matched:
    """Bring labels and results together.

    Args:
        model_sha256: of the model that is validated, or the beginning of it; empty: the one that gave the most answers,
            of several the one whose study came last.
    """
    by_uid = {one.study_instance_uid: one for one in results}
    cases = [Case(one, by_uid[one.study_instance_uid]) for one in labels if one.study_instance_uid in by_uid]
    told = [one for one in cases if one.result.triage is not None and not one.result.in_progress]
    answered = [one for one in told if one.result.probabilities]
    model = _model(answered, model_sha256)
    # where it is not known which model answered, all of these are one; where one was asked for, none is
    ours = [one for one in answered if one.result.model == model] if model or not model_sha256 else []
    left_out = [
        LeftOut(one.study_instance_uid, one.hemorrhage, UNKNOWN)
        for one in labels
        if one.study_instance_uid not in by_uid
    ]
    left_out += [_left_out(one, IN_PROGRESS) for one in cases if one.result.in_progress]
    left_out += [_left_out(one, LOST) for one in told if not one.result.probabilities]
    left_out += [_left_out(one, _other_model(one.result)) for one in answered if one not in ours]
    labelled = {one.study_instance_uid for one in labels}
    return Matched(
        analysed=tuple(ours),
        not_analysed=tuple(one for one in cases if one.result.triage is None and not one.result.in_progress),
        left_out=tuple(left_out),
        unlabelled=tuple(one for one in results if one.study_instance_uid not in labelled),
        model=model,
    )


def _model(answered: Sequence[Case], sha256: str) -> tuple[str, str, str] | None:
    counts = Counter(
        one.result.model for one in answered if one.result.model and one.result.model[2].startswith(sha256)
    )
    latest: dict[tuple[str, str, str], float] = {}
    for one in answered:
        if one.result.model is not None:
            latest[one.result.model] = max(latest.get(one.result.model, 0.0), one.result.received_at or 0.0)
    return max(counts, key=lambda one: (counts[one], latest[one], one), default=None)


def _left_out(case: Case, why: str) -> LeftOut:
    return LeftOut(case.label.study_instance_uid, case.hemorrhage, why)


def _other_model(result: StudyResult) -> str:
    if result.model is None:
        return "it is not known which model answered"
    name, version, sha256 = result.model
    return f"answered by another model: {name} {version} ({sha256[:12]})"
