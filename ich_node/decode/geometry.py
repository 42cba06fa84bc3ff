"""Where a slice lies along the slice normal."""

from collections.abc import Iterable

from ich_node.errors import Ineligible
from ich_node.records import HounsfieldSlice, HounsfieldSlices, NotAnalysedReason, SliceFacts
from ich_node.slice_position import slice_position_mm


def position_along_normal_mm(facts: SliceFacts) -> float:
    """Project ImagePositionPatient on the slice normal (PS3.3 C.7.6.2.1.1), in mm, rising toward the head.

    Raises:
        Ineligible: position or orientation is missing or nonsense.
    """
    position = slice_position_mm(facts)
    if position is None:
        raise Ineligible(NotAnalysedReason.GEOMETRY_MISSING)
    return position


def anatomical_order(facts: SliceFacts) -> tuple[float, str, int]:
    """Sort key from foot to head; slices at one position are told apart by their identity, so no order is by chance."""
    return position_along_normal_mm(facts), facts.sop_instance_uid, facts.frame or 0


def sort_slices(slices: Iterable[HounsfieldSlice]) -> HounsfieldSlices:
    """Order slices along the slice normal, from foot to head, whatever their order of arrival.

    Raises:
        Ineligible: position or orientation of one is missing.
    """
    return tuple(sorted(slices, key=lambda one: anatomical_order(one.facts)))
