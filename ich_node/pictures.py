"""Key slices → pictures for people: the slice, and where its score comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ich_node.model.engine import Engine
from ich_node.records import (
    HEMORRHAGE_CLASSES,
    MOST_KEY_SLICES,
    KeySlicePicture,
    SliceKey,
    SliceProbability,
    TriageFinding,
)
from ich_node.report.slice_pictures import speaks_clearly
from ich_node.windowing import Windowing, place_on_slice

_ANY: Final = HEMORRHAGE_CLASSES.index("any")


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
