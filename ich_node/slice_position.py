"""Where a slice lies along the slice normal."""

import math
from collections.abc import Iterable

from ich_node.records import SliceFacts

Vector = tuple[float, float, float]


def slice_normal(facts: SliceFacts) -> Vector | None:
    """Return the unit normal of a slice, turned so that its largest component is positive; None where it has none.

    It is the cross product of the rows and columns of ImageOrientationPatient (PS3.3 C.7.6.2.1.1), and points to the
    head in an axial slice whichever way its rows and columns run.
    """
    if facts.image_orientation_patient is None:
        return None
    ax, ay, az, bx, by, bz = facts.image_orientation_patient
    normal = (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
    length = math.hypot(*normal)
    if length < 0.5:  # rows and columns should be unit vectors at a right angle
        return None
    upward = math.copysign(length, max(normal, key=abs))
    return normal[0] / upward, normal[1] / upward, normal[2] / upward


def slice_position_mm(facts: SliceFacts) -> float | None:
    """Project ImagePositionPatient on the slice normal, in mm, rising toward the head; None where either is missing."""
    normal = slice_normal(facts)
    if normal is None or facts.image_position_patient is None:
        return None
    return sum(along * at for along, at in zip(normal, facts.image_position_patient, strict=True))


def slice_positions_mm(facts: Iterable[SliceFacts]) -> list[float]:
    """Return the positions of the slices that have one."""
    return [position for position in map(slice_position_mm, facts) if position is not None]
