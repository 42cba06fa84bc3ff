"""What a look found, and how it is stored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ich_node.drift.weeks import Week


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of a distribution; of a share, the share per 100 and its 95 % interval."""

    low: float
    """A quarter lies below."""
    middle: float
    high: float
    """A quarter lies above."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity in reference and recent time."""

    name: str
    reference_count: int
    recent_count: int
    reference: Spread | None = None
    recent: Spread | None = None
    change: float | None = None
    """Recent middle less the reference's; of scores, the distance of the two distributions, 0 to 1."""
    p: float | None = None
    """Corrected for everything that is compared in a look, and for the looks of a year; None: too few to compare."""
    found: bool = False
    """Sure, and large enough to matter."""
    sure: bool = False


@dataclass(frozen=True, slots=True)
class GroupLook:
    """One station and kernel."""

    station_name: str
    convolution_kernel: str
    reference_count: int
    recent_count: int
    reference_from: float | None = None
    """When the first series of the reference was measured, in seconds since 1970."""
    reference_until: float | None = None
    model_sha256: str | None = None
    """Of the model whose scores are compared."""
    comparisons: tuple[Comparison, ...] = ()
    weeks: tuple[Week, ...] = ()
    """The oldest first."""

    @property
    def found(self) -> tuple[Comparison, ...]:
        return tuple(one for one in self.comparisons if one.found)


@dataclass(frozen=True, slots=True)
class Look:
    """All groups at one time."""

    looked_at: float
    tests: int
    """How many p-values were corrected for."""
    groups: tuple[GroupLook, ...]
    left_out: int = 0
    """Groups that were not looked at, since there are too many."""


def look_to_json(look: Look) -> dict[str, Any]:
    """Give what was compared as JSON."""
    return {"groups": [dataclasses.asdict(one) for one in look.groups], "left_out": look.left_out}


def look_from_json(looked_at: float, tests: int, compared: dict[str, Any]) -> Look:
    """Read what :func:`look_to_json` wrote."""
    return Look(looked_at, tests, tuple(map(_group, compared.get("groups", ()))), compared.get("left_out", 0))


def _group(stored: dict[str, Any]) -> GroupLook:
    weeks = tuple(Week(**one) for one in stored["weeks"])
    return GroupLook(**stored | {"comparisons": tuple(map(_comparison, stored["comparisons"])), "weeks": weeks})


def _comparison(stored: dict[str, Any]) -> Comparison:
    spreads = {key: None if stored[key] is None else Spread(**stored[key]) for key in ("reference", "recent")}
    return Comparison(**stored | spreads)
