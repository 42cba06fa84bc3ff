"""Header of a file, or of a member of a zip file → which series it belongs to. Runs in a child process."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Final

from pydicom import Dataset, dcmread

from ich_node.decode.file import damage_means
from ich_node.decode.header import text_of
from ich_node.errors import Unreadable, ZipRefused
from ich_node.records import ArchivedHeader, NotAnalysedReason
from ich_node.zip_members import open_member

_LONGEST_UID: Final = 64
_LONGEST_TEXT: Final = 64


def read_archived_header(path: Path, member: int | None) -> ArchivedHeader:
    """Say which series a file belongs to, and what a validation groups by; or why it cannot be used.

    A deflated data set is inflated without a limit of its own: the child's limits of memory and time hold for it.
    """
    try:
        with damage_means(NotAnalysedReason.NOT_DICOM):
            return _read(path, member)
    except Unreadable as error:
        return ArchivedHeader(why=str(error))
    except ZipRefused as error:
        return ArchivedHeader(why=str(error))


def _read(path: Path, member: int | None) -> ArchivedHeader:
    with _opened(path, member) as file:
        header = dcmread(file, stop_before_pixels=True)
    if "SOPInstanceUID" not in header or "SOPClassUID" not in header:
        raise Unreadable(NotAnalysedReason.NOT_DICOM, "no SOP Instance UID or SOP Class UID")
    study, series = (str(header.get(keyword) or "") for keyword in ("StudyInstanceUID", "SeriesInstanceUID"))
    if not series or max(len(study), len(series)) > _LONGEST_UID:
        raise Unreadable(NotAnalysedReason.NOT_DICOM, "no Series Instance UID, or one that is too long")
    return ArchivedHeader(study, series, _short(header, "StationName"), _short(header, "PatientSex").upper())


def _opened(path: Path, member: int | None) -> AbstractContextManager[IO[bytes]]:
    return path.open("rb") if member is None else open_member(path, member)


def _short(header: Dataset, keyword: str) -> str:
    return text_of(header, keyword)[:_LONGEST_TEXT]
