"""The layout of RSNA 2019: `stage_2_train.csv` beside a folder of `ID_xxx.dcm`, unpacked or as the zip archive.

The table has six rows per image, `ID_xxx_subtype,Label`, some of them twice. One file of the set is known to be too
short (ID_6431af929); it and others like it are found at reading and listed.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final
from zipfile import ZipFile

from ich_node.errors import TrainingError
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.prepare.dicom import DicomReader
from ich_node.training.prepare.entries import Entry, list_entries
from ich_node.training.prepare.labels import refuse
from ich_node.training.prepare.lot import Item, Labels, Lot, Source
from ich_node.training.prepared import LeftOut, Pixels

TABLE: Final = "stage_2_train.csv"
IMAGES: Final = "stage_2_train"
SOURCE: Final = "rsna2019"
_BIT_OF: Final = {name: 1 << index for index, name in enumerate(HEMORRHAGE_CLASSES)}
_ALL: Final = (1 << len(HEMORRHAGE_CLASSES)) - 1
_LABELS_OF_BITS: Final = tuple(
    tuple(bits >> index & 1 for index in range(len(HEMORRHAGE_CLASSES))) for bits in range(_ALL + 1)
)


@dataclass(frozen=True, slots=True)
class RsnaLabels:
    """The labels of the table."""

    of_image: dict[str, Labels]
    left_out: tuple[LeftOut, ...]
    """Images whose labels are not whole or contradict themselves."""
    duplicates: int
    """Rows that said again what was said, and were dropped."""


def find_rsna(place: Path, table: Path | None = None, side_px: int = 512, source: str = SOURCE) -> Source:
    """Find images and labels of RSNA 2019 in a folder or zip archive.

    Args:
        table: where `stage_2_train.csv` lies, if neither in ``place`` nor beside it.

    Raises:
        TrainingError: there is no table or no image, or its labels disagree.
    """
    entries = list_entries(place)
    with _open_table(place, entries, table) as lines:
        labels = read_rsna_labels(lines, table or place / TABLE)
    items, left_out = _match(_images(entries), labels)
    if not items:
        raise TrainingError(f"{place}: no image (*.dcm) has labels; give the folder that holds {IMAGES}/ and {TABLE}")
    reader = DicomReader(place, side_px)
    notes = (f"{source}: {len(items)} labelled images, {labels.duplicates} duplicate label rows dropped",)
    return Source((Lot(source, "dicom", Pixels.HU, side_px, reader, items),), left_out, notes)


def read_rsna_labels(lines: Iterable[str], table: object) -> RsnaLabels:
    """Read rows `ID_xxx_subtype,Label`; drop those that come again with the same label.

    Raises:
        TrainingError: a row is none of these, or two rows of one ID disagree; they are named.
    """
    rows = csv.reader(lines)
    if next(rows, None) != ["ID", "Label"]:
        raise TrainingError(f"{table}: the first line is not ID,Label; give the {TABLE} of RSNA 2019")
    bits: dict[str, int] = {}
    duplicates, disagreeing = 0, []
    for row in rows:
        image_id, bit, positive = _parse(row, rows.line_num, table)
        known = bits.get(image_id, 0)
        said = bit << 6 | bit * positive
        if not known & bit << 6:
            bits[image_id] = known | said
        elif bool(known & bit) == bool(positive):
            duplicates += 1
        else:
            disagreeing.append(row[0])
    refuse(table, "rows of the same ID disagree", disagreeing, "Find out which is right and delete the other")
    return _labels(bits, duplicates)


def _parse(row: list[str], line: int, table: object) -> tuple[str, int, int]:
    image_id, _, name = row[0].rpartition("_") if len(row) == 2 else ("", "", "")
    if not image_id or name not in _BIT_OF or row[1] not in ("0", "1"):
        raise TrainingError(f"{table}: line {line} is no row ID_xxx_subtype,Label; mend it, or fetch the table again")
    return image_id, _BIT_OF[name], int(row[1])


def _labels(bits: dict[str, int], duplicates: int) -> RsnaLabels:
    of_image, left_out = {}, []
    for image_id, both in bits.items():
        labels = _LABELS_OF_BITS[both & _ALL]
        if both >> 6 != _ALL:
            left_out.append(LeftOut(image_id=image_id, reason="the table lacks some of its six labels"))
        elif labels[0] != max(labels[1:]):
            left_out.append(LeftOut(image_id=image_id, reason="its label any contradicts those of the subtypes"))
        else:
            of_image[image_id] = labels
    return RsnaLabels(of_image, tuple(left_out), duplicates)


@contextmanager
def _open_table(place: Path, entries: list[Entry], table: Path | None) -> Iterator[Iterable[str]]:
    inside = next((one for one in entries if one.name.rpartition("/")[2] == TABLE), None)
    path = table or (place / inside.name if inside and inside.zipped is None else place.parent / TABLE)
    if table is None and inside and inside.zipped:
        with ZipFile(place) as archive, archive.open(inside.name) as file:
            yield io.TextIOWrapper(file, encoding="utf-8")
    elif path.is_file():
        with path.open(encoding="utf-8") as lines:
            yield lines
    else:
        raise TrainingError(f"{place}: no {TABLE} in it or beside it; name the table of labels")


def _images(entries: list[Entry]) -> list[Entry]:
    """The DICOM files; of the whole competition's files those of stage_2_train alone."""
    files = [one for one in entries if one.name.endswith(".dcm")]
    training = [one for one in files if one.folder == IMAGES]
    return training or files


def _match(files: list[Entry], labels: RsnaLabels) -> tuple[list[Item], tuple[LeftOut, ...]]:
    items, left_out = [], list(labels.left_out)
    excluded = {one.image_id for one in left_out}
    seen = set()
    for image_id, same in groupby(sorted(files, key=lambda one: one.stem), key=lambda one: one.stem):
        first, *others = same
        seen.add(image_id)
        left_out += [LeftOut(image_id=image_id, reason="another file of the same name") for _ in others]
        if image_id in labels.of_image:
            items.append(Item(image_id, first, labels.of_image[image_id]))
        elif image_id not in excluded:
            left_out.append(LeftOut(image_id=image_id, reason="no labels in the table"))
    absent = sorted(labels.of_image.keys() - seen)
    return items, (*left_out, *(LeftOut(image_id=one, reason="labelled, but there is no file") for one in absent))
