"""What a prepared set will be made of, cut into shards; its hash tells whether a folder holds the same set, begun."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ich_node.durable import replace_durably
from ich_node.errors import TrainingError
from ich_node.training.prepare.lot import Item, Lot, Source
from ich_node.training.prepare.shard import ShardTask
from ich_node.training.prepared import MANIFEST, SHARDS, LeftOut

PLAN: Final = "plan.json"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All that is to be read."""

    lots: tuple[Lot, ...]
    left_out: tuple[LeftOut, ...]
    slices_per_shard: int

    def sha256(self) -> str:
        """Hash names, labels and settings; where the files lie does not count."""
        digest = hashlib.sha256(f"1 {self.slices_per_shard}".encode())
        for lot in self.lots:
            digest.update(repr((lot.source, lot.kind, lot.pixels, lot.side_px, lot.reader.settings())).encode())
            for item in lot.items:
                digest.update(repr(_plain(item)).encode())
        return digest.hexdigest()


def make_plan(sources: Sequence[Source], slices_per_shard: int) -> Plan:
    """Join sources; an image that two of them hold is taken from the first.

    Raises:
        TrainingError: there is nothing to prepare.
    """
    taken: set[tuple[str, str]] = set()
    lots, left_out = [], [one for source in sources for one in source.left_out]
    for lot in (lot for source in sources for lot in source.lots):
        fresh = [item for item in lot.items if (lot.source, item.image_id) not in taken]
        if len(fresh) < len(lot.items):
            again = (item.image_id for item in lot.items if (lot.source, item.image_id) in taken)
            left_out += [LeftOut(image_id=one, reason="the same image of an earlier source is used") for one in again]
        taken.update((lot.source, item.image_id) for item in fresh)
        if fresh:
            lots.append(replace(lot, items=fresh))
    if not lots:
        raise TrainingError("no slice to prepare; give a folder, archive or table that holds labelled slices")
    return Plan(tuple(lots), tuple(left_out), slices_per_shard)


def shard_tasks(plan: Plan, directory: Path, seconds_per_item: float) -> Iterator[ShardTask]:
    """Cut a plan into shards, numbered in order."""
    number = 0
    for lot in plan.lots:
        step = max(1, plan.slices_per_shard // lot.slices_per_item)
        for start in range(0, len(lot.items), step):
            items = lot.items[start : start + step]
            yield ShardTask(directory, number, replace(lot, items=items), seconds_per_item)
            number += 1


def begin_or_resume(plan: Plan, directory: Path) -> None:
    """Make the folder ready: write the plan, or find that it holds this one, begun.

    Raises:
        TrainingError: it holds something else.
    """
    shards, path = directory / SHARDS, directory / PLAN
    shards.mkdir(parents=True, exist_ok=True)
    sha256 = plan.sha256()
    if not path.exists():
        if (directory / MANIFEST).exists() or any(shards.iterdir()):
            raise TrainingError(f"{directory}: holds a prepared set whose {PLAN} is gone; give an empty folder")
        replace_durably(path, [json.dumps({"plan": sha256}).encode()])
    elif _written(path) != sha256:
        raise TrainingError(
            f"{directory}: holds a set of other sources or settings; give an empty folder, delete this one, or give "
            "the sources and settings that it was begun with"
        )
    for part in shards.glob("*.part"):
        part.unlink()


def _written(path: Path) -> str:
    try:
        return str(json.loads(path.read_bytes())["plan"])
    except (ValueError, KeyError, TypeError):
        raise TrainingError(f"{path}: not understood; delete {path.parent} and prepare it anew") from None


def _plain(item: Item) -> tuple[object, ...]:
    return (item.image_id, item.at.name, item.labels, item.patient_id, item.study, item.position_mm, item.spacing_mm,
            item.lesion_mm2)  # fmt: skip
