"""Did the phantom get what it should?"""

from __future__ import annotations

from typing import Final, Literal

from ich_node.job_queue.self_tests import SelfTestLook
from ich_node.records import NotAnalysedReason, Triage

SAME_SCORE: Final = 0.02
"""Of a probability: engines and devices differ by less than half of it, and a broken one by more."""


def fault_of(look: SelfTestLook, *, slices: int, expect: Literal["positive", "any"], score: float | None) -> str:
    """Say what is wrong with a result; empty where nothing is.

    Args:
        slices: how many were sent.
        score: what the phantom scored before with the same model; None where nothing is to be compared.
    """
    if look.ended:
        return f"the series ended without a result ({look.ended})"
    if look.slices != slices:
        return f"{look.slices} of {slices} slices were scored"
    if not look.complete:
        return "the series counts as incomplete"
    return _fault_of_answer(look, expect) or _fault_of_score(look, score)


def probability_of(look: SelfTestLook) -> float | None:
    """Give the probability of any hemorrhage; None where the node says none, as with an untrained model."""
    value = ((look.finding or {}).get("probabilities") or {}).get("any")
    return None if value is None else float(value)


def _fault_of_answer(look: SelfTestLook, expect: Literal["positive", "any"]) -> str:
    if look.triage is None:
        untrained = look.reason == NotAnalysedReason.UNTRAINED_MODEL.name
        return "" if untrained else f"the report gives no result ({look.reason})"
    trained = bool((look.model or {}).get("trained"))
    if trained and expect == "positive" and look.triage != Triage.POSITIVE:
        return f"a phantom with a hemorrhage was found {look.triage}"
    return ""


def _fault_of_score(look: SelfTestLook, score: float | None) -> str:
    now = probability_of(look)
    if score is None or now is None or abs(now - score) <= SAME_SCORE:
        return ""
    return f"the same phantom got another score: {now:.3f}, and {score:.3f} before, by the same model"
