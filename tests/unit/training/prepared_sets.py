"""Prepared sets of phantoms, made without ``prepare``: quick, and as large as a test needs."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from ich_node.phantom import LESIONS, PhantomSettings, draw_volume, lesion_mask
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.hu_code import HU_OF_CODE, encode_hu
from ich_node.training.prepared import (
    MANIFEST,
    SHARDS,
    TABLE,
    FoldRule,
    Pixels,
    PreparedManifest,
    PreparedSet,
    ShardFile,
    SliceRow,
    open_prepared,
    write_rows,
)

Head = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""HU (slices, side, side) and labels (slices, 6)."""

_LEAST_MM2 = 100.0


def draw_head(number: int, slices: int = 8, side_px: int = 64) -> Head:
    """Draw the head of a number: every other one bleeds, each in another way."""
    lesion = None if number % 2 else LESIONS[number // 2 % len(LESIONS)]
    settings = PhantomSettings(lesion=lesion, slices=slices, rows=side_px, seed=number, slice_spacing_mm=112 / slices)
    labels = np.zeros((slices, len(HEMORRHAGE_CLASSES)), np.uint8)
    bleeding = lesion_mask(settings).sum(axis=(1, 2)) * settings.pixel_spacing_mm**2 > _LEAST_MM2
    if lesion is not None:
        labels[bleeding, 0] = labels[bleeding, HEMORRHAGE_CLASSES.index(lesion)] = 1
    return draw_volume(settings), labels


def make_prepared(
    directory: Path, heads: int, draw: Callable[[int], Head] = draw_head, folds: int = 2, source: str = "phantom"
) -> PreparedSet:
    """Write a prepared set of heads, one patient and one shard each."""
    (directory / SHARDS).mkdir(parents=True)
    rows: list[SliceRow] = []
    shards = []
    for number in range(heads):
        hu, labels = draw(number)
        shards.append(_write_shard(directory, number, hu, labels))
        rows += _rows(number, labels, source, fold=number // 2 % folds)
    counts = {"slices": len(rows), "patients": heads}
    manifest = PreparedManifest(
        made_by="a test",
        hu_of_code=tuple(HU_OF_CODE.tolist()),
        shards=tuple(shards),
        table_sha256=write_rows(directory / TABLE, rows),
        counts={source: counts},
        fold_counts={},
        folds=FoldRule(folds=folds, seed=0, near_duplicate_bits=0),
    )
    (directory / MANIFEST).write_text(manifest.model_dump_json())
    return open_prepared(directory)


def _write_shard(directory: Path, number: int, hu: NDArray[np.float32], labels: NDArray[np.uint8]) -> ShardFile:
    name = f"{number:05d}.safetensors"
    path = directory / SHARDS / name
    tensors = {"pixels": torch.from_numpy(encode_hu(hu)), "labels": torch.from_numpy(labels)}
    safetensors.torch.save_file(tensors, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return ShardFile(name=name, sha256=sha256, slices=len(hu), side_px=hu.shape[1], pixels=Pixels.HU)


def _rows(number: int, labels: Sequence[Sequence[int]] | NDArray[np.uint8], source: str, fold: int) -> list[SliceRow]:
    patient = f"{source}-{number}"
    return [
        SliceRow(
            image_id=f"{patient}-{index}",
            source=source,
            pixels=Pixels.HU,
            kind="phantom",
            shard=f"{number:05d}.safetensors",
            index=index,
            labels=tuple(int(one) for one in row),
            patient_id=patient,
            study=patient,
            position_mm=14.0 * index,
            spacing_mm=3.75,
            group=patient,
            fold=fold,
        )
        for index, row in enumerate(labels)
    ]
