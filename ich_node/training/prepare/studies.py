"""A folder (or zip archive) of DICOM studies with a table of labels.

The table has one row per slice, or fewer. Each row names what it labels in the first of these columns that it fills:
`file` (path within the folder), `sop_instance_uid`, `series_instance_uid`, `study_instance_uid`; then the five
subtypes, and where known `any`, `patient_id` (instead of the header's) and `lesion_mm2`.

A row of a series or study says what is somewhere in it, not what each slice shows. Without hemorrhage that is the same:
every slice is negative. With hemorrhage most slices still show none, so such a row is refused, unless rows of single
slices say which (the others of that study are left out), its column `level` says `slice`, or the caller decides.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydicom import Dataset

from ich_node.decode import DecodeLimits
from ich_node.decode.file import read_header
from ich_node.decode.header import text_of
from ich_node.errors import TrainingError, Unreadable
from ich_node.training.prepare.dicom import DicomReader
from ich_node.training.prepare.entries import Entry, as_file, list_entries
from ich_node.training.prepare.labels import SUBTYPES, check_columns, read_labels, refuse
from ich_node.training.prepare.lot import Item, Labels, Lot, Source
from ich_node.training.prepared import LeftOut, Pixels

FILE: Final = "file"
SLICE_KEYS: Final = (FILE, "sop_instance_uid")
COARSE_KEYS: Final = ("series_instance_uid", "study_instance_uid")
_KEYS: Final = (*SLICE_KEYS, *COARSE_KEYS)


class CoarsePositives(StrEnum):
    """What becomes of slices of which only a positive series or study is labelled."""

    REFUSE = "refuse"
    """The table is refused."""
    LEAVE_OUT = "leave-out"
    """They are left out, and listed."""
    ALL_SLICES = "all-slices"
    """Every slice is called positive, which most of them are not: for methods that expect such labels."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """What one row says."""

    key: str
    """The column that names what it labels."""
    value: str
    labels: Labels
    of_slices: bool
    """The labels hold for each slice, not for all together."""
    patient_id: str | None = None
    lesion_mm2: float | None = None


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What a file is called, on every level."""

    entry: Entry
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str

    def value(self, key: str) -> str:
        """Give what stands in this column where a row means this file."""
        return self.entry.name if key == FILE else str(getattr(self, key))


Table = Mapping[tuple[str, str], TableRow]


def find_studies(
    place: Path,
    table: Path,
    source: str,
    side_px: int = 512,
    coarse_positives: CoarsePositives = CoarsePositives.REFUSE,
    tell: Callable[[int], None] = lambda _: None,
) -> Source:
    """Find the labelled slices of a folder or zip archive of DICOM studies.

    Args:
        source: name of the data set.
        tell: called with the number of headers read so far, every thousand.

    Raises:
        TrainingError: the table cannot be used, or labels studies only.
    """
    rows = read_study_table(table)
    files, left_out = _identify(place, list_entries(place), tell)
    files, repeated = _without_repeated(files)
    labelled = [(file, _row_of(file, rows)) for file in files]
    items, others = _items(table, labelled, coarse_positives)
    if not items:
        raise TrainingError(f"{table}: no row names a file of {place}; check the UIDs, or paths relative to the folder")
    unused = _unused(rows, files)
    reader = DicomReader(place, side_px, eligible_only=True)
    notes = (f"{source}: {len(items)} labelled slices of {len(files)} DICOM files",)
    lot = Lot(source, "dicom", Pixels.HU, side_px, reader, items)
    return Source((lot,), (*left_out, *repeated, *others, *unused), notes)


