"""How often a program may ask, by a clock that the test holds."""

from __future__ import annotations

from ich_node.web.api.allowance import Allowance


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_as_many_requests_at_once_as_in_a_second_and_then_one_every_twentieth() -> None:
    clock = Clock()
    allowance = Allowance(20.0, clock)
    assert [allowance.take("a") for _ in range(20)] == [0.0] * 20
    assert 0.0 < allowance.take("a") <= 0.05
    clock.now += 0.051
    assert allowance.take("a") == 0.0
    assert allowance.take("a") > 0.0


def test_one_that_rested_has_no_more_than_a_second_saved() -> None:
    clock = Clock()
    allowance = Allowance(20.0, clock)
    allowance.take("a")
    clock.now += 3600.0
    assert [allowance.take("a") for _ in range(20)] == [0.0] * 20
    assert allowance.take("a") > 0.0


def test_what_one_uses_up_is_no_others() -> None:
    allowance = Allowance(20.0, Clock())
    for _ in range(21):
        allowance.take("a")
    assert allowance.take("a") > 0.0
    assert allowance.take("b") == 0.0
