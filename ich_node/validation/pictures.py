"""The slice of a study that speaks most for hemorrhage, small and in the brain window, where its file is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ich_node.database import Database
from ich_node.decode import DecoderPool
from ich_node.records import KeySlicePicture
from ich_node.report.drawing import grey_png
from ich_node.report.slice_pictures import plain_slice
from ich_node.stored_files import StoredFiles
from ich_node.validation.worst import WorstCase
from ich_node.viewable import ViewableSlice, viewable_series

NOT_KEPT: Final = "image not kept"
_NOT_READABLE: Final = "image cannot be read"
_LONGEST_PX: Final = 220
_UNKNOWN_SPACING_MM: Final = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Picture:
    """A slice as PNG, or why there is none."""

    png: bytes = b""
    why_not: str = ""
    place: str = ""
    """Which slice of how many it is."""


def pictures_of(
    worst: Sequence[WorstCase], database: Database, files: StoredFiles, decoder: DecoderPool
) -> Mapping[str, Picture]:
    """Draw one slice of each study, by Study Instance UID."""
    uids = [one.case.label.study_instance_uid for one in worst]
    return {uid: _picture(uid, database, files, decoder) for uid in uids}


def _picture(uid: str, database: Database, files: StoredFiles, decoder: DecoderPool) -> Picture:
    series = viewable_series(database, uid)
    if not series:
        return Picture(why_not=NOT_KEPT)
    slices = series[0].slices
    number = _highest(slices)
    chosen = slices[number]
    path = files.path(chosen.file)
    if not path.is_file():
        return Picture(why_not=NOT_KEPT)
    plane = decoder.submit_plane([(path, chosen.frame)]).result()
    if plane.unreadable:
        return Picture(why_not=_NOT_READABLE)
    spacing = chosen.spacing_mm or _UNKNOWN_SPACING_MM
    position = chosen.position_mm or 0.0
    shown = KeySlicePicture(chosen.sop_instance_uid, chosen.frame, position, plane.hu, spacing, None, {})
    return Picture(grey_png(plain_slice(shown, _LONGEST_PX)[..., 0]), place=f"slice {number + 1} of {len(slices)}")


def _highest(slices: Sequence[ViewableSlice]) -> int:
    """Give the place of the slice with the highest probability; of slices without any, the middle one."""
    scored = [(one.probabilities["any"], number) for number, one in enumerate(slices) if one.probabilities]
    return max(scored)[1] if scored else len(slices) // 2
