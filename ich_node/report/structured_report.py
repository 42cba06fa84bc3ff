"""The result as DICOM Structured Reports: one content, three encodings."""

import warnings
from dataclasses import replace
from io import BytesIO
from typing import Final

import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
)

from ich_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, __version__
from ich_node.errors import ReportError
from ich_node.records import ReportRequest, ResultObject
from ich_node.report import codes, wording
from ich_node.report.content import MANUFACTURER, MODEL_NAME, report_content
from ich_node.report.identity import (
    device_serial_number,
    result_series_instance_uid,
    result_sop_instance_uid,
)
from ich_node.report.references import evidence_item, predecessor_item
from ich_node.report.study_attributes import (
    patient_digest,
    referenced_request,
    source_timezone,
    study_attributes,
)

KIND: Final = "SR"
SERIES_NUMBER: Final = 9901
SERIES_DESCRIPTION: Final = "AI hemorrhage triage report (research)"
ENCODINGS: Final = (
    ("Comprehensive3DSR", Comprehensive3DSRStorage),
    ("ComprehensiveSR", ComprehensiveSRStorage),
    ("EnhancedSR", EnhancedSRStorage),
)
"""Name and SOP class, the preferred one first; the others are for peers that do not accept it."""


def build_reports(request: ReportRequest) -> tuple[ResultObject, ...]:
    """Build the report once and encode it as Comprehensive 3D SR, Comprehensive SR and Enhanced SR.

    The same request always gives the same bytes.

    Raises: ReportError where there is no image, the finding names a slice that is not among the images, or it is
    withdrawn and still says something.
    """
    if not request.study.evidence:
        raise ReportError("a report needs the header of at least one image")
    if request.finding.withdrawn and request.finding.triage is not None:
        raise ReportError("a finding that is withdrawn has no triage")
    # pydicom's warnings about odd source values quote them, and they are patient data
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        document = _document(request)
        return tuple(_encode(document, request, encoding, sop_class_uid) for encoding, sop_class_uid in ENCODINGS)


def _document(request: ReportRequest) -> Dataset:
    """Build all attributes but those that differ between the encodings.

    Written out rather than taken from highdicom's document classes: they refuse headers without a Study ID or with an
    unusual sex, and stamp the current time.
    """
    source = request.study.speaker
    document = study_attributes(source)
    document.StudyInstanceUID = request.study.study_instance_uid
    # one Timezone Offset From UTC holds for all dates and times of an object, those copied from the images included
    zone = source_timezone(source) or request.created_at.tzinfo
    request = replace(request, created_at=request.created_at.astimezone(zone))
    for part in (_series(request, document), _equipment(request), _general(request)):
        document.update(part)
    request_item = referenced_request(source)
    if request_item is not None:
        document.ReferencedRequestSequence = [request_item]
    document.update(report_content(request))
    return document


def _series(request: ReportRequest, study: Dataset) -> Dataset:
    """Build the SR Document Series module (PS3.3 C.17.1).

    Every revision lies in the same series and must agree on its attributes. So the date is that of the study, the only
    one that no revision changes, and a test model's reports have a series of their own.
    """
    patient = patient_digest(request.study.speaker)
    series = Dataset()
    series.Modality = "SR"
    series.SeriesNumber = SERIES_NUMBER
    if study.StudyDate:
        series.SeriesDate = study.StudyDate
        series.SeriesTime = study.StudyTime
    if request.finding.test_model:
        kind = f"{KIND} {wording.TEST_MODEL}"
        series.SeriesInstanceUID = result_series_instance_uid(request.identity, kind, patient)
        series.SeriesDescription = f"{wording.TEST_MODEL} {SERIES_DESCRIPTION}"
    else:
        series.SeriesInstanceUID = result_series_instance_uid(request.identity, KIND, patient)
        series.SeriesDescription = SERIES_DESCRIPTION
    series.ReferencedPerformedProcedureStepSequence = []
    return series


def _equipment(request: ReportRequest) -> Dataset:
    equipment = Dataset()
    equipment.Manufacturer = MANUFACTURER
    equipment.ManufacturerModelName = MODEL_NAME
    equipment.DeviceSerialNumber = device_serial_number(request.identity.installation_uid)
    equipment.SoftwareVersions = __version__
    return equipment


def _general(request: ReportRequest) -> Dataset:
    """Build the SR Document General and SOP Common modules (PS3.3 C.17.2, C.12.1)."""
    general = Dataset()
    general.InstanceNumber = request.identity.revision
    general.ContentDate = general.InstanceCreationDate = request.created_at.strftime("%Y%m%d")
    general.ContentTime = general.InstanceCreationTime = request.created_at.strftime("%H%M%S.%f")
    general.TimezoneOffsetFromUTC = request.created_at.strftime("%z")[:5]
    missing = wording.completion_flag_description(request.finding)
    general.CompletionFlag = "PARTIAL" if missing else "COMPLETE"
    if missing:
        general.CompletionFlagDescription = missing
    general.VerificationFlag = "UNVERIFIED"
    general.PreliminaryFlag = "PRELIMINARY"
    general.PerformedProcedureCodeSequence = []
    general.CodingSchemeIdentificationSequence = codes.coding_schemes()
    general.CurrentRequestedProcedureEvidenceSequence = [evidence_item(request.study)]
    return general


def _encode(document: Dataset, request: ReportRequest, encoding: str, sop_class_uid: UID) -> ResultObject:
    encoded = Dataset()
    encoded.update(document)
    encoded.SOPClassUID = sop_class_uid
    encoded.SOPInstanceUID = result_sop_instance_uid(request.identity, KIND, encoding)
    before = predecessor_item(request, encoding)
    if before is not None:
        encoded.PredecessorDocumentsSequence = [before]
    encoded.file_meta = _file_meta(encoded)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, encoded, enforce_file_format=True)
    return ResultObject(
        kind=KIND,
        encoding=encoding,
        sop_class_uid=str(sop_class_uid),
        sop_instance_uid=str(encoded.SOPInstanceUID),
        series_instance_uid=str(encoded.SeriesInstanceUID),
        part10=buffer.getvalue(),
    )


def _file_meta(encoded: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = encoded.SOPClassUID
    meta.MediaStorageSOPInstanceUID = encoded.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta
