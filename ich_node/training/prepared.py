"""The prepared set on disk: shards of pixels, one table of all slices, a manifest.

::

    prepared/
      prepared.json                     the manifest: classes, codes, counts, fold rule, what was left out, hashes
      slices.csv                        one row per slice
      shards/00000.safetensors          pixels (slices, side, side) uint8, labels (slices, 6) uint8;
                                        of grey images also regions (slices, side, side) uint8

Any program reads them: safetensors are a header and raw arrays, and the manifest holds the Hounsfield value of each
code. Pixels are square and not cropped; cropping and windowing happen at reading, in ``ich_node.windowing``.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ich_node.durable import replace_durably
from ich_node.errors import TrainingError
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.hu_code import HU_OF_CODE

MANIFEST: Final = "prepared.json"
TABLE: Final = "slices.csv"
SHARDS: Final = "shards"


class Pixels(StrEnum):
    """What the bytes of a slice mean."""

    HU = "hu"
    """Codes of ``hu_code``."""
    BRAIN_WINDOW_GRAY = "brain_window_gray"
    """A window 80 HU wide whose level is unknown; beside it the regions that ``restore`` needs."""


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One slice of a prepared set."""

    image_id: str
    """Of the source; unique within it."""
    source: str
    """Name of the data set, such as rsna2019."""
    pixels: str
    """One of ``Pixels``: how the stored bytes are to be read."""
    kind: str
    """What the source gave: dicom, phantom, or the table's own word (brain_window_gray, three_windows_rgb)."""
    shard: str
    """File name in ``shards/``."""
    index: int
    """Of the slice within its shard."""
    labels: tuple[int, ...]
    """Six of 0 and 1, in the order of HEMORRHAGE_CLASSES."""
    patient_id: str = ""
    """Empty where it is unknown."""
    study: str = ""
    """What forms one series; empty where the slice stands alone."""
    position_mm: float | None = None
    """Along the slice normal; None where the order is unknown."""
    spacing_mm: float | None = None
    """Of the stored pixels; None where it is unknown."""
    lesion_mm2: float | None = None
    """Area of hemorrhage in the slice, where it is known."""
    group: str = ""
    """Slices of one group are never on both sides of a split: the patient, else near-duplicates, else the image."""
    fold: int = 0


_PLAIN: Final = tuple(one.name for one in fields(SliceRow) if one.name != "labels")
COLUMNS: Final = (*_PLAIN, *HEMORRHAGE_CLASSES)


class ShardFile(BaseModel):
    """One shard and what is in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    slices: int
    side_px: int
    pixels: Pixels


class LeftOut(BaseModel):
    """A slice of a source that is not in the set, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_id: str
    reason: str


