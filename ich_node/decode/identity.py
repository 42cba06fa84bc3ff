"""Whose image it is, whether two files show the same picture, and what a rejection note takes back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pydicom import Dataset

from ich_node.decode.file import damage_means
from ich_node.decode.frames import FrameSource, open_frames, read_header_and_end
from ich_node.decode.header import facts_of_instance, text_of
from ich_node.decode.limits import DecodeLimits, check_image
from ich_node.decode.plane import frame_in_hu
from ich_node.errors import Unreadable
from ich_node.records import (
    KEY_OBJECT_SELECTION_STORAGE,
    NotAnalysedReason,
    PatientMarks,
    RejectionNote,
    SliceFacts,
)

_REJECTIONS: Final = {
    "113001": NotAnalysedReason.REJECTED_QUALITY,
    "113037": NotAnalysedReason.REJECTED_SAFETY,
    "113038": NotAnalysedReason.REJECTED_WORKLIST,
}
"""Document titles of PS3.16 CID 7011 that take images back; 113039, retention expired, is none: it says nothing
against the images."""


def patient_marks(header: Dataset) -> PatientMarks:
    """Hash what the header says of the patient, so that two images can be compared and nobody is named."""
    patient_id = text_of(header, "PatientID")
    issuer = text_of(header, "IssuerOfPatientID")
    name = "=".join(group.strip("^ ") for group in text_of(header, "PatientName").split("="))
    return PatientMarks(
        patient_id=_mark(f"{patient_id}|{issuer}") if patient_id else "",
        patient_name=_mark(name.casefold()),
        patient_birth_date=_mark(text_of(header, "PatientBirthDate")),
    )


def rejection_note(header: Dataset) -> RejectionNote | None:
    """Read a key object selection that rejects images; None where it is none, or says something else."""
    if str(header.get("SOPClassUID")) != KEY_OBJECT_SELECTION_STORAGE:
        return None
    title = (header.get("ConceptNameCodeSequence") or [Dataset()])[0]
    reason = _REJECTIONS.get(str(title.get("CodeValue")))
    if reason is None or str(title.get("CodingSchemeDesignator")) != "DCM":
        return None
    return RejectionNote(reason, tuple(dict.fromkeys(_evidence(header))))


def show_the_same_picture(path: Path, older: Path, limits: DecodeLimits) -> bool:
    """Compare pixels in HU and geometry of two versions of an object, however they are encoded.

    A frame that cannot be decoded in one of them contradicts nothing.
    """
    try:
        before, after = list(_pictures(older, limits)), list(_pictures(path, limits))
    except Unreadable:
        return True
    return len(before) == len(after) and all(one == two for one, two in zip(before, after, strict=True) if one and two)


def _pictures(path: Path, limits: DecodeLimits) -> Iterator[str]:
    """One digest per frame; empty where it cannot be decoded.

    Raises:
        Unreadable: no frame can be had.
    """
    header, pixel_element_at = read_header_and_end(path, limits)
    with damage_means(NotAnalysedReason.CANNOT_DECODE):
        check_image(header, limits)
        facts: Sequence[SliceFacts] = facts_of_instance(header)
        with open_frames(path, header, pixel_element_at) as source:
            for index, one in enumerate(facts):
                yield _picture(source, header, index, one)


def _picture(source: FrameSource, header: Dataset, index: int, one: SliceFacts) -> str:
    try:
        with damage_means(NotAnalysedReason.CANNOT_DECODE):
            hu, _ = frame_in_hu(source.frame(index), header, one.frame)
    except Unreadable:
        return ""
    where = (one.image_position_patient, one.image_orientation_patient, one.pixel_spacing_mm, hu.shape)
    return hashlib.sha256(repr(where).encode() + hu.tobytes()).hexdigest()


def _evidence(header: Dataset) -> Iterator[str]:
    for study in header.get("CurrentRequestedProcedureEvidenceSequence") or []:
        for series in study.get("ReferencedSeriesSequence") or []:
            for one in series.get("ReferencedSOPSequence") or []:
                yield str(one.get("ReferencedSOPInstanceUID"))


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32] if text else ""
