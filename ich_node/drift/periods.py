"""Which series of a group are its reference, and which are compared with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ich_node.records import DriftRules, GroupMeasures, MeasuredSeries
from ich_node.records.drift import DAY_S


@dataclass(frozen=True, slots=True)
class Periods:
    """Two stretches of time that do not overlap."""

    reference: tuple[MeasuredSeries, ...]
    recent: tuple[MeasuredSeries, ...]


def periods_of(group: GroupMeasures, rules: DriftRules, now: float) -> Periods:
    """Divide what is known of a group."""
    return _divide(one_of_a_study(group.series), group, rules, now)


def scored_periods_of(group: GroupMeasures, rules: DriftRules, now: float) -> tuple[Periods, str | None]:
    """Divide what the newest model scored: another model gives other scores, and needs a reference of its own.

    Returns:
        The periods, and the SHA-256 of that model; None where nothing was scored.
    """
    scored = [one for one in one_of_a_study(group.series) if one.measure.model_sha256 is not None]
    if not scored:
        return Periods((), ()), None
    newest = scored[-1].measure.model_sha256
    return _divide([one for one in scored if one.measure.model_sha256 == newest], group, rules, now), newest


def _divide(series: Sequence[MeasuredSeries], group: GroupMeasures, rules: DriftRules, now: float) -> Periods:
    """Take the earliest as the reference: up to `reference_series` that are older than the recent days.

    Where those are too few, newer ones fill it up to `minimum_series`. What comes after it, and within the recent
    days, is compared with it.
    """
    recent_from = now - rules.recent_days * DAY_S
    counted = [one for one in series if one.measured_at >= group.since]
    # what a person set is over for scores of a model that came after it
    is_set = group.until is not None and bool(counted) and counted[0].measured_at < group.until
    until = group.until if is_set and group.until is not None else recent_from
    before = sum(one.measured_at < until for one in counted)
    size = max(rules.minimum_series, min(before, rules.reference_series))
    after = (one for one in counted[size:] if recent_from <= one.measured_at <= now)
    return Periods(tuple(counted[:size]), tuple(after))


def one_of_a_study(series: Iterable[MeasuredSeries]) -> list[MeasuredSeries]:
    """Keep the first of each study: two of one patient are no two witnesses, and every test takes them for such.

    Args:
        series: the earliest first.
    """
    first: dict[int, MeasuredSeries] = {}
    for one in series:
        first.setdefault(one.study_id, one)
    return list(first.values())
