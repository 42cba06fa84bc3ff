"""Tables of ready images: `slices.csv` beside zip archives or plain files, WebP or PNG.

Columns: file, source, pixels, image_id, the five subtypes; where known also any, patient_id, slice_number (order within
the patient), position_mm or slice_spacing_mm, pixel_spacing_mm, lesion_mm2, archive (the zip that holds the file).
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ich_node.errors import TrainingError, Unreadable
from ich_node.records import NotAnalysedReason
from ich_node.training.hu_code import encode_hu
from ich_node.training.prepare.entries import Entry, list_entries, read_entry
from ich_node.training.prepare.labels import SUBTYPES, check_columns, read_labels, refuse
from ich_node.training.prepare.lot import Item, Lot, ReadSlice, Source
from ich_node.training.prepare.picture import brain_window, perceptual_hash
from ich_node.training.prepare.regions import find_regions
from ich_node.training.prepare.square import spacing_after, to_square_gray, to_square_hu
from ich_node.training.prepare.three_windows import hu_of_three_windows
from ich_node.training.prepared import LeftOut, Pixels

GRAY: Final = "brain_window_gray"
THREE_WINDOWS: Final = "three_windows_rgb"
SLICE_SPACING_MM: Final = 5.0
"""Of slices whose table tells their order alone."""
_STORED_AS: Final = {GRAY: Pixels.BRAIN_WINDOW_GRAY, THREE_WINDOWS: Pixels.HU}
_COLUMNS: Final = ("file", "source", "pixels", "image_id", *SUBTYPES)

Record = dict[str, str]


@dataclass(frozen=True, slots=True)
class ImageReader:
    """Read images of one kind from a folder or zip archive."""

    place: Path
    kind: str
    side_px: int

    def read(self, item: Item) -> tuple[ReadSlice, ...]:
        """Decode one image.

        Raises:
            Unreadable: it is damaged or missing.
        """
        image = open_image(self.place, item.at)
        if self.kind == GRAY:
            pixels = gray = to_square_gray(image[..., 0], self.side_px)
            regions = find_regions(gray)
        else:
            pixels = encode_hu(to_square_hu(hu_of_three_windows(image), self.side_px))
            gray, regions = brain_window(pixels), None
        return (
            ReadSlice(
                image_id=item.image_id,
                labels=item.labels,
                pixels=pixels,
                regions=regions,
                perceptual_hash=perceptual_hash(gray),
                patient_id=item.patient_id or "",
                study=item.study or "",
                position_mm=item.position_mm,
                spacing_mm=spacing_after(item.spacing_mm, image.shape[:2], self.side_px),
                lesion_mm2=item.lesion_mm2,
            ),
        )

    def settings(self) -> str:
        return f"{self.kind} {self.side_px}"


def open_image(place: Path, entry: Entry) -> NDArray[np.uint8]:
    """Decode an image into (rows, columns, 3).

    Raises:
        Unreadable: it is damaged or missing.
    """
    content = read_entry(place, entry)
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unreadable(NotAnalysedReason.CANNOT_DECODE, type(error).__name__) from None


def find_images(table: Path, side_px: int | None = None) -> Source:
    """Find the images that a table names.

    Args:
        side_px: of the prepared slices; None: as large as the first image of each kind.

    Raises:
        TrainingError: the table cannot be used; names its faults.
    """
    records = _read_table(table)
    items, faults = [], []
    for line, record in enumerate(records, start=2):
        try:
            items.append(_item(record))
        except ValueError as error:
            faults.append(f"line {line} ({record['image_id']}): {error}")
    refuse(table, "rows cannot be used", faults, "Mend or delete these rows")
    _refuse_repeated(table, records)
    lots, left_out = [], []
    for (source, kind, archive), pairs in _grouped(records, items):
        lot, missing = _lot(table.parent / archive, source, kind, [item for _, item in pairs], side_px)
        lots.append(lot)
        left_out += missing
    return Source(tuple(lots), tuple(left_out), (f"{table.name}: {len(items)} labelled images",))


def _read_table(table: Path) -> list[Record]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            check_columns(reader.fieldnames or (), _COLUMNS, table)
            records = list(reader)
    except FileNotFoundError:
        raise TrainingError(f"{table}: not there; give the table of images (slices.csv)") from None
    if not records:
        raise TrainingError(f"{table}: no rows; give a table with one row for each image")
    return records


def _item(record: Record) -> Item:
    if record["pixels"] not in _STORED_AS:
        raise ValueError(f"pixels is {record['pixels']!r}, not one of {', '.join(_STORED_AS)}")
    patient_id, number = record.get("patient_id") or "", _number(record, "slice_number")
    position_mm = _number(record, "position_mm")
    if position_mm is None and number is not None:
        position_mm = number * (_number(record, "slice_spacing_mm") or SLICE_SPACING_MM)
    return Item(
        image_id=record["image_id"],
        at=Entry(record["file"]),
        labels=read_labels(record),
        patient_id=patient_id,
        study=patient_id if position_mm is not None else "",
        position_mm=position_mm,
        spacing_mm=_number(record, "pixel_spacing_mm"),
        lesion_mm2=_number(record, "lesion_mm2"),
    )


def _number(record: Record, column: str) -> float | None:
    text = (record.get(column) or "").strip()
    return float(text) if text else None


def _refuse_repeated(table: Path, records: Sequence[Record]) -> None:
    keys = sorted((one["source"], one["image_id"]) for one in records)
    repeated = [f"{first[1]} of {first[0]}" for first, second in pairwise(keys) if first == second]
    refuse(table, "images named twice", repeated, "Keep one row for each")


def _grouped(
    records: Sequence[Record], items: Sequence[Item]
) -> list[tuple[tuple[str, str, str], list[tuple[tuple[str, str, str], Item]]]]:
    keys = [(one["source"], one["pixels"], one.get("archive") or "") for one in records]
    pairs = sorted(zip(keys, items, strict=True), key=lambda pair: (pair[0], pair[1].image_id))
    return [(key, list(group)) for key, group in groupby(pairs, key=lambda pair: pair[0])]


def _lot(place: Path, source: str, kind: str, items: Sequence[Item], side_px: int | None) -> tuple[Lot, list[LeftOut]]:
    entries = {one.name: one for one in list_entries(place)} if place.is_file() else {}
    if not place.exists():
        raise TrainingError(f"{place}: not there; the table's column archive names it")
    found, missing = [], []
    for item in items:
        entry = entries.get(item.at.name) if entries else item.at
        if entry is None:
            missing.append(LeftOut(image_id=item.image_id, reason=f"{place.name} does not hold its file"))
        else:
            found.append(replace(item, at=entry))
    side = side_px or _side_of_first(place, found)
    return Lot(source, kind, _STORED_AS[kind], side, ImageReader(place, kind, side), found), missing


def _side_of_first(place: Path, items: Sequence[Item]) -> int:
    for item in items:
        try:
            rows, columns, _ = open_image(place, item.at).shape
            return int(max(rows, columns))
        except Unreadable:
            continue
    raise TrainingError(f"{place}: no image of the table can be read; check its column file")
