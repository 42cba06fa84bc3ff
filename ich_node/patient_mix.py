"""Do all images of a series belong to one patient, one study and one frame of reference?"""

from __future__ import annotations

from collections.abc import Sequence

from ich_node.records import NotAnalysedReason, PatientMarks, SliceFacts


def judge_patient_mix(
    marks: Sequence[PatientMarks], facts: Sequence[SliceFacts], *, in_two_studies: bool
) -> tuple[NotAnalysedReason, str] | None:
    """Say why a series must not be analysed because it mixes patients, studies or frames of reference, or None.

    Args:
        marks: of the newest version of each image.
        facts: of the slices that could be analysed.
    """
    if patients := count_patients(marks):
        return NotAnalysedReason.TWO_PATIENTS, patients
    if in_two_studies:
        return NotAnalysedReason.TWO_STUDIES, ""
    frames = {one.frame_of_reference_uid for one in facts if one.frame_of_reference_uid}
    if len(frames) > 1:
        return NotAnalysedReason.TWO_FRAMES_OF_REFERENCE, f"{len(frames)} frames of reference"
    return None


def count_patients(marks: Sequence[PatientMarks]) -> str:
    """Say by what several patients are told apart; empty where there is one.

    Under one Patient ID a name may be corrected while images arrive (an unknown patient gets one): that alone is no
    mix. Another name with another birth date is: then two people share an ID.
    """
    ids = {one.patient_id for one in marks if one.patient_id}
    names = {one.patient_name for one in marks if one.patient_name}
    births = {one.patient_birth_date for one in marks if one.patient_birth_date}
    if len(ids) > 1:
        return f"{len(ids)} patient IDs"
    if not ids and len(names) > 1:
        return f"{len(names)} names without a patient ID"
    if len(names) > 1 and len(births) > 1:
        return f"{len(names)} names and {len(births)} birth dates under one patient ID"
    return ""
