"""What is compared, and from where on a change matters to anybody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ich_node.records import MeasuredSeries, NotAnalysedReason

PROBABILITY: Final = "probability"
POSITIVES: Final = "positives"
WITHOUT_RESULT: Final = "without_result"
SHARES: Final = (POSITIVES, WITHOUT_RESULT)
"""Of 100 series; attributes of `Week`."""
REASON: Final = "reason:"
"""Before the name of a reason for no result."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that is measured of a series."""

    name: str
    """Of the attribute of `SeriesMeasure`."""
    label: str
    unit: str
    matters: float
    """A change that is less is shown and never called drift, however sure it is."""
    relative: bool = False
    """``matters`` is a share of the reference's median."""
    digits: int = 1


QUANTITIES: Final = (
    Quantity("air_hu", "air", "HU", 2.0),
    Quantity("brain_hu", "brain", "HU", 2.0),
    Quantity("noise_hu", "noise", "HU", 0.10, relative=True, digits=2),
    Quantity("slice_thickness_mm", "slice thickness", "mm", 0.25, digits=2),
)
SCORES: Final = Quantity(PROBABILITY, "scores", "%", 0.10)
"""Matters by the distance of the distributions: medians of scores lie near 0 whatever the others do."""
SHARES_MATTER: Final = 3.0
"""Of 100."""
BY_NAME: Final = {one.name: one for one in (*QUANTITIES, SCORES)}


def label_of(name: str) -> str:
    """Call a quantity by its name for people."""
    if name in SHARES:
        return "positives" if name == POSITIVES else "without a result"
    if name.startswith(REASON):
        return f"not analysed: {_reason(name)}"
    return BY_NAME[name].label


def unit_of(name: str) -> str:
    """Name the unit of a quantity, or of a share."""
    return BY_NAME[name].unit if name in BY_NAME else "of 100"


def values_of(series: Iterable[MeasuredSeries], name: str) -> list[float]:
    """Give what is known of a quantity."""
    values = (getattr(one.measure, name) for one in series)
    return [value for value in values if value is not None]


def _reason(name: str) -> str:
    key = name.removeprefix(REASON)
    return NotAnalysedReason[key].text if key in NotAnalysedReason.__members__ else key
