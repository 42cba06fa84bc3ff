"""Key slices → pictures for people: the slice, and where its score comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ich_node.decode import DecodedPlane, MemberFile
from ich_node.log import EventLog
from ich_node.model.engine import Engine
from ich_node.records import (
    HEMORRHAGE_CLASSES,
    MOST_KEY_SLICES,
    KeySlicePicture,
    SliceFacts,
    SliceKey,
    SliceProbability,
    TriageFinding,
)
from ich_node.report.slice_pictures import speaks_clearly
from ich_node.windowing import Windowing, place_on_slice

_UNKNOWN_SPACING_MM: Final = (1.0, 1.0)
_ANY: Final = HEMORRHAGE_CLASSES.index("any")

log = EventLog("work")


@dataclass(frozen=True, slots=True, eq=False)
class PlanePixels:
    """The pixels of one plane."""

    hu: NDArray[np.float32]
    """(rows, columns), as they were scored: the slice, or the mean of its slab."""
    pixel_spacing_mm: tuple[float, float]
    """Between rows, between columns."""


def pictured_slices(finding: TriageFinding) -> tuple[SliceProbability, ...]:
    """Name the slices of which pictures are wanted, best first; none where there is no result."""
    return finding.key_slices.get("any", ())[:MOST_KEY_SLICES] if finding.triage is not None else ()


def pictures_of_slices(
    finding: TriageFinding,
    paths: Mapping[str, Path],
    facts: Sequence[SliceFacts],
    read: Callable[[Sequence[MemberFile]], DecodedPlane],
    windowing: Windowing,
    engine: Engine,
) -> tuple[KeySlicePicture, ...]:
    """Read the key slices of a series again, and make their pictures.

    Args:
        paths: file of each SOP instance.
        facts: of the series, for the distance of pixels.
        read: gives the mean of the slices in some files.
    """
    planes = {}
    for one in pictured_slices(finding):
        if (pixels := _read(one, paths, facts, read)) is not None:
            planes[_key(one)] = pixels
    return key_slice_pictures(finding, planes, windowing, engine)


def _read(
    one: SliceProbability,
    paths: Mapping[str, Path],
    facts: Sequence[SliceFacts],
    read: Callable[[Sequence[MemberFile]], DecodedPlane],
) -> PlanePixels | None:
    """None where an image of the slice, or of its slab, is gone or cannot be read any more."""
    keys: list[SliceKey] = [member.key for member in one.members] or [_key(one)]
    if any(uid not in paths for uid, _ in keys):
        return None
    plane = read([(paths[uid], frame) for uid, frame in keys])
    if plane.unreadable:
        log.warning("a key slice cannot be read again for its picture", reason=plane.unreadable[0].reason.name)
        return None
    return PlanePixels(plane.hu, _spacing_mm(facts, one))


def _spacing_mm(facts: Sequence[SliceFacts], one: SliceProbability) -> tuple[float, float]:
    same = (fact.pixel_spacing_mm for fact in facts if fact.key == _key(one))
    rows, columns = next(same, None) or _UNKNOWN_SPACING_MM
    return rows, columns


def key_slice_pictures(
    finding: TriageFinding, planes: Mapping[SliceKey, PlanePixels], windowing: Windowing, engine: Engine
) -> tuple[KeySlicePicture, ...]:
    """Make pictures of the key slices whose pixels are given, best first.

    The slices that speak clearly for hemorrhage are run through the network once more, all in one batch, for the map
    of ``any``. It is of the slice network: a sequence head that refines the probabilities has no part in it.

    Raises:
        ModelError: the network gave a number that is none.
    """
    shown = [one for one in pictured_slices(finding) if _key(one) in planes]
    mapped = [one for one in shown if engine.map_features is not None and speaks_clearly(one.probabilities, finding)]
    shares = _shares([planes[_key(one)].hu for one in mapped], windowing, engine)
    share_of = {_key(one): share for one, share in zip(mapped, shares, strict=True)}
    return tuple(_picture(one, planes[_key(one)], share_of.get(_key(one))) for one in shown)


def _shares(slices: Sequence[NDArray[np.float32]], windowing: Windowing, engine: Engine) -> list[NDArray[np.float32]]:
    if not slices:
        return []
    tensors = [torch.from_numpy(np.asarray(hu, np.float32)).unsqueeze(0) for hu in slices]
    with torch.inference_mode():
        maps = torch.from_numpy(engine.activation_maps(torch.cat([windowing(hu) for hu in tensors]))[:, _ANY])
        placed = [
            place_on_slice(one.unsqueeze(0), hu, windowing.preprocessing) for one, hu in zip(maps, tensors, strict=True)
        ]
    return [np.asarray(one[0].numpy(), np.float32) for one in placed]


def _picture(one: SliceProbability, plane: PlanePixels, shares: NDArray[np.float32] | None) -> KeySlicePicture:
    return KeySlicePicture(
        sop_instance_uid=one.sop_instance_uid,
        frame=one.frame,
        position_mm=one.position_mm,
        hu=plane.hu,
        pixel_spacing_mm=plane.pixel_spacing_mm,
        shares=shares,
        probabilities=one.probabilities,
    )


def _key(one: SliceProbability) -> SliceKey:
    return one.sop_instance_uid, one.frame
