"""Who is told of what: every condition of a rule, and what alerts nobody."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from ich_node.alert_rules import plan_alerts
from ich_node.config import parse_config
from ich_node.records import StudyAnswer

NOON = datetime(2026, 11, 25, 12).astimezone()
POSITIVE = StudyAnswer(
    study_id=1, revision=1, outcome="positive", probabilities={"any": 0.8}, present=("any", "subdural"),
    station_name="CT_ER1", calling_ae_title="SCANNER1", remote_address="10.0.0.1", acquired_at=None,
)  # fmt: skip


def planned(
    answer: StudyAnswer, *rules: dict[str, Any], now: datetime = NOON, **sections: Any
) -> list[tuple[str, float]]:
    channels = [{"name": name, "host": "ris", "port": 2575} for name in ("ris", "pager", "chief")]
    values = {"receiver": {"allow_any": True}, "alert_hl7": channels, "alert_rule": list(rules), **sections}
    plan = plan_alerts(parse_config(values), answer, now)
    return [(step.channel.name, step.after_s) for step in plan.steps]


def test_of_two_rules_for_one_channel_the_more_impatient_waits_and_repeats_are_kept() -> None:
    values = {
        "receiver": {"allow_any": True},
        "alert_hl7": [{"name": "ris", "host": "ris", "port": 2575}],
        "alert_rule": [{"tell": ["ris"]}, {"tell": ["ris"], "answer_within_s": 60.0, "then": ["ris", "ris"]}],
    }
    steps = plan_alerts(parse_config(values), POSITIVE, NOON).steps
    assert [(step.after_s, step.answer_within_s) for step in steps] == [(0.0, 60.0), (60.0, 60.0), (120.0, 60.0)]


@pytest.mark.parametrize("acquired_at", [None, 0.0])
def test_what_is_not_live_is_held_however_old_it_is(acquired_at: float | None) -> None:
    values = {"receiver": {"allow_any": True}, "node": {"mode": "objects"}}
    assert plan_alerts(parse_config(values), replace(POSITIVE, acquired_at=acquired_at), NOON).held


def test_without_a_rule_nobody_is_told() -> None:
    assert planned(POSITIVE) == []


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({}, True),
        ({"triage": ["negative", "not_analysed"]}, False),
        ({"triage": ["positive", "indeterminate"]}, True),
        ({"classes": ["subdural"]}, True),
        ({"classes": ["epidural", "subarachnoid"]}, False),
        ({"minimum_probability": 0.8}, True),
        ({"minimum_probability": 0.81}, False),
        ({"station_name": "ct_er*"}, True),
        ({"station_name": "CT_WARD"}, False),
        ({"ae_title": "SCANNER1"}, True),
        ({"ae_title": "SCANNER2"}, False),
        ({"hours": "07:00-17:00"}, True),
        ({"hours": "17:00-07:00"}, False),
        ({"hours": "12:00-12:01"}, True),
        ({"hours": "11:00-12:00"}, False),
        ({"station_name": "CT_ER*", "ae_title": "SCANNER2"}, False),
        ({"known_bleed": False}, True),
        ({"known_bleed": True}, False),
    ],
)
def test_every_condition_must_fit(conditions: dict[str, Any], told: bool) -> None:
    assert bool(planned(POSITIVE, {"tell": ["ris"], **conditions})) is told


@pytest.mark.parametrize(("wanted", "told"), [(True, True), (False, False), (None, True)])
def test_a_known_bleed_follows_rules_for_it_and_rules_that_do_not_ask(wanted: bool | None, told: bool) -> None:
    rule: dict[str, Any] = {"tell": ["ris"]} | ({} if wanted is None else {"known_bleed": wanted})
    assert bool(planned(replace(POSITIVE, known_bleed=True), rule)) is told


@pytest.mark.parametrize(("hour", "told"), [(17, True), (23, True), (0, True), (6, True), (7, False), (16, False)])
def test_hours_may_span_midnight(hour: int, told: bool) -> None:
    now = NOON.replace(hour=hour)
    assert bool(planned(POSITIVE, {"tell": ["ris"], "hours": "17:00-07:00"}, now=now)) is told


def test_a_positive_alone_is_told_unless_a_rule_says_otherwise() -> None:
    for outcome in ("indeterminate", "negative", "not_analysed", "withdrawn"):
        assert planned(replace(POSITIVE, outcome=outcome), {"tell": ["ris"]}) == []


def test_who_does_not_answer_is_followed_by_the_next() -> None:
    rule = {"tell": ["ris"], "then": ["pager", "chief"], "answer_within_s": 60.0}
    assert planned(POSITIVE, rule) == [("ris", 0.0), ("pager", 60.0), ("chief", 120.0)]


def test_two_rules_tell_one_channel_once() -> None:
    assert planned(POSITIVE, {"tell": ["ris"]}, {"tell": ["ris", "pager"]}) == [("ris", 0.0), ("pager", 0.0)]


@pytest.mark.parametrize(("hours", "told"), [(23.9, True), (24.1, False), (None, True)])
def test_what_was_acquired_long_ago_alerts_nobody(hours: float | None, told: bool) -> None:
    acquired = None if hours is None else NOON.timestamp() - 3600 * hours
    assert bool(planned(replace(POSITIVE, acquired_at=acquired), {"tell": ["ris"]})) is told


def test_the_age_is_configuration() -> None:
    old = replace(POSITIVE, acquired_at=NOON.timestamp() - 3600 * 30)
    assert planned(old, {"tell": ["ris"]}, alert={"maximum_age_h": 48.0})
