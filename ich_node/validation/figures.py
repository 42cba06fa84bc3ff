"""Sensitivity, specificity and area under the curve of some studies, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ich_node.intervals.area import Area, area_under_curve
from ich_node.intervals.exact import exact_interval
from ich_node.records import Presence
from ich_node.validation.matching import Case

FEWEST: Final = 10
"""Of fewer studies no share is told, only the count: its interval would span most of what is possible."""


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many, with the exact 95 % interval."""

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def few(self) -> bool:
        """Say that it rests on too few studies to be told as a share."""
        return self.of < FEWEST


@dataclass(frozen=True, slots=True)
class Rates:
    """How two kinds of studies are answered by one rule."""

    sensitivity: Share
    specificity: Share


@dataclass(frozen=True, slots=True)
class Figures:
    """One class in some studies."""

    name: str
    positives: int
    negatives: int
    unknown: int
    """Studies whose label does not speak of the class; they are in no figure."""
    positive: Rates
    """Of the answer positive."""
    not_negative: Rates
    """Of the answers positive and indeterminate together."""
    area: Area | None
    """Under the curve of the probabilities; None where there are too few studies of a kind."""


def share(count: int, of: int) -> Share:
    """Give a share with its exact interval."""
    return Share(count, of, *exact_interval(count, of))


def figures_of(cases: Sequence[Case], name: str = "any") -> Figures:
    """Count one class in studies that were analysed."""
    known = [one for one in cases if one.label.shows[name] is not None]
    positives = [one for one in known if one.label.shows[name]]
    negatives = [one for one in known if not one.label.shows[name]]
    return Figures(
        name=name,
        positives=len(positives),
        negatives=len(negatives),
        unknown=len(cases) - len(known),
        positive=_rates(positives, negatives, name, (Presence.PRESENT,)),
        not_negative=_rates(positives, negatives, name, (Presence.PRESENT, Presence.INDETERMINATE)),
        area=_area(known, name) if min(len(positives), len(negatives)) >= FEWEST else None,
    )


def pessimistic_figures(analysed: Sequence[Case], not_analysed: Sequence[Case]) -> Figures:
    """Count what was received, whatever became of it: a study without an answer is a miss, or a false alarm.

    That is how a diagnostic test is judged by the intention to diagnose: G. M. Schuetz et al., BMJ 345 (2012) e6717.
    """
    told = figures_of(analysed)
    more = sum(one.hemorrhage for one in not_analysed)
    less = len(not_analysed) - more
    return Figures(
        name="any",
        positives=told.positives + more,
        negatives=told.negatives + less,
        unknown=0,
        positive=_with_more(told.positive, more, less),
        not_negative=_with_more(told.not_negative, more, less),
        area=None,
    )


def _with_more(rates: Rates, positives: int, negatives: int) -> Rates:
    found, right = rates.sensitivity, rates.specificity
    return Rates(share(found.count, found.of + positives), share(right.count, right.of + negatives))


def _rates(positives: Sequence[Case], negatives: Sequence[Case], name: str, found: tuple[Presence, ...]) -> Rates:
    return Rates(
        share(sum(one.result.presence.get(name) in found for one in positives), len(positives)),
        share(sum(one.result.presence.get(name) not in found for one in negatives), len(negatives)),
    )


def _area(cases: Sequence[Case], name: str) -> Area | None:
    scores = np.array([one.result.probabilities[name] for one in cases], np.float64)
    return area_under_curve(scores, np.array([bool(one.label.shows[name]) for one in cases], np.bool_))
