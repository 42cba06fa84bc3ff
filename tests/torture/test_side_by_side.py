"""Campaigns that run at the same time: one that breaks is never taken for one that kept its promises."""

from __future__ import annotations

import threading

import pytest

from tests.torture.__main__ import _side_by_side


def test_a_campaign_that_breaks_breaks_the_whole_when_the_others_have_ended() -> None:
    broke, others_ended = threading.Event(), threading.Event()

    def breaks() -> None:
        broke.set()
        raise AssertionError("no such campaign")

    def goes_on() -> None:
        assert broke.wait(30)
        others_ended.set()

    with pytest.raises(AssertionError, match="no such campaign"):
        _side_by_side([breaks, goes_on], lambda: "")
    assert others_ended.is_set()


def test_no_campaign_at_all_is_no_success() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        _side_by_side([], lambda: "")
