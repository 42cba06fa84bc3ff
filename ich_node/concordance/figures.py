"""Sensitivity, specificity and predictive values of the answers that readers spoke of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from ich_node.concordance.truth import SUBTYPES, hemorrhage_by, said_by, sees_subtype
from ich_node.intervals.proportion import Proportion
from ich_node.queries.feedback import SpokenAnswer
from ich_node.records import Presence, Triage


class Period(StrEnum):
    """What is counted together over time."""

    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted of some answers, and what follows.

    An indeterminate answer finds no hemorrhage and rules none out: it lowers sensitivity and specificity.
    """

    counts: Mapping[tuple[str, bool], int]
    """By what the node said, and whether readers see hemorrhage."""

    @property
    def known(self) -> int:
        return sum(self.counts.values())

    @property
    def sensitivity(self) -> Proportion:
        return Proportion(self.count("positive", True), self._truly(True))

    @property
    def specificity(self) -> Proportion:
        return Proportion(self.count("negative", False), self._truly(False))

    @property
    def positive_predictive_value(self) -> Proportion:
        right = self.count("positive", True)
        return Proportion(right, right + self.count("positive", False))

    @property
    def negative_predictive_value(self) -> Proportion:
        right = self.count("negative", False)
        return Proportion(right, right + self.count("negative", True))

    def count(self, said: str, hemorrhage: bool) -> int:
        """Give how many the node said this of, and readers that."""
        return self.counts.get((said, hemorrhage), 0)

    def _truly(self, hemorrhage: bool) -> int:
        return sum(count for (_, seen), count in self.counts.items() if seen is hemorrhage)


@dataclass(frozen=True, slots=True)
class Group:
    """The figures of a part: a station, a subtype, a week."""

    name: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Concordance:
    """How far readers and node agree."""

    studies: int
    """That somebody spoke of."""
    answers: int
    words: int
    readers: int
    differing: int
    """Answers of which readers say different things; they are in no figure."""
    unsaid: int
    """Answers of which nobody said whether there is hemorrhage: readers agree that they are indeterminate."""
    all: Figures
    periods: tuple[Group, ...]
    """The oldest first; the name is the first day. Periods without a word are left out."""
    stations: tuple[Group, ...]
    subtypes: tuple[Group, ...]
    disagreements: tuple[SpokenAnswer, ...]
    """Answers that somebody disagrees with, the one spoken of last first."""


def concordance_of(answers: Sequence[SpokenAnswer], period: Period = Period.MONTH) -> Concordance:
    """Count what readers said of the node's answers."""
    silent = [one for one in answers if hemorrhage_by(one) is None]
    differing = sum(any(said_by(one, word) is not None for word in one.words) for one in silent)
    return Concordance(
        studies=len({one.study_instance_uid for one in answers}),
        answers=len(answers),
        words=sum(len(one.words) for one in answers),
        readers=len({word.reader for one in answers for word in one.words}),
        differing=differing,
        unsaid=len(silent) - differing,
        all=_figures(answers),
        periods=_groups(answers, lambda one: _first_day(one.given_at, period)),
        stations=_groups(answers, lambda one: one.station_name),
        subtypes=tuple(Group(name, _of_subtype(answers, name)) for name in SUBTYPES),
        disagreements=tuple(one for one in reversed(answers) if one.is_disputed),
    )


def _figures(answers: Sequence[SpokenAnswer]) -> Figures:
    known = ((one.triage, hemorrhage_by(one)) for one in answers)
    return Figures(Counter((said, seen) for said, seen in known if seen is not None))


def _of_subtype(answers: Sequence[SpokenAnswer], name: str) -> Figures:
    counts: Counter[tuple[str, bool]] = Counter()
    for one in answers:
        seen = sees_subtype(one, name)
        if seen is not None and one.presence is not None:
            counts[_SAID.get(one.presence.get(name, ""), Triage.INDETERMINATE), seen] += 1
    return Figures(counts)


_SAID: dict[str, str] = {Presence.PRESENT: Triage.POSITIVE, Presence.ABSENT: Triage.NEGATIVE}


def _groups(answers: Sequence[SpokenAnswer], name_of: Callable[[SpokenAnswer], str]) -> tuple[Group, ...]:
    named: defaultdict[str, list[SpokenAnswer]] = defaultdict(list)
    for one in answers:
        named[name_of(one)].append(one)
    return tuple(Group(name, _figures(some)) for name, some in sorted(named.items()))


def _first_day(at: float, period: Period) -> str:
    """Give the first day of the week (ISO 8601: a Monday) or month, in UTC."""
    day = datetime.fromtimestamp(at, UTC).date()
    first = day.replace(day=1) if period is Period.MONTH else day - timedelta(days=day.weekday())
    return first.isoformat()
