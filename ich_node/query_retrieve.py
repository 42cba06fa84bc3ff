"""Query SCU: how many instances of a series a PACS holds, and which studies of a patient (PS3.4 C.4.1)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.dsutils import encode

from ich_node.association import Patience, associate
from ich_node.errors import DestinationRefuses, DestinationUnavailable
from ich_node.records import Destination, EarlierStudies

STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
SERIES_KEYS: Final = ("QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "NumberOfSeriesRelatedInstances")
STUDY_KEYS: Final = (
    "QueryRetrieveLevel", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate",
    "StudyTime", "ModalitiesInStudy",
)  # fmt: skip
QUERY_SYNTAX: Final = str(ExplicitVRLittleEndian)
"""In which ``Asked`` is told of a query."""
IMAGE_KEYS: Final = ("QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

Asked = Callable[[bytes], None]
"""Is told the identifier of each query before it is sent, encoded in ``QUERY_SYNTAX``."""

_SUCCESS: Final = 0x0000
_PENDING: Final = (0xFF00, 0xFF01)
_REFUSED: Final = (0x0122, 0x0124, 0xA900)
"""SOP Class not supported, not authorised, identifier does not match SOP Class (PS3.4 C.4.1.1.4, PS3.7 C.5)."""
_DATE: Final = re.compile(r"\d{8}")
_LONGEST_S: Final = 15.0
"""For all answers about a patient together."""
_MOST_ANSWERS: Final = 20_000
"""More than a series can have: a PACS that sends them ignores our keys."""


def count_instances(
    destination: Destination, ae_title: str, study_instance_uid: str, series_instance_uid: str, patience: Patience,
    asked: Asked = lambda _identifier: None,
) -> int | None:  # fmt: skip
    """Ask how many instances a series has; None where the PACS does not know it.

    Asks at SERIES level; where the PACS leaves the number out, which is an optional key, its answers at IMAGE level are
    counted.

    Raises:
        DestinationUnavailable: no connection, an abort, or no complete answer in time.
        DestinationRefuses: it rejects the association, or answers no such query.
    """
    uids = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series_instance_uid}
    with associate(destination, ae_title, [STUDY_ROOT_FIND], patience) as association:
        query = _identifier(SERIES_KEYS, QueryRetrieveLevel="SERIES", **uids)
        found = _find(association, query, asked)
        known = [one for one in found if _text(one, "SeriesInstanceUID") == series_instance_uid]
        if not known:
            return None
        return max(map(_number, known)) or _count_images(association, uids, asked) or None


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
    study = StudyOfPatient(*(_text(header, keyword) for keyword in keys))
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
    query = _identifier(
        STUDY_KEYS, QueryRetrieveLevel="STUDY", PatientID=study.patient_id, ModalitiesInStudy="CT",
        IssuerOfPatientID=study.issuer_of_patient_id, StudyDate=f"-{study.study_date}",
    )  # fmt: skip
    if not study.patient_id.isascii():
        query.SpecificCharacterSet = "ISO_IR 192"
    earlier: dict[str, str] = {}
    in_doubt = False
    until = time.monotonic() + _LONGEST_S
    with associate(destination, ae_title, [STUDY_ROOT_FIND], patience) as association:
        for match in _find(association, query, asked):
            if time.monotonic() > until:
                association.abort()
                raise DestinationUnavailable("the answers to the C-FIND do not end in time")
            says = _judge(match, study)
            in_doubt |= says == "in doubt"
            if says == "earlier":
                earlier[_text(match, "StudyInstanceUID")] = _date(match)
    return EarlierStudies(len(earlier), max(earlier.values(), default="")) if earlier or not in_doubt else None


def _judge(match: Dataset, study: StudyOfPatient) -> Literal["earlier", "not earlier", "in doubt"]:
    """Say what one answer is: an earlier CT study of this patient, or not, or not to be told."""
    uid, date, modalities = _text(match, "StudyInstanceUID"), _date(match), _values(match, "ModalitiesInStudy")
    if uid == study.study_instance_uid or (modalities and "CT" not in modalities) or date > study.study_date:
        return "not earlier"
    if not (_is_of(match, study) and uid and modalities and date):
        return "in doubt"
    if date < study.study_date:
        return "earlier"
    time_then, time_now = _text(match, "StudyTime"), study.study_time
    if not (time_then and time_now):
        return "in doubt"
    return "earlier" if time_then < time_now else "not earlier"


def _is_of(match: Dataset, study: StudyOfPatient) -> bool:
    """The same PatientID, and nothing that says somebody else."""
    issuer, birth_date = _text(match, "IssuerOfPatientID"), _text(match, "PatientBirthDate")
    return (
        _text(match, "PatientID") == study.patient_id
        and (not issuer or not study.issuer_of_patient_id or issuer == study.issuer_of_patient_id)
        and (not birth_date or not study.patient_birth_date or birth_date == study.patient_birth_date)
    )


def _date(match: Dataset) -> str:
    """Empty where it is none."""
    date = _text(match, "StudyDate").replace(".", "")
    return date if _DATE.fullmatch(date) else ""


def _values(match: Dataset, keyword: str) -> list[str]:
    value = match.get(keyword) or []
    return [value] if isinstance(value, str) else [str(one) for one in value]


def _count_images(association: Association, uids: dict[str, str], asked: Asked) -> int:
    query = _identifier(IMAGE_KEYS, QueryRetrieveLevel="IMAGE", **uids)
    series_instance_uid = uids["SeriesInstanceUID"]
    of_the_series = (
        one for one in _find(association, query, asked) if _text(one, "SeriesInstanceUID") in ("", series_instance_uid)
    )
    return len({_text(one, "SOPInstanceUID") for one in of_the_series} - {""})


def _identifier(keys: tuple[str, ...], **values: str) -> Dataset:
    identifier = Dataset()
    for keyword in keys:
        setattr(identifier, keyword, values.get(keyword, ""))
    return identifier


def _find(association: Association, identifier: Dataset, asked: Asked) -> Iterator[Dataset]:
    """Give the matches of one C-FIND. Ends by itself only where all of them came."""
    asked(encode(identifier, is_implicit_vr=False, is_little_endian=True) or b"")
    try:
        for number, (response, match) in enumerate(association.send_c_find(identifier, STUDY_ROOT_FIND)):
            status = response.get("Status")
            if status == _SUCCESS:
                return
            _check_status(status)
            if match is None or number >= _MOST_ANSWERS:
                association.abort()
                raise DestinationUnavailable("the answers to the C-FIND cannot be read, or do not end")
            yield match
    except (RuntimeError, OSError) as error:
        raise DestinationUnavailable("the association ended before the C-FIND was sent") from error
    raise DestinationUnavailable("the C-FIND was not answered to its end")


def _check_status(status: int | None) -> None:
    """Let pending answers pass (PS3.4 C.4.1.1.4)."""
    if status is None:
        raise DestinationUnavailable("the PACS aborted or did not answer the C-FIND in time")
    if status in _REFUSED:
        raise DestinationRefuses(f"the C-FIND was refused with status 0x{status:04X}")
    if status not in _PENDING:
        raise DestinationUnavailable(f"the C-FIND failed with status 0x{status:04X}")


def _number(match: Dataset) -> int:
    """Read NumberOfSeriesRelatedInstances; 0 where it is absent, empty or no number."""
    try:
        return max(0, int(match.get("NumberOfSeriesRelatedInstances") or 0))
    except (ValueError, TypeError):
        return 0


def _text(match: Dataset, keyword: str) -> str:
    return str(match.get(keyword) or "").strip(" \0")
