"""What a result takes over from the headers of the images, so that all instances of a study agree.

Real headers hold dates that are none, names in a character set nobody declared, ages without a unit. A result must not
fail on them: what has the form of its value representation is copied, the rest is left out, or written empty where an
attribute is type 2. Nothing here is logged, since a message about a value would quote patient data.
"""

import json
import re
import struct
import warnings
from collections.abc import Iterable, Sequence
from datetime import timedelta, timezone
from hashlib import sha256
from typing import Final

from pydicom import DataElement, Dataset, config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.valuerep import validate_value

PATIENT_IDENTITY: Final = ("PatientName", "PatientID", "IssuerOfPatientID")
IDENTIFYING: Final = (*PATIENT_IDENTITY, "AccessionNumber", "StudyID")
"""A PACS matches on these, so they are kept as they came even where they are longer than allowed."""

TYPE_2: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)
"""Written empty where the source has no value (PS3.3 C.7.1.1, C.7.2.1)."""

OPTIONAL: Final = (
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientBirthTime",
    "EthnicGroup",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyDescription",
    "ProcedureCodeSequence",
    "IssuerOfAccessionNumberSequence",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
)
"""Of the modules Patient, General Study and Patient Study; histories and comments stay with the images."""

UNREADABLE_VALUE: Final = (ValueError, TypeError, ArithmeticError, NotImplementedError, OSError, EOFError, struct.error)
"""What pydicom raises for a value that cannot be read as its value representation."""


def study_attributes(source: Dataset) -> Dataset:
    """Copy patient and study of one image header, with its character set; type 2 attributes are always there."""
    attributes = Dataset()
    character_set = source_character_set(source)
    if character_set:
        attributes.SpecificCharacterSet = character_set
    for keyword in (*TYPE_2, *OPTIONAL):
        element = valid_element(source, keyword)
        if element is not None:
            attributes.add(element)
        elif keyword in TYPE_2:
            setattr(attributes, keyword, None)
    _mend_conditions(attributes)
    return attributes


def source_character_set(source: Dataset) -> list[str]:
    """Return the values of Specific Character Set; empty where it is absent, UTF-8 where they are unknown."""
    declared = source.get("SpecificCharacterSet")
    if not declared:
        return []
    values = [declared] if isinstance(declared, str) else [str(value or "") for value in declared]
    return values if all(value in python_encoding for value in values) else ["ISO_IR 192"]


def source_timezone(source: Dataset) -> timezone | None:
    """Return the zone that the dates and times of the source are in (PS3.3 C.12.1.1.8), None where it is silent."""
    match = re.fullmatch(r"([+-])(\d\d)([0-5]\d)", valid_text(source, "TimezoneOffsetFromUTC"))
    if match is None:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if offset > timedelta(hours=14):
        return None
    return timezone(-offset if match[1] == "-" else offset)


def referenced_request(source: Dataset) -> Dataset | None:
    """Return the item of Referenced Request Sequence (PS3.3 C.17.2), None where the source names no request.

    The source is an image, or an earlier report.
    """
    requests = _items(source, "RequestAttributesSequence") or _items(source, "ReferencedRequestSequence")
    if not requests or not valid_text(requests[0], "RequestedProcedureID"):
        return None
    item = Dataset()
    item.StudyInstanceUID = source.StudyInstanceUID
    item.ReferencedStudySequence = []
    item.RequestedProcedureCodeSequence = []
    for keyword in ("PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest"):
        number = valid_element(requests[0], keyword) or valid_element(source, keyword)
        setattr(item, keyword, number.value if number else None)
    accession_number = valid_element(requests[0], "AccessionNumber") or valid_element(source, "AccessionNumber")
    item.AccessionNumber = accession_number.value if accession_number else None
    for keyword in ("RequestedProcedureID", "RequestedProcedureDescription", "RequestedProcedureCodeSequence"):
        element = valid_element(requests[0], keyword)
        if element is not None:
            item.add(element)
    if "RequestedProcedureDescription" not in item:
        item.RequestedProcedureDescription = None
    return item


