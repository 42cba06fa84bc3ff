"""Activation maps for the viewer: a file beside the report, of the report's name.

No row speaks of such a file. Whatever holds of a report, that it is kept, held, deleted, or known again after a
rebuild, so holds of the maps beside it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ich_node.records import SliceKey

MAPS_SUFFIX: Final = ".maps.npz"
_NO_FRAME: Final = -1
_DAMAGED: Final = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True, eq=False)
class SavedMap:
    """What speaks for hemorrhage on one slice, or on the slab of several."""

    slices: tuple[SliceKey, ...]
    """All that it is shown on."""
    shares: NDArray[np.uint8]
    """(rows, columns), on the slices' own grid; 255 is the highest share of all maps of a report."""


def maps_beside(report: Path) -> Path:
    """Name the file of the maps that belong to a report."""
    return report.with_suffix(MAPS_SUFFIX)


def report_beside(maps: Path) -> Path:
    """Name the report that a file of maps belongs to."""
    return maps.with_name(maps.name.removesuffix(MAPS_SUFFIX) + ".dcm")


def encode_maps(maps: Sequence[SavedMap]) -> bytes:
    """Write maps as a file: NumPy's archive, compressed, without pickled objects."""
    keys = [(uid, _NO_FRAME if frame is None else frame, number)
            for number, one in enumerate(maps) for uid, frame in one.slices]  # fmt: skip
    uids, frames, numbers = zip(*keys, strict=True) if keys else ((), (), ())
    arrays: dict[str, Any] = {f"map_{number}": one.shares for number, one in enumerate(maps)}
    file = io.BytesIO()
    np.savez_compressed(
        file, uids=np.array(uids, "U64"), frames=np.array(frames, np.int32), maps=np.array(numbers, np.int32), **arrays
    )
    return file.getvalue()


def read_maps(path: Path) -> dict[SliceKey, NDArray[np.uint8]]:
    """Read the map of each slice; empty where there is no such file, or it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            maps = {number: stored[f"map_{number}"] for number in set(stored["maps"].tolist())}
            return {
                (str(uid), None if frame == _NO_FRAME else int(frame)): maps[number]
                for uid, frame, number in zip(stored["uids"], stored["frames"], stored["maps"].tolist(), strict=True)
            }
    except _DAMAGED:
        return {}
