"""A site's table of labels → what each study shows. Every fault of the table is named at once."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ich_node.errors import TableFaults
from ich_node.records import HEMORRHAGE_CLASSES

STUDY: Final = "study_instance_uid"
SUBTYPES: Final = HEMORRHAGE_CLASSES[1:]
COLUMNS: Final = (STUDY, *HEMORRHAGE_CLASSES)
_NEEDED: Final = (STUDY, "any")
_VALUES: Final[Mapping[str, bool | None]] = {"0": False, "1": True, "": None}
_UID: Final = re.compile(r"(?=.{1,64}\Z)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
"""PS3.5 9.1: components of digits without leading zeros, 64 characters at most."""
_LARGEST: Final = 64 * 1024 * 1024
_LONGEST_QUOTE: Final = 64


@dataclass(frozen=True, slots=True)
class StudyLabel:
    """What one study shows."""

    study_instance_uid: str
    shows: Mapping[str, bool | None]
    """By class; a subtype of which nothing is known is None."""
    line: int
    """Of the table, its heading being line 1."""

    @property
    def hemorrhage(self) -> bool:
        return bool(self.shows["any"])


@dataclass(frozen=True, slots=True)
class LabelTable:
    """A table without faults."""

    name: str
    sha256: str
    labels: tuple[StudyLabel, ...]
    """One of each study."""
    repeats: tuple[str, ...]
    """In words, the lines that say once more what was said; they are counted once."""


def read_labels(path: Path) -> LabelTable:
    """Read a table: CSV with a heading, separated by commas or, as spreadsheets of many countries write, semicolons.

    Raises:
        TableFaults: with every fault and the line that it is on.
    """
    content = _read(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableFaults(path, [f"byte {error.start}: not UTF-8"]) from None
    separator = ";" if text.partition("\n")[0].count(";") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    faults: list[str] = []
    labels: list[StudyLabel] = []
    try:
        heading = [one.strip() for one in next(reader, [])]
        faults += _faults_of_heading(heading)
        for row in reader if not faults else ():
            if any(cell.strip() for cell in row):
                _take(heading, [cell.strip() for cell in row], reader.line_num, labels, faults)
    except csv.Error as error:
        faults.append(f"line {reader.line_num}: {error}")
    once, repeats = _each_once(labels, faults)
    if not faults and not once:
        faults.append("no study is in it")
    if faults:
        raise TableFaults(path, faults)
    return LabelTable(path.name, hashlib.sha256(content).hexdigest(), once, repeats)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise TableFaults(path, [str(error.strerror)]) from None
    if len(content) > _LARGEST:
        raise TableFaults(path, [f"larger than {_LARGEST // 1024 // 1024} MiB"])
    return content


def _faults_of_heading(heading: list[str]) -> Iterator[str]:
    for name in _NEEDED:
        if name not in heading:
            yield f"line 1: the column {name} is missing"
    for name in dict.fromkeys(heading):
        if name not in COLUMNS:
            yield f"line 1: {_quoted(name)} is no column of labels; there may be: {', '.join(COLUMNS)}"
        elif heading.count(name) > 1:
            yield f"line 1: the column {name} is there {heading.count(name)} times"


def _take(heading: list[str], row: list[str], line: int, labels: list[StudyLabel], faults: list[str]) -> None:
    """Enter one line, or what is wrong with it."""
    if len(row) != len(heading):
        faults.append(f"line {line}: {len(row)} cells, and {len(heading)} columns")
        return
    cells = dict(zip(heading, row, strict=True))
    found = list(_faults_of_cells(cells))
    if found:
        faults += [f"line {line}: {one}" for one in found]
        return
    shows = {name: _VALUES[cells.get(name, "")] for name in HEMORRHAGE_CLASSES}
    if shows["any"] is False:  # then there is none of any kind, be that said or not
        shows = dict.fromkeys(HEMORRHAGE_CLASSES, False)
    labels.append(StudyLabel(cells[STUDY], shows, line))


def _faults_of_cells(cells: Mapping[str, str]) -> Iterator[str]:
    if not _UID.fullmatch(cells[STUDY]):
        yield f"{_quoted(cells[STUDY])} is no Study Instance UID"
    wrong = {name: cells[name] for name in HEMORRHAGE_CLASSES if cells.get(name, "") not in _VALUES}
    for name, cell in wrong.items():
        yield f"{name} is {_quoted(cell)}; it may be 0 or 1" + ("" if name == "any" else ", or empty: not known")
    if cells["any"] == "":
        yield "any is empty; it must be 0 or 1"
    present = [name for name in SUBTYPES if cells.get(name) == "1"]
    if cells["any"] == "0" and present:
        yield f"any is 0, and {', '.join(present)} 1"
    if cells["any"] == "1" and all(cells.get(name) == "0" for name in SUBTYPES):
        yield "any is 1, and every subtype 0; leave those empty that are not known"


def _each_once(labels: list[StudyLabel], faults: list[str]) -> tuple[tuple[StudyLabel, ...], tuple[str, ...]]:
    """Keep the first of each study; what contradicts it is a fault, and what repeats it is named."""
    first: dict[str, StudyLabel] = {}
    repeats = []
    for one in labels:
        before = first.setdefault(one.study_instance_uid, one)
        if before is not one and before.shows != one.shows:
            faults.append(f"line {one.line}: {one.study_instance_uid} is on line {before.line} with other labels")
        elif before is not one:
            repeats.append(f"line {one.line}: {one.study_instance_uid} is on line {before.line} with the same labels")
    return tuple(first.values()), tuple(repeats)


def _quoted(text: str) -> str:
    shown = "".join(one if one.isprintable() else "?" for one in text[:_LONGEST_QUOTE])
    return f"'{shown}{'…' if len(text) > _LONGEST_QUOTE else ''}'"
