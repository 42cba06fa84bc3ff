"""Members of one plane → their mean in Hounsfield units. Runs in a child process; a pure function of the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from ich_node.decode.codec import repair_jpeg_2000_sign, stored_values
from ich_node.decode.file import damage_means
from ich_node.decode.frames import header_of, open_frames
from ich_node.decode.header import stored_value_meaning
from ich_node.decode.hounsfield import to_hounsfield
from ich_node.decode.limits import DecodeLimits, check_image
from ich_node.decode.tissue import measure_tissue
from ich_node.errors import Unreadable
from ich_node.records import NotAnalysedReason, TissueMeasure

MemberFile = tuple[Path, int | None]
"""Where a slice lies: file, and frame number from 1 or None."""


@dataclass(frozen=True, slots=True)
class UnreadableMember:
    """A member that could not be read."""

    index: int
    reason: NotAnalysedReason
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class DecodedPlane:
    """One plane, or which of its members cannot be read."""

    hu: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(rows, columns), the mean of the members; empty where a member is unreadable."""
    tissue: TissueMeasure | None = None
    unreadable: tuple[UnreadableMember, ...] = ()
    repairs: tuple[str, ...] = ()


def read_plane(members: Sequence[MemberFile], limits: DecodeLimits) -> DecodedPlane:
    """Decode the members of a plane and average them, pixel by pixel."""
    slices: list[NDArray[np.float32]] = []
    unreadable: list[UnreadableMember] = []
    repairs: set[str] = set()
    for index, (path, frame) in enumerate(members):
        try:
            hu, made = _read_frame(path, frame, limits)
            slices.append(hu)
            repairs.update(made)
        except Unreadable as error:
            unreadable.append(UnreadableMember(index, error.reason, error.detail))
    if unreadable:
        return DecodedPlane(unreadable=tuple(unreadable))
    return make_plane(slices, tuple(sorted(repairs)))


def make_plane(slices: Sequence[NDArray[np.float32]], repairs: tuple[str, ...] = ()) -> DecodedPlane:
    """Average slices of (rows, columns); those of another shape than the first are left out."""
    alike = [one for one in slices if one.shape == slices[0].shape]
    hu = alike[0] if len(alike) == 1 else np.asarray(np.mean(alike, axis=0, dtype=np.float32))
    return DecodedPlane(hu, measure_tissue(hu), (), repairs)


def _read_frame(path: Path, frame: int | None, limits: DecodeLimits) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    with damage_means(NotAnalysedReason.NOT_DICOM):
        changed_at = path.stat().st_mtime_ns
    header, pixel_element_at = header_of(path, changed_at, limits)
    with damage_means(NotAnalysedReason.CANNOT_DECODE):
        check_image(header, limits)
        with open_frames(path, header, pixel_element_at) as source:
            return frame_in_hu(source.frame((frame or 1) - 1), header, frame)


def frame_in_hu(single: Dataset, header: Dataset, frame: int | None) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Decode a data set of one frame; slope, intercept and padding are those of its object's header."""
    repairs = repair_jpeg_2000_sign(single)
    (stored,) = stored_values(single, [0])
    if repairs:
        header.PixelRepresentation = single.PixelRepresentation
    hu, more = to_hounsfield(stored, stored_value_meaning(header, frame))
    return hu, repairs + more
