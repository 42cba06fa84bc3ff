"""The same figures by station, slice thickness, age and sex; what is not known is a group of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ich_node.records import StudyResult
from ich_node.validation.figures import Figures, figures_of
from ich_node.validation.matching import Case

UNKNOWN: Final = "not known"
_THICKNESS_MM: Final = ((1.5, "up to 1.5 mm"), (3.0, "over 1.5 to 3 mm"), (5.0, "over 3 to 5 mm"))
_THICKER: Final = "over 5 mm"
_AGES: Final = ((18, "under 18"), (40, "18 to 39"), (65, "40 to 64"), (80, "65 to 79"))
_OLDER: Final = "80 and older"
_SEXES: Final[Mapping[str, str]] = {"F": "female", "M": "male", "O": "other"}
"""PatientSex, PS3.3 C.7.1.1."""


@dataclass(frozen=True, slots=True)
class Group:
    """The studies that share something."""

    name: str
    not_analysed: int
    figures: Figures


@dataclass(frozen=True, slots=True)
class Grouping:
    """All studies, by one thing."""

    name: str
    groups: tuple[Group, ...]


def groupings_of(analysed: Sequence[Case], not_analysed: Sequence[Case]) -> tuple[Grouping, ...]:
    """Group studies in every way that a site is asked about."""
    ages = [name for _, name in _AGES] + [_OLDER]
    thicknesses = [name for _, name in _THICKNESS_MM] + [_THICKER]
    ways: tuple[tuple[str, Callable[[StudyResult], str], Sequence[str]], ...] = (
        ("Station", lambda one: one.station_name or UNKNOWN, ()),
        ("Slice thickness", thickness_class, thicknesses),
        ("Age", age_class, ages),
        ("Sex", lambda one: _SEXES.get(one.sex, UNKNOWN), tuple(_SEXES.values())),
    )
    return tuple(Grouping(name, _groups(analysed, not_analysed, of, order)) for name, of, order in ways)


def thickness_class(result: StudyResult) -> str:
    """Name the class of a study's slice thickness."""
    thickness = result.slice_thickness_mm
    if thickness is None or thickness <= 0:
        return UNKNOWN
    return next((name for most, name in _THICKNESS_MM if thickness <= most), _THICKER)


def age_class(result: StudyResult) -> str:
    """Name the class of a patient's age when the images were made."""
    if result.age_years is None:
        return UNKNOWN
    return next((name for below, name in _AGES if result.age_years < below), _OLDER)


def _groups(
    analysed: Sequence[Case], not_analysed: Sequence[Case], of: Callable[[StudyResult], str], order: Sequence[str]
) -> tuple[Group, ...]:
    named: defaultdict[str, tuple[list[Case], list[Case]]] = defaultdict(lambda: ([], []))
    for number, cases in enumerate((analysed, not_analysed)):
        for one in cases:
            named[of(one.result)][number].append(one)
    ranks = {name: rank for rank, name in enumerate(order)}
    names = sorted(named, key=lambda one: (one == UNKNOWN, ranks.get(one, len(ranks)), one))
    return tuple(Group(name, len(named[name][1]), figures_of(named[name][0])) for name in names)
