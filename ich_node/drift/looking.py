"""One look at all groups: what differs from its reference, surely and enough to matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ich_node.drift.comparison import Difference, compare_shares, compare_values
from ich_node.drift.periods import Periods, periods_of, scored_periods_of
from ich_node.drift.quantities import POSITIVES, QUANTITIES, REASON, SCORES, Quantity, values_of
from ich_node.drift.results import Comparison, GroupLook, Look
from ich_node.drift.weeks import weeks_of
from ich_node.records import DriftRules, GroupMeasures, Triage

LOOKS_A_YEAR: Final = 365


@dataclass(frozen=True, slots=True)
class _Compared:
    """A comparison before it is corrected for the others."""

    comparison: Comparison
    p: float | None = None
    matters: bool = False


def look_at(
    groups: Sequence[GroupMeasures], rules: DriftRules, now: float, *, weeks: int = 0, left_out: int = 0
) -> Look:
    """Compare recent series with those of the reference, in every group and quantity.

    Within the look, p-values are corrected by Holm, which holds whatever depends on what. Looks of different days share
    most of their series; each is given an equal part of the year's chance of a false alarm (Bonferroni), which holds
    for looks that overlap, too.

    Args:
        weeks: how many weeks to describe of each group.
        left_out: groups that were not given.
    """
    looks = [_look_at_group(one, rules, now) for one in groups]
    known = [one.p for _, compared in looks for one in compared if one.p is not None]
    corrected = iter(holm(known))
    settled = (
        replace(look, comparisons=tuple(_settle(one, corrected, rules) for one in compared)) for look, compared in looks
    )
    full = (
        replace(look, weeks=weeks_of(one.series, look.model_sha256, now, weeks))
        for look, one in zip(settled, groups, strict=True)
    )
    return Look(now, len(known), tuple(full), left_out)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for being looked at together (Holm 1979); in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def _settle(one: _Compared, corrected: Iterator[float], rules: DriftRules) -> Comparison:
    if one.p is None:
        return one.comparison
    p = min(1.0, next(corrected) * LOOKS_A_YEAR)
    sure = p <= rules.false_alarms_per_year
    return replace(one.comparison, p=p, sure=sure, found=sure and one.matters)


def _look_at_group(group: GroupMeasures, rules: DriftRules, now: float) -> tuple[GroupLook, list[_Compared]]:
    periods = periods_of(group, rules, now)
    scored, model = scored_periods_of(group, rules, now)
    reference = periods.reference
    look = GroupLook(
        group.station_name,
        group.convolution_kernel,
        len(reference),
        len(periods.recent),
        reference[0].measured_at if reference else None,
        reference[-1].measured_at if reference else None,
        model,
    )
    compared = [_values(periods, one, rules) for one in QUANTITIES]
    compared += [_values(scored, SCORES, rules), _positives(scored, rules)]
    return look, [*compared, *_reasons(periods, rules)]


def _values(periods: Periods, quantity: Quantity, rules: DriftRules) -> _Compared:
    before, after = (values_of(one, quantity.name) for one in (periods.reference, periods.recent))
    bare = Comparison(quantity.name, len(before), len(after))
    if len(before) < rules.minimum_series or len(after) < rules.recent_series:
        return _Compared(bare)
    return _with(bare, compare_values(before, after, quantity))


def _positives(scored: Periods, rules: DriftRules) -> _Compared:
    before, after = ([one for one in some if one.triage] for some in (scored.reference, scored.recent))
    bare = Comparison(POSITIVES, len(before), len(after))
    positive = [[one.triage == Triage.POSITIVE for one in some] for some in (before, after)]
    return _share(bare, positive[0], positive[1], rules)


def _reasons(periods: Periods, rules: DriftRules) -> Iterator[_Compared]:
    """Compare each reason that occurs. Which do says nothing of when they did, so it biases no test."""
    named = sorted({one.reason for one in (*periods.reference, *periods.recent) if one.reason})
    for reason in named:
        before, after = ([one.reason == reason for one in some] for some in (periods.reference, periods.recent))
        yield _share(Comparison(REASON + reason, len(before), len(after)), before, after, rules)


def _share(bare: Comparison, before: Sequence[bool], after: Sequence[bool], rules: DriftRules) -> _Compared:
    if len(before) < rules.minimum_series or len(after) < rules.recent_series:
        return _Compared(bare)
    return _with(bare, compare_shares(sum(before), len(before), sum(after), len(after)))


def _with(bare: Comparison, found: Difference) -> _Compared:
    full = replace(bare, reference=found.reference, recent=found.recent, change=found.change)
    return _Compared(full, found.p, found.matters)
