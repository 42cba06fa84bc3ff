"""A sample of what the DIMSE fuzzer sends; `make fuzz` sends more."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.dimse_fuzzer import CASES, fuzz, node_to_fuzz


def test_messages_that_are_almost_right_cost_the_others_nothing(tmp_path: Path) -> None:
    with node_to_fuzz(tmp_path) as node:
        outcome = fuzz(node, seed=1, cases=6 * len(CASES))
    assert set(outcome.cases) == set(CASES)
    assert outcome.is_good, outcome
    assert outcome.threads[1] <= outcome.threads[0]
    assert outcome.files[1] <= outcome.files[0]
