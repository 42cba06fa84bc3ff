"""Studies of patients: whose a study is, as its images say."""

from __future__ import annotations

from pydicom import Dataset
from sqlalchemy import select, update

from ich_node.database import SeriesRow, StudyRow
from ich_node.decode.identity import patient_marks
from tests.alerting import AlertingSite


def marks_of(patient_id: str, issuer: str, birth_date: str) -> dict[str, str | None]:
    """Columns of a series that say whose it is, by the header of an image."""
    header = Dataset()
    header.PatientID, header.IssuerOfPatientID, header.PatientBirthDate = patient_id, issuer, birth_date
    marks = patient_marks(header)
    return {"patient_mark": marks.patient_id or None, "birth_mark": marks.patient_birth_date or None}


def of_patient(site: AlertingSite, uid: str, patient_id: str = "4711") -> None:
    """Note of a study whose it is, as the worker does when it has read an image."""
    study = select(StudyRow.id).where(StudyRow.study_instance_uid == uid).scalar_subquery()
    values = marks_of(patient_id, "A", "19500102")
    with site.box.database.writing() as connection:
        connection.execute(update(SeriesRow).where(SeriesRow.study_id == study).values(values))
