"""One unit of work: a list of slices → a shard and its sidecar, whole or not at all. Runs in a child process."""

import hashlib
import json
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import save

from ich_node.durable import replace_durably
from ich_node.errors import SpoolFull, TrainingError, Unreadable
from ich_node.training.prepare.lot import Item, Lot, Reader, ReadSlice
from ich_node.training.prepared import SHARDS, LeftOut, Pixels, ShardFile, SliceRow

_ROW_OF_SLICE: Final = ("image_id", "labels", "patient_id", "study", "position_mm", "spacing_mm", "lesion_mm2")


@dataclass(frozen=True, slots=True, eq=False)
class ShardTask:
    """What a child is to read, and where it writes."""

    directory: Path
    """The prepared set."""
    number: int
    lot: Lot
    """With the items of this shard alone."""
    seconds_per_item: float
    skipped: Mapping[int, str] = field(default_factory=dict)
    """Items, by their place in the list, that ended a child, and how."""

    @property
    def shard_name(self) -> str:
        return f"{self.number:05d}.safetensors"

    @property
    def shard_path(self) -> Path:
        return self.directory / SHARDS / self.shard_name

    @property
    def sidecar_path(self) -> Path:
        return self.directory / SHARDS / f"{self.number:05d}.json"


class Sidecar(BaseModel):
    """What is known of a shard once it is written; groups and folds are made of all of them together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shard: ShardFile | None
    """None: no slice of it could be used."""
    rows: tuple[SliceRow, ...]
    """Without group and fold."""
    hashes: tuple[str | None, ...]
    """Of each row, 16 hexadecimal digits; None: nothing to be recognised."""
    repairs: dict[str, int]
    left_out: tuple[LeftOut, ...]


def make_shard(task: ShardTask) -> int:
    """Read the items of a task, write shard and sidecar durably; return how many slices it holds.

    Raises:
        TrainingError: the disk is full.
    """
    slices, left_out = _read(task)
    shard = _write_shard(task, slices) if slices else None
    sidecar = Sidecar(
        shard=shard,
        rows=tuple(_row(task, index, one) for index, one in enumerate(slices)),
        hashes=tuple(None if one.perceptual_hash is None else f"{one.perceptual_hash:016x}" for one in slices),
        repairs=dict(sorted(Counter(name for one in slices for name in one.repairs).items())),
        left_out=tuple(left_out),
    )
    _write(task.sidecar_path, _as_json(sidecar))
    return len(slices)


def read_alone(reader: Reader, item: Item, seconds: float) -> None:
    """Read one item and forget it, to see whether it ends the child."""
    try:
        _within(seconds, reader, item)
    except Unreadable:
        return


def _read(task: ShardTask) -> tuple[list[ReadSlice], list[LeftOut]]:
    slices: list[ReadSlice] = []
    left_out: list[LeftOut] = []
    for index, item in enumerate(task.lot.items):
        reason = task.skipped.get(index)
        try:
            if reason is None:
                slices += _within(task.seconds_per_item, task.lot.reader, item)
        except Unreadable as error:
            reason = str(error)
        if reason is not None:
            left_out.append(LeftOut(image_id=item.image_id, reason=reason))
    return slices, left_out


def _within(seconds: float, reader: Reader, item: Item) -> Sequence[ReadSlice]:
    """Read an item; the system ends this process if that takes too long, even within a codec."""
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return reader.read(item)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _write_shard(task: ShardTask, slices: Sequence[ReadSlice]) -> ShardFile:
    arrays: dict[str, NDArray[np.uint8]] = {
        "pixels": np.stack([one.pixels for one in slices]),
        "labels": np.array([one.labels for one in slices], np.uint8),
    }
    if task.lot.pixels is Pixels.BRAIN_WINDOW_GRAY:
        arrays["regions"] = np.stack([one.regions for one in slices if one.regions is not None])
    content = save(arrays)
    _write(task.shard_path, content)
    sha256 = hashlib.sha256(content).hexdigest()
    return ShardFile(
        name=task.shard_name, sha256=sha256, slices=len(slices), side_px=task.lot.side_px, pixels=task.lot.pixels
    )


def _row(task: ShardTask, index: int, one: ReadSlice) -> SliceRow:
    plain: dict[str, Any] = {name: getattr(one, name) for name in _ROW_OF_SLICE}
    return SliceRow(
        source=task.lot.source,
        pixels=task.lot.pixels.value,
        kind=task.lot.kind,
        shard=task.shard_name,
        index=index,
        **plain,
    )


def _as_json(sidecar: Sidecar) -> bytes:
    fields = sidecar.model_dump(mode="json", exclude={"rows"}) | {"rows": [asdict(row) for row in sidecar.rows]}
    return json.dumps(fields).encode()


def _write(path: Path, content: bytes) -> None:
    try:
        replace_durably(path, [content])
    except SpoolFull:
        advice = "make room and run the same command again: it goes on where it stopped"
        raise TrainingError(f"{path.parent}: no space left on the disk; {advice}") from None