def read_study_table(table: Path) -> dict[tuple[str, str], TableRow]:
    """Read a table of labels, by column and value of what each row labels.

    Raises:
        TrainingError: names the faults.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames or ()
            check_columns(columns, SUBTYPES, table)
            records = list(reader)
    except FileNotFoundError:
        raise TrainingError(f"{table}: not there; give the table of labels (CSV)") from None
    if not set(columns) & set(_KEYS):
        raise TrainingError(f"{table}: no column says what a row labels; add one of {', '.join(_KEYS)}")
    rows: dict[tuple[str, str], TableRow] = {}
    faults = []
    for line, record in enumerate(records, start=2):
        try:
            row = _table_row(record)
            if rows.setdefault((row.key, row.value), row) != row:
                raise ValueError(f"disagrees with an earlier row of the same {row.key}")
        except ValueError as error:
            faults.append(f"line {line}: {error}")
    refuse(table, "rows cannot be used", faults, "Mend or delete these rows")
    return rows


def _table_row(record: Mapping[str, str]) -> TableRow:
    key = next((key for key in _KEYS if (record.get(key) or "").strip()), None)
    if key is None:
        raise ValueError(f"none of {', '.join(_KEYS)} is filled")
    level = (record.get("level") or "").strip()
    if level not in ("", "slice", "series", "study"):
        raise ValueError(f"level is {level!r}, not slice, series or study")
    area = (record.get("lesion_mm2") or "").strip()
    return TableRow(
        key=key,
        value=record[key].strip(),
        labels=read_labels(record),
        of_slices=key in SLICE_KEYS or level == "slice",
        patient_id=(record.get("patient_id") or "").strip() or None,
        lesion_mm2=float(area) if area else None,
    )


def _identify(
    place: Path, entries: Iterable[Entry], tell: Callable[[int], None]
) -> tuple[list[FileIdentity], list[LeftOut]]:
    files, left_out = [], []
    limits = DecodeLimits()
    for number, entry in enumerate(entries, start=1):
        try:
            with as_file(place, entry) as path:
                files.append(_identity(entry, read_header(path, limits)))
        except Unreadable as error:
            if entry.name.endswith(".dcm"):
                left_out.append(LeftOut(image_id=entry.name, reason=str(error)))
        if number % 1000 == 0:
            tell(number)
    return files, left_out


def _identity(entry: Entry, header: Dataset) -> FileIdentity:
    uids = (text_of(header, name) for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"))
    return FileIdentity(entry, *uids)


def _without_repeated(files: Sequence[FileIdentity]) -> tuple[list[FileIdentity], list[LeftOut]]:
    first: dict[str, FileIdentity] = {}
    left_out = []
    for file in files:
        if first.setdefault(file.sop_instance_uid, file) is not file:
            reason = f"{file.entry.name} has the same SOP Instance UID as another file"
            left_out.append(LeftOut(image_id=file.sop_instance_uid, reason=reason))
    return list(first.values()), left_out


def _row_of(file: FileIdentity, rows: Table) -> TableRow | None:
    """The row that speaks most closely of a file."""
    found = (rows.get((key, file.value(key))) for key in _KEYS)
    return next((row for row in found if row is not None), None)


def _items(
    table: Path, labelled: Sequence[tuple[FileIdentity, TableRow | None]], coarse: CoarsePositives
) -> tuple[list[Item], list[LeftOut]]:
    detailed = {file.study_instance_uid for file, row in labelled if row and row.key in SLICE_KEYS}
    items, left_out, vague = [], [], set()
    for file, row in labelled:
        if row is None:
            left_out.append(_out(file, "no row of the table"))
        elif row.of_slices or not row.labels[0] or coarse is CoarsePositives.ALL_SLICES:
            items.append(_item(file, row))
        elif coarse is CoarsePositives.LEAVE_OUT or file.study_instance_uid in detailed:
            left_out.append(_out(file, f"its {row.key} is positive, no row says which slices are"))
        else:
            vague.add(f"{row.key} {row.value}")
    refuse(table, "positive, but no row says which slices are", sorted(vague),
           "Add rows of slices, or leave these out (leave-out), or write `slice` in the column level where every slice "
           "shows it")  # fmt: skip
    return items, left_out


def _item(file: FileIdentity, row: TableRow) -> Item:
    return Item(
        image_id=file.sop_instance_uid,
        at=file.entry,
        labels=row.labels,
        patient_id=row.patient_id,
        lesion_mm2=row.lesion_mm2 if row.key in SLICE_KEYS else None,
    )


def _out(file: FileIdentity, reason: str) -> LeftOut:
    return LeftOut(image_id=file.sop_instance_uid, reason=reason)


def _unused(rows: Table, files: Sequence[FileIdentity]) -> list[LeftOut]:
    values = {(key, file.value(key)) for file in files for key in _KEYS}
    return [LeftOut(image_id=value, reason=f"labelled ({key}), but there is no file")
            for key, value in sorted(rows.keys() - values)]  # fmt: skip
