"""Which CT studies a patient had before."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from ich_node.association import Patience, associate
from ich_node.errors import DestinationUnavailable
from ich_node.query_retrieve.asking import STUDY_ROOT_FIND, Asked, find, identifier, text_of, values_of
from ich_node.records import Destination, EarlierStudies

STUDY_KEYS: Final = (
    "QueryRetrieveLevel", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate",
    "StudyTime", "ModalitiesInStudy",
)  # fmt: skip

_DATE: Final = re.compile(r"\d{8}")
_LONGEST_S: Final = 15.0
"""For all answers about a patient together."""


@dataclass(frozen=True, slots=True)
class StudyOfPatient:
    """A study and whose it is, as one of its images says. Held in memory alone."""

    patient_id: str
    issuer_of_patient_id: str
    patient_birth_date: str
    study_instance_uid: str
    study_date: str
    """YYYYMMDD."""
    study_time: str


def read_study_of_patient(image: Path) -> StudyOfPatient | None:
    """Read from an image what is asked about; None where it cannot be read, or lacks PatientID or StudyDate."""
    keys = list(STUDY_KEYS[1:-1])
    try:
        header = dcmread(image, specific_tags=["SpecificCharacterSet", *keys], stop_before_pixels=True)
    except (OSError, InvalidDicomError):
        return None
    study = StudyOfPatient(*(text_of(header, keyword) for keyword in keys))
    return study if study.patient_id and _DATE.fullmatch(study.study_date) else None


def find_earlier_studies(
    destination: Destination, ae_title: str, study: StudyOfPatient, patience: Patience,
    asked: Asked = lambda _identifier: None,
) -> EarlierStudies | None:  # fmt: skip
    """Ask which CT studies a patient had before; None where the answers do not tell.

    Only an answer with the same PatientID, and with no other issuer or birth date, is of this patient. Where answers
    leave open whose study it is, from when or of what modality, having found none means nothing.

    Raises:
        DestinationUnavailable: no connection, an abort, or no complete answer in time.
        DestinationRefuses: it rejects the association, or answers no such query.
    """
    query = identifier(
        STUDY_KEYS, QueryRetrieveLevel="STUDY", PatientID=study.patient_id, ModalitiesInStudy="CT",
        IssuerOfPatientID=study.issuer_of_patient_id, StudyDate=f"-{study.study_date}",
    )  # fmt: skip
    earlier: dict[str, str] = {}
    in_doubt = False
    until = time.monotonic() + _LONGEST_S
    with associate(destination, ae_title, [STUDY_ROOT_FIND], patience) as association:
        for match in find(association, query, asked):
            if time.monotonic() > until:
                association.abort()
                raise DestinationUnavailable("the answers to the C-FIND do not end in time")
            says = _judge(match, study)
            in_doubt |= says == "in doubt"
            if says == "earlier":
                earlier[text_of(match, "StudyInstanceUID")] = _date(match)
    return EarlierStudies(len(earlier), max(earlier.values(), default="")) if earlier or not in_doubt else None


def _judge(match: Dataset, study: StudyOfPatient) -> Literal["earlier", "not earlier", "in doubt"]:
    """Say what one answer is: an earlier CT study of this patient, or not, or not to be told."""
    uid, date, modalities = text_of(match, "StudyInstanceUID"), _date(match), values_of(match, "ModalitiesInStudy")
    if uid == study.study_instance_uid or (modalities and "CT" not in modalities) or date > study.study_date:
        return "not earlier"
    if not (_is_of(match, study) and uid and modalities and date):
        return "in doubt"
    if date < study.study_date:
        return "earlier"
    time_then, time_now = text_of(match, "StudyTime"), study.study_time
    if not (time_then and time_now):
        return "in doubt"
    return "earlier" if time_then < time_now else "not earlier"


def _is_of(match: Dataset, study: StudyOfPatient) -> bool:
    """The same PatientID, and nothing that says somebody else."""
    issuer, birth_date = text_of(match, "IssuerOfPatientID"), text_of(match, "PatientBirthDate")
    return (
        text_of(match, "PatientID") == study.patient_id
        and (not issuer or not study.issuer_of_patient_id or issuer == study.issuer_of_patient_id)
        and (not birth_date or not study.patient_birth_date or birth_date == study.patient_birth_date)
    )


def _date(match: Dataset) -> str:
    """Empty where it is none."""
    date = text_of(match, "StudyDate").replace(".", "")
    return date if _DATE.fullmatch(date) else ""
