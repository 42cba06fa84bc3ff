"""What sensitivity and specificity mean where hemorrhage is as frequent as somewhere: predictive values and alerts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ich_node.intervals.proportion import Z, logistic
from ich_node.validation.figures import Rates, Share


@dataclass(frozen=True, slots=True)
class Value:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class AtPrevalence:
    """What one rule does at a prevalence; None where sensitivity or specificity rests on nothing, or on too few."""

    ppv: Value | None
    """None, too, where nothing would be called positive."""
    npv: Value | None
    alerts_per_shift: float | None
    """Positive answers; None where it is not known how many studies a shift has."""
    false_alerts_per_shift: float | None


def at_prevalence(rates: Rates, prevalence: float, studies_per_shift: float | None) -> AtPrevalence:
    """Say what a rule does where a share ``prevalence`` of the studies shows hemorrhage."""
    sensitivity, specificity = rates.sensitivity.value, rates.specificity.value
    if sensitivity is None or specificity is None or rates.sensitivity.few or rates.specificity.few:
        return AtPrevalence(None, None, None, None)
    right, wrong = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    missed, cleared = prevalence * (1 - sensitivity), (1 - prevalence) * specificity
    found, cleared_rightly = rates.sensitivity, rates.specificity
    return AtPrevalence(
        ppv=_predictive(right, wrong, found, _others(cleared_rightly), prevalence),
        npv=_predictive(cleared, missed, cleared_rightly, _others(found), 1 - prevalence),
        alerts_per_shift=None if studies_per_shift is None else studies_per_shift * (right + wrong),
        false_alerts_per_shift=None if studies_per_shift is None else studies_per_shift * wrong,
    )


def _predictive(right: float, wrong: float, found: Share, false: Share, prevalence: float) -> Value | None:
    """Give a predictive value with its interval on the logit scale.

    N. D. Mercaldo, K. F. Lau and X. H. Zhou, Stat. Med. 26 (2007) 2170-2183; with the adjusted shares that they advise,
    since a share of 0 or 1 has no logit. The interval holds for the prevalence as given, as if that were known.
    """
    if not right + wrong > 0:
        return None
    value = right / (right + wrong)
    true_rate, n = _adjusted(found)
    false_rate, m = _adjusted(false)
    middle = math.log(true_rate * prevalence / (false_rate * (1 - prevalence)))
    half = Z * math.sqrt((1 - true_rate) / (true_rate * n) + (1 - false_rate) / (false_rate * m))
    return Value(value, min(value, logistic(middle - half)), max(value, logistic(middle + half)))


def _others(one: Share) -> Share:
    return Share(one.of - one.count, one.of, 1 - one.high, 1 - one.low)


def _adjusted(one: Share) -> tuple[float, float]:
    """Add half of z squared to both kinds of cases (Agresti and Coull)."""
    of = one.of + Z**2
    return (one.count + Z**2 / 2) / of, of
