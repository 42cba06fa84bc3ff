"""One patient, one study, one frame of reference: judged on the newest versions."""

import pytest

from ich_node.patient_mix import judge_patient_mix
from ich_node.records import NotAnalysedReason, PatientMarks
from tests.unit.test_eligibility import facts

DOE = PatientMarks("id-1", "doe", "1950")


@pytest.mark.parametrize(
    ("other", "mixed"),
    [
        (PatientMarks("id-1", "doe", "1950"), False),
        (PatientMarks("id-2", "doe", "1950"), True),
        (PatientMarks("id-1", "roe", "1950"), False),
        (PatientMarks("id-1", "doe", "1960"), False),
        (PatientMarks("id-1", "roe", "1960"), True),
        (PatientMarks("id-1", "roe", ""), False),
        (PatientMarks("", "", ""), False),
        (PatientMarks("", "roe", "1960"), True),
    ],
)
def test_two_patients_are_told_from_one_whose_data_were_corrected(other: PatientMarks, mixed: bool) -> None:
    judged = judge_patient_mix([DOE] * 5 + [other] * 5, [], in_two_studies=False)

    assert (judged is not None) is mixed
    assert judged is None or judged[0] is NotAnalysedReason.TWO_PATIENTS


def test_without_ids_the_names_speak() -> None:
    marks = [PatientMarks("", "doe", ""), PatientMarks("", "roe", "")]

    assert judge_patient_mix(marks, [], in_two_studies=False) == (
        NotAnalysedReason.TWO_PATIENTS,
        "2 names without a patient ID",
    )


def test_two_studies_and_two_frames_of_reference_are_mixes() -> None:
    assert judge_patient_mix([DOE], [], in_two_studies=True) == (NotAnalysedReason.TWO_STUDIES, "")
    frames = [facts(1, frame_of_reference_uid="1.2"), facts(2, frame_of_reference_uid="1.3")]
    judged = judge_patient_mix([DOE], frames, in_two_studies=False)
    assert judged is not None
    assert judged[0] is NotAnalysedReason.TWO_FRAMES_OF_REFERENCE


def test_a_missing_frame_of_reference_is_no_second_one() -> None:
    frames = [facts(1, frame_of_reference_uid="1.2"), facts(2, frame_of_reference_uid="")]

    assert judge_patient_mix([DOE], frames, in_two_studies=False) is None
