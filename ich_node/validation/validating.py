"""Labels and results → everything that a validation says. Read this first; it knows no database and no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ich_node.errors import TableFaults
from ich_node.records import HEMORRHAGE_CLASSES, ClassThresholds, StudyResult
from ich_node.validation.figures import Figures, figures_of, pessimistic_figures
from ich_node.validation.groups import Grouping, groupings_of
from ich_node.validation.labels import SUBTYPES, LabelTable
from ich_node.validation.matching import Case, Matched, match
from ich_node.validation.operating_points import OperatingRow, operating_rows
from ich_node.validation.proposal import ClassProposal, propose
from ich_node.validation.worst import WorstCase, worst_cases

_FEWEST_FOR_RATE: Final = 20
_SHORTEST_FOR_RATE_H: Final = 24.0


@dataclass(frozen=True, slots=True)
class ValidationSettings:
    """What a site asks."""

    target_sensitivity: float = 0.95
    target_specificity: float = 0.95
    prevalence: float | None = None
    """None: that of the labelled studies."""
    studies_per_shift: float | None = None
    """None: as many as came, where it is known when."""
    shift_hours: float = 8.0
    model_sha256: str = ""
    """Of the model that is validated, or the beginning of it; empty: the one of most answers."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What a validation says."""

    settings: ValidationSettings
    labels: LabelTable
    matched: Matched
    prevalence: float
    observed_prevalence: float
    """Of hemorrhage among the labelled studies that were received."""
    studies_per_shift: float | None
    received: tuple[float, float] | None
    """When the first and the last of the labelled studies came; None where that is not known."""
    classes: Mapping[str, Figures]
    """Of each class, in the studies that were analysed."""
    found_as_any: Mapping[str, Figures]
    """Of each subtype: how the studies that show it are answered as a whole."""
    pessimistic: Figures
    groupings: tuple[Grouping, ...]
    thresholds_in_use: Mapping[str, ClassThresholds]
    other_thresholds: int
    """Studies that were answered with other thresholds than these."""
    operating_rows: tuple[OperatingRow, ...]
    proposals: Mapping[str, ClassProposal]
    worst: tuple[WorstCase, ...]

    @property
    def test_model(self) -> bool:
        return any(one.result.test_model for one in self.matched.analysed)

    @property
    def incomplete(self) -> int:
        """Studies of which slices were missing."""
        return sum(not one.result.complete for one in self.matched.analysed)


def validate(labels: LabelTable, results: Sequence[StudyResult], settings: ValidationSettings) -> Validation:
    """Judge results by labels.

    Raises:
        TableFaults: none of the labelled studies was analysed by the model that is asked for.
    """
    matched = match(labels.labels, results, settings.model_sha256)
    cases, rest = matched.analysed, matched.not_analysed
    if not cases:
        raise TableFaults(labels.name, [_why_none(labels, matched, settings)])
    in_use, others = _thresholds_in_use(cases)
    received = [one.hemorrhage for one in (*cases, *rest)]
    observed = sum(received) / len(received)
    prevalence = observed if settings.prevalence is None else settings.prevalence
    per_shift = settings.studies_per_shift or _studies_per_shift(results, settings.shift_hours)
    proposals = propose(cases, in_use, settings.target_sensitivity, settings.target_specificity)
    return Validation(
        settings=settings,
        labels=labels,
        matched=matched,
        prevalence=prevalence,
        observed_prevalence=observed,
        studies_per_shift=per_shift,
        received=_received(cases + rest),
        classes={name: figures_of(cases, name) for name in HEMORRHAGE_CLASSES},
        found_as_any={name: figures_of([one for one in cases if one.label.shows[name]]) for name in SUBTYPES},
        pessimistic=pessimistic_figures(cases, rest),
        groupings=groupings_of(cases, rest),
        thresholds_in_use=in_use,
        other_thresholds=others,
        operating_rows=operating_rows(cases, proposals, prevalence, per_shift),
        proposals=proposals,
        worst=worst_cases(cases),
    )


def _why_none(labels: LabelTable, matched: Matched, settings: ValidationSettings) -> str:
    whys = Counter(one.why for one in matched.left_out)
    whys.update(f"not analysed: {one.result.why_not}" for one in matched.not_analysed)
    asked = f" by the model {settings.model_sha256}" if settings.model_sha256 else ""
    told = "; ".join(f"{count} {why}" for why, count in whys.most_common(5))
    return f"none of its {len(labels.labels)} studies was analysed{asked}: {told}"


def _thresholds_in_use(cases: Sequence[Case]) -> tuple[Mapping[str, ClassThresholds], int]:
    """Give the thresholds of the study that came last, and how many studies were answered with others."""
    last = max(enumerate(cases), key=lambda one: (one[1].result.received_at or 0.0, one[0]))[1].result.thresholds
    return last, sum(one.result.thresholds != last for one in cases)


def _studies_per_shift(results: Sequence[StudyResult], shift_hours: float) -> float | None:
    """Say how many studies came in a shift, day and night together, labelled or not."""
    times = [one.received_at for one in results if one.received_at is not None]
    if len(times) < _FEWEST_FOR_RATE:
        return None
    hours = (max(times) - min(times)) / 3600.0
    return shift_hours * len(times) / hours if hours >= _SHORTEST_FOR_RATE_H else None


def _received(cases: Sequence[Case]) -> tuple[float, float] | None:
    times = [one.result.received_at for one in cases if one.result.received_at is not None]
    return (min(times), max(times)) if times else None
