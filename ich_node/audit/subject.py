"""Whose study an object of ours is, read from its file."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from ich_node.audit.message import Subject


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What audit messages say of one object."""

    subject: Subject
    sop_class_uid: str


def read_object(path: Path) -> StoredObject | None:
    """Read it from a DICOM file; None where there is no such file, or it cannot be read."""
    keys = ["SpecificCharacterSet", "SOPClassUID", "PatientID", "StudyInstanceUID"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's texts quote values
            header = dcmread(path, specific_tags=keys, stop_before_pixels=True)
            sop_class, patient_id, study = (str(header.get(key) or "").strip() for key in keys[1:])
    except (OSError, InvalidDicomError, ValueError, LookupError, AttributeError):
        return None
    return StoredObject(Subject(patient_id, study), sop_class)


def read_subject(path: Path | None, study_instance_uid: str = "") -> Subject:
    """Read whose study a file is of; nobody's where that cannot be told."""
    found = None if path is None else read_object(path)
    return Subject("", study_instance_uid) if found is None else found.subject
