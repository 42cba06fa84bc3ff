"""The fuzzers' seed corpus, as a regression; `make fuzz` goes on from there."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

MUTATIONS = 40
"""Of each seed."""


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
