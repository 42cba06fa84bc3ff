"""The pixels of prepared sets, by the number of the slice: on the device where they fit, else read when needed."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.errors import TrainingError
from ich_node.training.prepared import Pixels, PreparedSet, SliceRow, series_of

_AHEAD: Final = 3
"""Batches that are read before they are needed."""
_READERS: Final = 4
CHECKED: Final = "checked.json"


@dataclass(frozen=True, slots=True, eq=False)
class StoredSlices:
    """Some slices of a batch that are stored alike."""

    places: Tensor
    """(slices,): where in the batch they stand; on the processor."""
    pixels: Tensor
    """(slices, side, side) uint8."""
    regions: Tensor | None
    """The same shape; of grey images alone."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a slice lies: which array, which row of it."""

    array: int
    row: int


@dataclass(frozen=True, slots=True, eq=False)
class _Array:
    """Slices of one side and meaning: one shard, or all of them together where they are resident."""

    pixels: Any
    regions: Any | None

    @property
    def likeness(self) -> tuple[int, bool]:
        return int(self.pixels.shape[1]), self.regions is not None


class SliceStore:
    """Slices of one or several prepared sets.

    Args:
        data: Numbered through in their order.
        device: Where batches are wanted.
        resident_gib: What may lie there as a whole.

    Raises:
        TrainingError: a shard is missing or altered.
    """

    def __init__(self, data: Sequence[PreparedSet], device: torch.device, resident_gib: float) -> None:
        self.rows: tuple[SliceRow, ...] = tuple(row for one in data for row in one.rows)
        self.device = device
        stored = sum(
            shard.slices * shard.side_px**2 * (1 + (shard.pixels is Pixels.BRAIN_WINDOW_GRAY))
            for one in data
            for shard in one.manifest.shards
        )
        self.resident = stored <= resident_gib * 2**30
        self._arrays: list[_Array] = []
        self._places: list[_Place] = []
        for one in data:
            self._open(one)

    def fetch(self, numbers: Sequence[int] | NDArray[np.int64]) -> list[StoredSlices]:
        """Read slices by their numbers, those that are stored alike together."""
        by_likeness: dict[tuple[int, bool], list[int]] = {}
        for place, number in enumerate(numbers):
            likeness = self._arrays[self._places[int(number)].array].likeness
            by_likeness.setdefault(likeness, []).append(place)
        return [self._gather(numbers, places) for _, places in sorted(by_likeness.items())]

    def fetch_ahead(self, batches: Iterator[NDArray[np.int64]]) -> Iterator[list[StoredSlices]]:
        """Read batch after batch, some of them before they are asked for."""
        with ThreadPoolExecutor(_READERS, initializer=_use, initargs=(self.device,)) as readers:
            waiting = [readers.submit(self.fetch, batch) for batch in islice(batches, _AHEAD)]
            while waiting:
                ready = waiting.pop(0).result()
                waiting += [readers.submit(self.fetch, batch) for batch in islice(batches, 1)]
                yield ready

    def _open(self, data: PreparedSet) -> None:
        at: dict[str, int] = {}
        checked = _read_checked(data.directory)
        for shard in data.manifest.shards:
            path = data.shard_path(shard.name)
            arrays: dict[str, Any] = dict(_map_shard(path))
            _check(path, shard.sha256, checked)
            if self.resident:
                arrays = {name: torch.from_numpy(np.array(array)).to(self.device) for name, array in arrays.items()}
            if arrays["pixels"].shape != (shard.slices, shard.side_px, shard.side_px):
                raise TrainingError(f"{path}: not what {data.directory}'s manifest says; prepare the set anew")
            at[shard.name] = len(self._arrays)
            self._arrays.append(_Array(arrays["pixels"], arrays.get("regions")))
        self._places += [_Place(at[row.shard], row.index) for row in data.rows]
        _write_checked(data.directory, checked)

    def _gather(self, numbers: Sequence[int] | NDArray[np.int64], places: list[int]) -> StoredSlices:
        found = [self._places[int(numbers[place])] for place in places]
        pixels = self._stack([self._arrays[one.array].pixels[one.row] for one in found])
        areas = [self._arrays[one.array].regions for one in found]
        regions = None
        if areas[0] is not None:
            regions = self._stack([area[one.row] for area, one in zip(areas, found, strict=True) if area is not None])
        return StoredSlices(torch.tensor(places), pixels, regions)

    def _stack(self, slices: list[Any]) -> Tensor:
        if self.resident:
            return torch.stack(slices)
        stacked = torch.from_numpy(np.stack(slices))
        return stacked.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else stacked


def _use(device: torch.device) -> None:
    """Pinned memory belongs to the thread's current device."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _map_shard(path: Path) -> dict[str, NDArray[np.uint8]]:
    """Map the arrays of a safetensors file of bytes without reading them."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        return {
            name: np.memmap(path, np.uint8, "r", 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
            for name, entry in header.items()
            if name in ("pixels", "regions")
        }
    except FileNotFoundError:
        raise TrainingError(
            f"{path}: missing; run the same `ich-train prepare` again, it makes what is not there"
        ) from None
    except (ValueError, KeyError, OSError) as error:
        raise TrainingError(f"{path}: no shard ({error}); delete it and run `ich-train prepare` again") from None


Checked = dict[str, list[object]]
"""SHA-256, size and time of change of shards that were found whole, by name."""


def _read_checked(directory: Path) -> Checked:
    try:
        found: Checked = json.loads((directory / CHECKED).read_text())
    except (OSError, ValueError):
        return {}
    return found


def _write_checked(directory: Path, checked: Checked) -> None:
    """Remember what was checked, so that a large set is hashed once; one that cannot be written to is hashed again."""
    if checked != _read_checked(directory):
        with suppress(OSError):
            (directory / CHECKED).write_text(json.dumps(checked))


def _check(path: Path, sha256: str, checked: Checked) -> None:
    status = path.stat()
    mark: list[object] = [sha256, status.st_size, status.st_mtime_ns]
    if checked.get(path.name) == mark:
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise TrainingError(f"{path}: altered, its SHA-256 is not the manifest's; delete it and prepare again")
    checked[path.name] = mark


def neighbours_of(rows: Sequence[SliceRow]) -> NDArray[np.int64]:
    """For each slice the numbers of the one before, itself, and the one after: (slices, 3).

    Before and after along the slice normal within the study; the slice itself where there is none.
    """
    numbers = np.repeat(np.arange(len(rows))[:, None], 3, axis=1)
    for series in series_of(rows).values():
        numbers[series[1:], 0] = series[:-1]
        numbers[series[:-1], 2] = series[1:]
    return numbers
