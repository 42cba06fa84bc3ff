"""Where a slice lies along the slice normal."""

from collections.abc import Iterable

import numpy as np

from ich_node.errors import Ineligible
from ich_node.records import HounsfieldSlice, HounsfieldSlices, NotAnalysedReason, SliceFacts


def position_along_normal_mm(facts: SliceFacts) -> float:
    """Project ImagePositionPatient on the slice normal (PS3.3 C.7.6.2.1.1), in mm, rising toward the head.

    The normal is the cross product of ImageOrientationPatient, turned so that its largest component is positive:
    positions of an axial series rise toward the head whichever way its rows and columns run.

    Raises:
        Ineligible: position or orientation is missing.
    """
    if facts.image_position_patient is None or facts.image_orientation_patient is None:
        raise Ineligible(NotAnalysedReason.GEOMETRY_MISSING)
    orientation = np.asarray(facts.image_orientation_patient)
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if length == 0.0:
        raise Ineligible(NotAnalysedReason.GEOMETRY_MISSING, "rows and columns are parallel")
    upward = np.sign(normal[np.argmax(np.abs(normal))])
    return float(upward * (normal @ np.asarray(facts.image_position_patient)) / length)


def anatomical_order(facts: SliceFacts) -> tuple[float, str, int]:
    """Sort key from foot to head; slices at one position are told apart by their identity, so no order is by chance."""
    return position_along_normal_mm(facts), facts.sop_instance_uid, facts.frame or 0


def sort_slices(slices: Iterable[HounsfieldSlice]) -> HounsfieldSlices:
    """Order slices along the slice normal, from foot to head, whatever their order of arrival.

    Raises:
        Ineligible: position or orientation of one is missing.
    """
    return tuple(sorted(slices, key=lambda one: anatomical_order(one.facts)))
