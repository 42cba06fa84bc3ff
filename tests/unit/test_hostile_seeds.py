"""The fuzzers' seed corpus, as a regression; `make fuzz` goes on from there."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest
from pydicom.config import IGNORE, settings

from ich_node.errors import AnswerNotUnderstood, SeriesNotAnalysed
from ich_node.receive.statuses import RefusedDataSet
from tests.fuzz import targets
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

MUTATIONS = 40
"""Of each seed."""


@pytest.fixture(autouse=True)
def as_in_a_process_that_receives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "reading_validation_mode", IGNORE)


def test_every_target_has_seeds_and_they_are_small() -> None:
    assert set(SEEDS) == set(TARGETS)
    assert sum(len(seed) for make in SEEDS.values() for seed in make()) < 200_000


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_and_their_mutations_raise_nothing_unforeseen(target: str) -> None:
    chance = random.Random(11)
    for seed in SEEDS[target]():
        TARGETS[target](seed)
        for _ in range(MUTATIONS):
            TARGETS[target](mutated(seed, chance))


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"transport"}))
def test_seeds_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setattr(targets, "suppress", lambda *_: nullcontext())
    for seed in SEEDS[target]():
        TARGETS[target](seed)
    with pytest.raises((ValueError, RefusedDataSet, SeriesNotAnalysed, AnswerNotUnderstood)):
        TARGETS[target](b"\0nonsense")


def test_messages_come_whole_out_of_the_seeds_that_hold_one() -> None:
    assert [targets.pdu_stream(seed) for seed in SEEDS["transport"]()] == [1, 1, 0, 0]


def mutated(seed: bytes, chance: random.Random) -> bytes:
    content = bytearray(seed)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(content) or 1)
        how = chance.randrange(4)
        if how == 0:
            content[at : at + 1] = bytes([chance.randrange(256)])
        elif how == 1:
            del content[at : at + chance.randrange(1, 30)]
        elif how == 2:
            content[at:at] = content[at : at + chance.randrange(1, 30)]
        else:
            content[at : at + 4] = chance.choice(
                [b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x00\x00\x00\x80"]
            )
    return bytes(content)
