"""Stations that stay as they are, and stations that change: how often, and after how many days, drift is found.

``python -m tests.drift_simulation`` prints the figures that docs/drift.md states; it takes an hour.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ich_node.drift.looking import look_at
from ich_node.drift.results import Look
from ich_node.records import DriftRules, GroupMeasures, MeasuredSeries, SeriesMeasure, Triage
from ich_node.records.drift import DAY_S

MODEL: Final = "a" * 64
_LONGEST_DAYS: Final = 30
_POSITIVE: Final = 0.37
_REASONS: Final = (("OTHER_SERIES_CHOSEN", 0.10), ("NO_BRAIN_FOUND", 0.02))


@dataclass(frozen=True)
class Station:
    """How the series of a station and kernel are, and how much of the series differ from each other."""

    a_day: float = 12.0
    air: float = -999.0
    brain: float = 31.0
    noise: float = 4.5
    thickness: float = 5.0
    brain_scatter: float = 1.6
    bleeds: float = 0.12
    blurred: float = 0.0
    """Added to the log-odds of every score."""
    no_brain: float = 0.02


CHANGES: Final = {
    "brain 3 HU higher": replace(Station(), brain=34.0),
    "air 4 HU higher": replace(Station(), air=-995.0),
    "noise 25 % higher": replace(Station(), noise=5.625),
    "slices of 4 mm": replace(Station(), thickness=4.0),
    "brain scattered twice as wide": replace(Station(), brain_scatter=3.2),
    "scores moved by 0.7 of log-odds": replace(Station(), blurred=0.7),
    "twice as many hemorrhages": replace(Station(), bleeds=0.24),
    "no brain found in 15 of 100": replace(Station(), no_brain=0.15),
    "another scanner (brain +2 HU, noise -20 %, 4.8 mm)": replace(Station(), brain=33.0, noise=3.6, thickness=4.8),
}


def made_by(
    station: Station, days: tuple[float, float], random: np.random.Generator, first_id: int = 1
) -> list[MeasuredSeries]:
    """Draw the series of a stretch of days, in the order of time."""
    count = random.poisson(station.a_day * (days[1] - days[0]))
    at = np.sort(random.uniform(days[0], days[1], count)) * DAY_S
    bleeds = random.random(count) < station.bleeds
    odds = np.where(bleeds, random.normal(1.5, 1.8, count), random.normal(-3.0, 1.1, count)) + station.blurred
    scores = 1 / (1 + np.exp(-odds))
    air, brain = random.normal(station.air, 2.0, count), random.normal(station.brain, station.brain_scatter, count)
    noise = station.noise * np.exp(random.normal(0, 0.12, count))
    chance = random.random(count)
    series = []
    for index in range(count):
        reason = _reason(chance[index], station)
        score = None if reason else float(scores[index])
        triage = None if score is None else Triage.POSITIVE if score >= _POSITIVE else Triage.NEGATIVE
        measure = SeriesMeasure(
            "H31s", round(float(air[index])), float(brain[index]), float(noise[index]),
            station.thickness, score, MODEL if score is not None else None,
        )  # fmt: skip
        number = first_id + index
        series.append(MeasuredSeries(number, number, float(at[index]), triage, reason, measure))
    return series


def _reason(chance: float, station: Station) -> str | None:
    for name, share in (_REASONS[0], (_REASONS[1][0], station.no_brain)):
        if chance < share:
            return name
        chance -= share
    return None


def looks(
    groups: Sequence[Sequence[MeasuredSeries]], days: Iterator[float] | range, rules: DriftRules
) -> Iterator[tuple[float, Look]]:
    """Look on some days, at what is known by then."""
    measured = [GroupMeasures(f"CT{number}", "H31s", tuple(series)) for number, series in enumerate(groups)]
    for day in days:
        now = day * DAY_S
        seen = [replace(one, series=tuple(s for s in one.series if s.measured_at <= now)) for one in measured]
        yield day, look_at(seen, rules, now)


def is_alarmed(look: Look, *, by_anything_sure: bool = False) -> bool:
    """Say whether a look found something; or something sure, however small."""
    compared = [one for group in look.groups for one in group.comparisons]
    return any(one.sure if by_anything_sure else one.found for one in compared)


def days_until_found(change: Station, seed: int, rules: DriftRules, before_days: int = 60) -> int | None:
    """Count the days from a change until a look finds it; None: not within a month."""
    random = np.random.default_rng(seed)
    stable = made_by(replace(Station(), a_day=change.a_day), (0, before_days), random)
    days = _LONGEST_DAYS + 1
    series = stable + made_by(change, (before_days, before_days + days), random, first_id=10**6)
    for day, look in looks([series], range(before_days + 1, before_days + days), rules):
        if is_alarmed(look):
            return int(day) - before_days
    return None


def _print_stable_years(years: int, rules: DriftRules) -> None:
    alarmed = sure = 0
    for seed in range(years):
        random = np.random.default_rng(seed)
        groups = [made_by(replace(Station(), a_day=a_day), (0, 365), random) for a_day in (12.0, 4.0)]
        seen = [look for _, look in looks(groups, range(10, 366), rules)]
        alarmed += any(map(is_alarmed, seen))
        sure += any(is_alarmed(one, by_anything_sure=True) for one in seen)
        sys.stdout.write(f"stable years {seed + 1}: with an alarm {alarmed}, with anything sure {sure}\n")
        sys.stdout.flush()


def _print_changes(runs: int, rules: DriftRules) -> None:
    for name, change in CHANGES.items():
        for a_day in (5.0, 12.0, 40.0):
            found = [days_until_found(replace(change, a_day=a_day), seed, rules) for seed in range(runs)]
            known = sorted(one for one in found if one is not None)
            median = known[len(known) // 2] if known else "-"
            late = known[int(0.9 * len(known))] if known else "-"
            text = f"{name}, {a_day:g} a day: found {len(known)} of {runs}, median day {median}, 9 of 10 by {late}\n"
            sys.stdout.write(text)
            sys.stdout.flush()


if __name__ == "__main__":
    _print_changes(30, DriftRules())
    _print_stable_years(100, DriftRules())
