"""What a C-STORE status means, and how long to wait before another try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ich_node.deliver import Verdict, is_warning, judge
from ich_node.job_queue import DeliveryRules


def test_success_is_delivered() -> None:
    assert judge(0x0000) is Verdict.DELIVERED
    assert not is_warning(0x0000)


@given(st.integers(0xB000, 0xBFFF))
def test_every_warning_is_delivered(status: int) -> None:
    assert judge(status) is Verdict.DELIVERED
    assert is_warning(status)


@given(st.one_of(st.integers(0xA900, 0xA9FF), st.integers(0xC000, 0xCFFF), st.just(0x0122)))
def test_what_another_try_will_hardly_change_is_refused(status: int) -> None:
    assert judge(status) is Verdict.REFUSED


@given(st.one_of(st.integers(0xA700, 0xA7FF), st.integers(0x0100, 0x01FF).filter(lambda status: status != 0x0122)))
def test_what_may_pass_is_tried_again(status: int) -> None:
    assert judge(status) is Verdict.TRY_AGAIN


@given(st.integers(0x0001, 0xFFFF))
def test_no_status_but_success_and_warnings_counts_as_delivered(status: int) -> None:
    assert (judge(status) is Verdict.DELIVERED) == is_warning(status)


@pytest.mark.parametrize(("attempts", "expected_s"), [(1, 5), (2, 10), (3, 20), (7, 320), (8, 600), (1000, 600)])
def test_the_pause_doubles_from_five_seconds_to_ten_minutes(attempts: int, expected_s: float) -> None:
    pauses = [DeliveryRules().pause_s(attempts) for _ in range(100)]

    assert all(0.8 * expected_s <= pause <= 1.2 * expected_s for pause in pauses)
    assert len(set(pauses)) > 1, "jitter keeps many rows from coming back at once"
