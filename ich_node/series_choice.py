"""Which series of a study is analysed, where several show the same head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from ich_node.image_type import is_derived
from ich_node.kernels import KernelClass, kernel_class
from ich_node.records import Completeness, SliceFacts
from ich_node.slice_position import slice_positions_mm

_USUAL_STEP_MM: Final = (2.5, 7.0)  # the spacing that head CT is read at
_ROUNDING_MM: Final = 0.01
_THINNER, _UNKNOWN_KERNEL, _BONE_KERNEL, _DERIVED = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class SeriesDescription:
    """What the choice between the series of a study rests on."""

    rank: int
    """0 is best: a soft kernel at the usual spacing; 1 soft and thinner or thicker; 2 unknown kernel; 3 bone kernel;
    4 more where the series is derived."""
    derived: bool
    bone: bool
    whole: bool
    """It shows the whole head."""
    lowest_mm: float
    """Along the slice normal."""
    highest_mm: float
    frame_of_reference_uid: str
    series_number: int | None


def describe_series(facts: Sequence[SliceFacts], completeness: Completeness) -> SeriesDescription:
    """Describe a series by its eligible slices, of which there is at least one."""
    positions = slice_positions_mm(facts)
    lowest, highest = completeness.extent_mm or (min(positions), max(positions))
    kernel = _kernel_of(facts)
    derived = any(map(is_derived, facts))
    return SeriesDescription(
        rank=_rank(kernel, positions) + (_DERIVED if derived else 0),
        derived=derived,
        bone=kernel is KernelClass.BONE,
        whole=completeness.whole_head,
        lowest_mm=lowest,
        highest_mm=highest,
        frame_of_reference_uid=facts[0].frame_of_reference_uid,
        series_number=facts[0].series_number,
    )


def chosen_over(mine: SeriesDescription, others: Mapping[str, SeriesDescription]) -> str | None:
    """Name the analysed series because of which this one is not analysed, or None: analyse it.

    ``others`` are the analysed series of the study by Series Instance UID. An equal one that was there first stays, a
    better one that comes later is analysed too, and so are two series that each show a part of the head.
    """
    in_its_way = {uid: one for uid, one in others.items() if one.rank <= mine.rank and _stands_for(one, mine)}
    return min(in_its_way, key=lambda uid: (not in_its_way[uid].whole, in_its_way[uid].rank), default=None)


def waits_for_others(mine: SeriesDescription) -> bool:
    """Tell whether a series is concluded only after the others of its study had their time: a bone kernel."""
    return mine.bone


def _stands_for(other: SeriesDescription, mine: SeriesDescription) -> bool:
    """A whole head for every series; a part for a part that is mostly in it."""
    if other.whole or mine.whole:
        return other.whole
    if not other.frame_of_reference_uid or other.frame_of_reference_uid != mine.frame_of_reference_uid:
        return False
    shared = min(other.highest_mm, mine.highest_mm) - max(other.lowest_mm, mine.lowest_mm)
    extent = mine.highest_mm - mine.lowest_mm
    return shared > extent / 2 or (extent == 0 and shared == 0)


def _rank(kernel: KernelClass, positions_mm: Sequence[float]) -> int:
    if kernel is KernelClass.BONE:
        return _BONE_KERNEL
    if kernel is KernelClass.UNKNOWN:
        return _UNKNOWN_KERNEL
    steps = _steps_mm(positions_mm)
    low, high = _USUAL_STEP_MM
    usual = bool(steps) and low - _ROUNDING_MM <= median(steps) <= high + _ROUNDING_MM
    return 0 if usual else _THINNER


def _kernel_of(facts: Sequence[SliceFacts]) -> KernelClass:
    """The kernel's class; the description speaks only where the kernel is unknown."""
    kernel = kernel_class(facts[0].convolution_kernel)
    named_bone = kernel is KernelClass.UNKNOWN and any(one.names_bone for one in facts)
    return KernelClass.BONE if named_bone else kernel


def _steps_mm(positions_mm: Sequence[float]) -> list[float]:
    return [above - below for below, above in pairwise(sorted(positions_mm)) if above - below > _ROUNDING_MM]
