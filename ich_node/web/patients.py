"""Whose study it is, as one of its files says: the database does not know."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from ich_node.audit import Subject
from ich_node.errors import StorageUnavailable
from ich_node.stored_files import StoredFiles

_KEYS: Final = [
    "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber",
    "StudyDescription", "StudyDate", "StudyTime",
]  # fmt: skip
_LONGEST: Final = 128
_MOST_FILES: Final = 4096
_CANNOT_BE_READ: Final = (
    OSError,
    InvalidDicomError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    RecursionError,
    StorageUnavailable,
)


@dataclass(frozen=True, slots=True)
class Patient:
    """Whose study it is. Everything is as it came: text of others, and no markup."""

    name: str = ""
    patient_id: str = ""
    birth_date: str = ""
    """YYYYMMDD, as DICOM writes it; empty where there is none."""
    sex: str = ""
    accession_number: str = ""
    study_description: str = ""
    study_date: str = ""
    study_time: str = ""
    """HHMMSS, of the scanner's clock."""

    def subject(self, study_instance_uid: str) -> Subject:
        """Give what the audit trail names."""
        return Subject(self.patient_id, study_instance_uid)


class Patients:
    """Reads whose studies files are, and remembers it: no file of the node ever changes."""

    def __init__(self, files: StoredFiles) -> None:
        self._read = lru_cache(_MOST_FILES)(lambda file: _read_patient(files.path(file)))

    def of(self, file: str | None) -> Patient:
        """Read it from an image or report, relative to the state folder; nobody where it is gone or cannot be read."""
        if file is None:
            return Patient()
        try:
            return self._read(file)
        except _CANNOT_BE_READ:
            return Patient()


def _read_patient(path: Path) -> Patient:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's texts quote values
        return _patient(dcmread(path, specific_tags=list(_KEYS), stop_before_pixels=True))


def _patient(header: Dataset) -> Patient:
    def text(key: str) -> str:
        return " ".join(str(header.get(key) or "").split())[:_LONGEST]

    return Patient(
        name=_as_written(text("PatientName")),
        patient_id=text("PatientID"),
        birth_date=_digits(text("PatientBirthDate"), 8),
        sex=text("PatientSex")[:1],
        accession_number=text("AccessionNumber"),
        study_description=text("StudyDescription"),
        study_date=_digits(text("StudyDate"), 8),
        study_time=_digits(text("StudyTime")[:6], 6),
    )


def _as_written(name: str) -> str:
    """Write the components of a name as people do: family, given (PS3.5 6.2.1)."""
    written = next(filter(None, name.split("=")), "")
    family, *rest = (part.strip() for part in written.split("^"))
    given = " ".join(filter(None, rest))
    return f"{family}, {given}" if given else family


def _digits(text: str, length: int) -> str:
    return text if len(text) == length and text.isascii() and text.isdigit() else ""