class FoldRule(BaseModel):
    """How the folds were made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int = Field(ge=2)
    seed: int
    group_by: str = "patient_id, else the cluster of near-duplicates, else the image"
    near_duplicate_bits: int
    """Two images whose perceptual hashes (64 bits) differ in at most so many bits are near-duplicates."""


class PreparedManifest(BaseModel):
    """The whole of ``prepared.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = 1
    made_by: str
    """Program and version."""
    classes: tuple[str, ...] = HEMORRHAGE_CLASSES
    hu_of_code: tuple[float, ...]
    shards: tuple[ShardFile, ...]
    table_sha256: str
    counts: dict[str, dict[str, int]]
    """Per source: slices, patients, and the positives of each class."""
    fold_counts: dict[str, dict[str, int]]
    """Per fold: slices, groups, and the positives of each class."""
    folds: FoldRule
    repairs: dict[str, int] = {}
    """How many slices each repair was made on, such as "12-bit wrap"."""
    left_out: tuple[LeftOut, ...] = ()
    terms: dict[str, str] = {}
    """Of use, per source, as its publisher states them."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedSet:
    """A prepared set that is ready to be read."""

    directory: Path
    manifest: PreparedManifest
    rows: tuple[SliceRow, ...] = field(repr=False)

    def shard_path(self, name: str) -> Path:
        return self.directory / SHARDS / name


def open_prepared(directory: Path) -> PreparedSet:
    """Read manifest and table of a prepared set; the table is checked against its hash, shards when they are read.

    Raises:
        TrainingError: it is missing, not finished, or altered; says what to do.
    """
    path = directory / MANIFEST
    try:
        manifest = PreparedManifest.model_validate_json(path.read_bytes())
        table = (directory / TABLE).read_bytes()
    except FileNotFoundError as error:
        raise TrainingError(
            f"{error.filename}: not there; run `ich-train prepare` (the same command again goes on where it stopped)"
        ) from None
    except ValidationError as error:
        raise TrainingError(f"{path}: not understood ({error.error_count()} faults); prepare the set anew") from None
    if hashlib.sha256(table).hexdigest() != manifest.table_sha256:
        raise TrainingError(f"{directory / TABLE}: altered, its SHA-256 is not the manifest's; prepare the set anew")
    if manifest.format_version != 1 or manifest.hu_of_code != tuple(map(float, HU_OF_CODE)):
        raise TrainingError(f"{path}: written by another version ({manifest.made_by}); prepare the set anew")
    if manifest.classes != HEMORRHAGE_CLASSES:
        raise TrainingError(f"{path}: its class order is {', '.join(manifest.classes)}; prepare the set anew")
    return PreparedSet(directory, manifest, tuple(read_rows(table.decode().splitlines())))


def read_rows(lines: Iterable[str]) -> list[SliceRow]:
    """Parse a table of slices.

    Raises:
        TrainingError: a column is missing or a value is no number.
    """
    reader = csv.DictReader(lines)
    if missing := set(COLUMNS) - set(reader.fieldnames or ()):
        raise TrainingError(f"{TABLE}: columns missing: {', '.join(sorted(missing))}; prepare the set anew")
    try:
        return [row_of(record) for record in reader]
    except ValueError as error:
        raise TrainingError(f"{TABLE}: line {reader.line_num}: {error}; prepare the set anew") from None


def write_rows(path: Path, rows: Sequence[SliceRow]) -> str:
    """Write a table of slices, whole or not at all; return its SHA-256."""
    content = table_of(COLUMNS, (cells_of(row) for row in rows))
    replace_durably(path, [content])
    return hashlib.sha256(content).hexdigest()


def table_of(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Write a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def cells_of(row: SliceRow) -> list[object]:
    """A row as ``COLUMNS`` has it; what is unknown stays empty."""
    plain = (getattr(row, name) for name in _PLAIN)
    return ["" if value is None else value for value in plain] + list(row.labels)


def series_of(rows: Sequence[SliceRow]) -> dict[tuple[str, str], NDArray[np.intp]]:
    """The slices of each series by their numbers, in anatomical order; by source and study.

    Slices without study or position are in none.
    """
    members: dict[tuple[str, str], list[tuple[float, str, int]]] = {}
    for number, row in enumerate(rows):
        if row.study and row.position_mm is not None:
            members.setdefault((row.source, row.study), []).append((row.position_mm, row.image_id, number))
    return {key: np.array([number for _, _, number in sorted(some)], np.intp) for key, some in members.items()}


_HINTS: Final = get_type_hints(SliceRow)


def row_of(record: Mapping[str, str]) -> SliceRow:
    """Parse one record of a table.

    Raises:
        KeyError: a column is missing.
        ValueError: a value is no number.
    """
    plain: dict[str, Any] = {}
    for name in _PLAIN:
        text, hint = record[name], _HINTS[name]
        if hint is int:
            plain[name] = int(text)
        elif hint is str:
            plain[name] = text
        else:
            plain[name] = float(text) if text else None
    return SliceRow(**plain, labels=tuple(int(record[name]) for name in HEMORRHAGE_CLASSES))
