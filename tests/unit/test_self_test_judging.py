"""What is a fault of a self-test, and what is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest

from ich_node.job_queue.self_tests import SelfTestLook
from ich_node.self_test.judging import fault_of, probability_of

GOOD = SelfTestLook(
    revision=1, triage="positive", complete=True, finding={"probabilities": {"any": 0.51}},
    model={"trained": True, "sha256": "ab"}, slices=14,
)  # fmt: skip
UNTRAINED = replace(
    GOOD, triage=None, reason="UNTRAINED_MODEL", finding={"probabilities": {}}, model={"trained": False, "sha256": "ab"}
)


def fault(look: SelfTestLook, expect: Literal["positive", "any"] = "positive", score: float | None = 0.5) -> str:
    return fault_of(look, slices=14, expect=expect, score=score)


def test_a_result_as_it_should_be_has_no_fault() -> None:
    assert fault(GOOD) == ""
    assert fault(GOOD, score=None) == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ended": "FAILED: ANALYSIS_FAILED"}, "the series ended without a result (FAILED: ANALYSIS_FAILED)"),
        ({"slices": 13}, "13 of 14 slices were scored"),
        ({"complete": False}, "the series counts as incomplete"),
        ({"triage": "indeterminate"}, "a phantom with a hemorrhage was found indeterminate"),
        ({"triage": None, "reason": "NO_HEAD"}, "the report gives no result (NO_HEAD)"),
        (
            {"finding": {"probabilities": {"any": 0.5301}}},
            "the same phantom got another score: 0.530, and 0.500 before",
        ),
    ],
)
def test_each_fault_is_named(changes: dict[str, Any], says: str) -> None:
    assert fault(replace(GOOD, **changes)).startswith(says)


def test_a_site_may_take_any_answer_of_a_trained_model() -> None:
    assert fault(replace(GOOD, triage="negative"), "any") == ""


def test_an_untrained_model_says_that_it_has_no_finding_and_has_no_score() -> None:
    assert fault(UNTRAINED) == ""
    assert probability_of(UNTRAINED) is None


def test_an_untrained_model_whose_findings_are_shown_need_not_find_it() -> None:
    assert fault(replace(UNTRAINED, triage="negative", reason=None)) == ""