def content_digest(header: Dataset) -> str:
    """Return the SHA-256 of all that a report says of patient, study and request when this header speaks for them.

    The character set that they are written in makes no difference, and neither does the time zone.
    """
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        request = referenced_request(header)
        return _digest([_plain(study_attributes(header)), None if request is None else _plain(request)])


def patient_digest(header: Dataset) -> str:
    """Return the SHA-256 of whose image or report it is: name, ID and issuer of the ID."""
    elements = (valid_element(header, keyword) for keyword in PATIENT_IDENTITY)
    return _digest([None if element is None else _plain_value(element) for element in elements])


def _digest(values: list[object]) -> str:
    return sha256(json.dumps(values).encode()).hexdigest()


def _plain(attributes: Dataset) -> dict[str, object]:
    """Return a data set as text, with names and texts decoded."""
    elements = (element for element in attributes if element.keyword != "SpecificCharacterSet")
    return {element.keyword: _plain_value(element) for element in elements}


def _plain_value(element: DataElement) -> object:
    if element.VR == "SQ":
        return [_plain(item) for item in element.value]
    if element.is_empty:
        return None
    values = element.value if element.VM > 1 else [element.value]
    # PS3.5 6.2: trailing delimiters and spaces of a name mean nothing
    return [str(value).rstrip("^= " if element.VR == "PN" else " ") for value in values]


def valid_text(source: Dataset, keyword: str) -> str:
    """Return one attribute as text, empty where it is absent or has no valid form."""
    element = valid_element(source, keyword)
    return "" if element is None or element.value is None else str(element.value)


def valid_element(source: Dataset, keyword: str) -> DataElement | None:
    """Return a copy of one attribute; None where it is absent, empty or has no valid form."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    try:
        element = source[tag]
        vr = dictionary_VR(tag)
        if vr == "SQ":
            return _valid_sequence(element)
        if element.is_empty:
            return None
        if keyword not in IDENTIFYING:
            _check(vr, element)
        return DataElement(tag, vr, element.value)
    except KeyError:
        return None
    except UNREADABLE_VALUE:
        return None


def _check(vr: str, element: DataElement) -> None:
    if element.VM != 1 and element.keyword != "OtherPatientNames":
        raise ValueError("more than one value")
    values = element.value if element.VM > 1 else [element.value]
    for value in values:
        validate_value(vr, str(value), config.RAISE)


def _valid_sequence(element: DataElement) -> DataElement | None:
    if element.VR != "SQ" or not element.value:
        return None
    items = [_valid_item(item) for item in element.value]
    return DataElement(element.tag, "SQ", items) if all(items) else None


def _valid_item(item: Dataset) -> Dataset | None:
    """Return a copy of an item without private attributes; None where one of its values has no valid form."""
    copy = Dataset()
    for keyword in _keywords(item):
        element = valid_element(item, keyword)
        if element is None:
            return None
        copy.add(element)
    return copy if len(copy) else None


def _keywords(item: Dataset) -> Iterable[str]:
    return [element.keyword for element in item if element.keyword and not _is_empty(element)]


def _is_empty(element: DataElement) -> bool:
    return not element.value if element.VR == "SQ" else element.is_empty


def _items(source: Dataset, keyword: str) -> Sequence[Dataset]:
    element = valid_element(source, keyword)
    return element.value if element is not None else ()


def _mend_conditions(attributes: Dataset) -> None:
    if attributes.PatientSex not in ("M", "F", "O", None):
        attributes.PatientSex = None
    method_named = "DeidentificationMethod" in attributes or "DeidentificationMethodCodeSequence" in attributes
    if attributes.get("PatientIdentityRemoved") != "NO" and not method_named:
        # PS3.3 C.7.1.1: YES demands the method, which archives often leave out
        attributes.pop("PatientIdentityRemoved", None)
