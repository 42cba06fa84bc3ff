"""Who is told of what, by a site's rules."""

from __future__ import annotations

from datetime import datetime

from ich_node.config import AlertRuleSettings, Config
from ich_node.job_queue.alert_entries import AlertPlan
from ich_node.records import AlertChannel, AlertStep, ChannelKind, StudyAnswer
from ich_node.routing import is_like, mode_for, peer_of

_SECONDS_PER_HOUR = 3600.0
_KINDS: tuple[ChannelKind, ...] = ("hl7", "webhook", "mail")


def channels_of(config: Config) -> dict[str, AlertChannel]:
    """List the channels that the configuration names."""
    return {one.name: AlertChannel(one.name, kind) for kind in _KINDS for one in getattr(config, f"alert_{kind}")}


def plan_alerts(config: Config, answer: StudyAnswer, now: datetime) -> AlertPlan:
    """Decide who is told of an answer.

    Args:
        now: local time, for rules with ``hours``.
    """
    peer = peer_of(config, answer.calling_ae_title, answer.remote_address)
    held = mode_for(config, peer) != "live"
    if is_too_old(config, answer.acquired_at, now.timestamp()):
        return AlertPlan(held=held)
    channels = channels_of(config)
    steps: dict[tuple[str, float], AlertStep] = {}
    for rule in config.alert_rule:
        if _fits(rule, answer, now):
            for step in _steps(rule, channels):
                same = (step.channel.name, step.after_s)
                steps[same] = _stricter(steps.get(same, step), step)
    return AlertPlan(tuple(steps.values()), held=held)


def _stricter(one: AlertStep, other: AlertStep) -> AlertStep:
    """Of two rules that tell the same channel at the same time, wait as the more impatient one does."""
    waits = [step.answer_within_s for step in (one, other) if step.answer_within_s is not None]
    return AlertStep(one.channel, one.after_s, min(waits, default=None))


def is_too_old(config: Config, acquired_at: float | None, now: float) -> bool:
    """Say whether a study alerts nobody for its age; an unknown time counts as new."""
    return acquired_at is not None and now - acquired_at > config.alert.maximum_age_h * _SECONDS_PER_HOUR


def _steps(rule: AlertRuleSettings, channels: dict[str, AlertChannel]) -> list[AlertStep]:
    """All of ``tell`` at once, then one of ``then`` after the other."""
    wait_s = rule.answer_within_s
    first = [AlertStep(channels[name], 0.0, wait_s) for name in rule.tell]
    return first + [
        AlertStep(channels[name], number * (wait_s or 0.0), wait_s) for number, name in enumerate(rule.then, 1)
    ]


def _fits(rule: AlertRuleSettings, answer: StudyAnswer, now: datetime) -> bool:
    return (
        answer.outcome in rule.triage
        and (rule.classes is None or bool(set(rule.classes) & set(answer.present)))
        and answer.probabilities.get("any", 0.0) >= rule.minimum_probability
        and (rule.station_name is None or is_like(answer.station_name, rule.station_name))
        and (rule.ae_title is None or rule.ae_title == answer.calling_ae_title)
        and (rule.known_bleed is None or rule.known_bleed == answer.known_bleed)
        and (rule.hours is None or _is_within(rule.hours, now))
    )


def _is_within(hours: str, now: datetime) -> bool:
    """Say whether it is between two times of the day; the second may be of the next day."""
    begin, end = hours.split("-")
    time = f"{now:%H:%M}"
    return begin <= time < end if begin < end else time >= begin or time < end
