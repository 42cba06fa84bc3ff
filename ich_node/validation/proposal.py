"""Thresholds of a site, chosen on its own studies by the rule that training has, and what each would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ich_node.intervals.exact import positives_needed
from ich_node.model.manifest import OperatingPoint, Thresholds
from ich_node.model.threshold_choice import choose_thresholds, measure_thresholds
from ich_node.records import HEMORRHAGE_CLASSES, ClassThresholds
from ich_node.validation.figures import FEWEST, Rates, share
from ich_node.validation.matching import Case


@dataclass(frozen=True, slots=True)
class ClassProposal:
    """Two thresholds of one class."""

    in_use: ClassThresholds
    proposed: ClassThresholds
    point: OperatingPoint
    """What was measured at the proposed ones, on the site's studies."""
    chosen_here: bool
    """On the site's studies; False: there are too few, and those in use stay."""
    needed: int
    """Studies with the class, none of them missed, at which the lower end of the interval can reach the target."""


def propose(
    cases: Sequence[Case],
    in_use: Mapping[str, ClassThresholds],
    target_sensitivity: float,
    target_specificity: float,
) -> dict[str, ClassProposal]:
    """Propose thresholds of each class.

    With fewer studies than the target needs, a threshold would follow the few that there are: the class keeps what it
    has, which rests on more.
    """
    return {name: _of_class(cases, name, in_use[name], target_sensitivity, target_specificity)
            for name in HEMORRHAGE_CLASSES}  # fmt: skip


def _of_class(
    cases: Sequence[Case], name: str, in_use: ClassThresholds, sensitivity: float, specificity: float
) -> ClassProposal:
    known = [one for one in cases if one.label.shows[name] is not None]
    scores = np.array([one.result.probabilities[name] for one in known], np.float64)
    labels = np.array([int(bool(one.label.shows[name])) for one in known], np.int64)
    needed = positives_needed(sensitivity)
    if labels.sum() >= needed and (labels == 0).sum() >= FEWEST:
        chosen = choose_thresholds(scores, labels, "study", sensitivity, specificity)
        new = ClassThresholds(chosen.thresholds.low, chosen.thresholds.high)
        return ClassProposal(in_use, new, chosen.point, True, needed)
    kept = Thresholds(low=in_use.low, high=in_use.high)
    point = measure_thresholds(scores, labels, kept, "study", sensitivity, specificity)
    return ClassProposal(in_use, in_use, point, False, needed)


def rates_at(cases: Sequence[Case], threshold: float) -> Rates:
    """Say what calling everything positive from a probability of ``any`` on would do."""
    reached = [(one.hemorrhage, one.result.probabilities["any"] >= threshold) for one in cases]
    positives = [called for hemorrhage, called in reached if hemorrhage]
    negatives = [called for hemorrhage, called in reached if not hemorrhage]
    return Rates(share(sum(positives), len(positives)), share(len(negatives) - sum(negatives), len(negatives)))
