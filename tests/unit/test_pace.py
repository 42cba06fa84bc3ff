"""A PACS is asked at its hours, no faster than allowed, and left alone where it has trouble."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ich_node.archive_scoring.pace import Hours, Pace, Politeness
from ich_node.cli import build_parser
from ich_node.errors import BulkScoringStopped

NIGHT, DAY = Hours(19, 7), Hours(9, 17)


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, 1, hour, minute, tzinfo=UTC)


class Clock:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += timedelta(seconds=seconds)


def pace_at(hour: int, hours: Hours | None = None, **changes: float) -> tuple[Pace, Clock, list[str]]:
    clock, said = Clock(at(hour, 30)), list[str]()
    politeness = Politeness(per_hour=3600, hours=hours, first_rest_s=1.0, longest_rest_s=4.0, **changes)
    return Pace(politeness, lambda why, _seconds: said.append(why), clock.sleep, clock.now), clock, said


@pytest.mark.parametrize(
    ("hours", "hour", "holds"),
    [(NIGHT, 19, True), (NIGHT, 23, True), (NIGHT, 0, True), (NIGHT, 6, True), (NIGHT, 7, False), (NIGHT, 18, False),
     (DAY, 9, True), (DAY, 16, True), (DAY, 17, False), (DAY, 3, False)],
)  # fmt: skip
def test_hours_hold_over_midnight_too(hours: Hours, hour: int, holds: bool) -> None:
    assert hours.hold(at(hour, 59)) is holds


@pytest.mark.parametrize(("text", "hours"), [("19-7", NIGHT), ("09-17", DAY), ("0-24", None), ("18-24", Hours(18, 0))])
def test_hours_are_read_from_the_command(text: str, hours: Hours | None) -> None:
    words = ["score-archive", "pacs://PACS", "--scores", "s.parquet", "--hours", text]
    if hours is None:
        with pytest.raises(SystemExit):
            build_parser().parse_args(words)
    else:
        assert build_parser().parse_args(words).hours == hours


def test_outside_its_hours_a_pacs_is_asked_nothing() -> None:
    pace, clock, said = pace_at(12, NIGHT)
    pace.wait_for_query()
    assert clock.at == at(19)
    assert max(clock.slept) <= 60, "the clock may be set meanwhile"
    assert said == ["the PACS is asked again at 19:00"]
    pace.wait_for_query()
    assert len(said) == 1


def test_series_are_asked_for_no_faster_than_allowed() -> None:
    pace, clock, _ = pace_at(12)
    pace.wait_for_move()
    assert clock.slept == []
    pace.wait_for_move()
    assert sum(clock.slept) == pytest.approx(1.0, abs=0.2)


def test_each_rest_is_longer_until_the_pacs_is_well_again() -> None:
    pace, clock, said = pace_at(12)
    pace.met()
    for _ in range(4):
        pace.rest("it is away")
    assert clock.slept == [1.0, 2.0, 4.0, 4.0]
    assert said == ["it is away"] * 4
    pace.well()
    pace.rest("it is away")
    assert clock.slept[-1] == 1.0


def test_a_pacs_that_was_never_met_is_not_waited_for() -> None:
    pace, clock, _ = pace_at(12)
    with pytest.raises(BulkScoringStopped, match="the PACS cannot be asked: no such host"):
        pace.rest("no such host")
    assert clock.slept == []


def test_after_hours_of_trouble_the_run_ends() -> None:
    pace, _, _ = pace_at(12, give_up_s=-1.0)
    pace.met()
    with pytest.raises(BulkScoringStopped, match="has had trouble"):
        pace.rest("it is away")
