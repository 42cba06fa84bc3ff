"""What all objects of a result have in common: patient and study, a series for each kind, equipment, file meta."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Final

import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from ich_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, __version__
from ich_node.records import REPORT_KIND, ReportRequest, ResultObject
from ich_node.report import wording
from ich_node.report.identity import device_serial_number, result_series_instance_uid, result_sop_instance_uid
from ich_node.report.study_attributes import patient_digest, source_timezone, study_attributes

MANUFACTURER: Final = "ich-node"
MODEL_NAME: Final = "ich-node"


@dataclass(frozen=True, slots=True)
class ResultSeries:
    """The series that all revisions of one kind of object lie in."""

    kind: str
    number: int
    modality: str
    description: str


REPORT: Final = ResultSeries(REPORT_KIND, 9901, "SR", "AI hemorrhage triage report (research)")
SUMMARY: Final = ResultSeries("SUMMARY", 9902, "OT", "AI hemorrhage triage summary (research)")
KEY_SLICES: Final = ResultSeries("KEY_SLICES", 9903, "OT", "AI attention maps, not a segmentation (research)")
KEY_OBJECTS: Final = ResultSeries("KEY_OBJECTS", 9904, "KO", "AI key slices (research)")
PRESENTATION: Final = ResultSeries("PRESENTATION", 9905, "PR", "AI attention outline (research)")


@contextmanager
def odd_values_allowed() -> Iterator[None]:
    """Keep pydicom silent about odd values of the source: its warnings quote them, and they are patient data."""
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def in_zone_of_images(request: ReportRequest) -> ReportRequest:
    """State the time in the zone of the images.

    One Timezone Offset From UTC holds for all dates and times of an object, those copied from the images included.
    """
    zone = source_timezone(request.study.speaker) or request.created_at.tzinfo
    return replace(request, created_at=request.created_at.astimezone(zone))


def result_header(request: ReportRequest, series: ResultSeries) -> Dataset:
    """Build patient, study, series and equipment of one object, and when it was made.

    Args:
        request: In the zone of the images.
    """
    header = study_attributes(request.study.speaker)
    header.StudyInstanceUID = request.study.study_instance_uid
    for part in (_series(request, series, header), _equipment(request), _created(request)):
        header.update(part)
    return header


def result_object(
    content: Dataset, request: ReportRequest, kind: str, encoding: str, sop_class_uid: UID
) -> ResultObject:
    """Name one object and write it as a file; ``content`` stays as it is."""
    encoded = Dataset()
    encoded.update(content)
    encoded.SOPClassUID = sop_class_uid
    encoded.SOPInstanceUID = result_sop_instance_uid(request.identity, kind, encoding)
    encoded.file_meta = _file_meta(encoded)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, encoded, enforce_file_format=True)
    return ResultObject(
        kind=kind,
        encoding=encoding,
        sop_class_uid=str(sop_class_uid),
        sop_instance_uid=str(encoded.SOPInstanceUID),
        series_instance_uid=str(encoded.SeriesInstanceUID),
        part10=buffer.getvalue(),
    )


def _series(request: ReportRequest, series: ResultSeries, study: Dataset) -> Dataset:
    """Build the General Series module (PS3.3 C.7.3.1, C.17.1).

    Every revision lies in the same series and must agree on its attributes. So the date is that of the study, the only
    one that no revision changes, and what a test model gave has a series of its own.
    """
    patient = patient_digest(request.study.speaker)
    module = Dataset()
    module.Modality = series.modality
    module.SeriesNumber = series.number
    if study.StudyDate:
        module.SeriesDate = study.StudyDate
        module.SeriesTime = study.StudyTime
    if request.finding.test_model:
        kind = f"{series.kind} {wording.TEST_MODEL}"
        module.SeriesInstanceUID = result_series_instance_uid(request.identity, kind, patient)
        module.SeriesDescription = f"{wording.TEST_MODEL} {series.description}"
    else:
        module.SeriesInstanceUID = result_series_instance_uid(request.identity, series.kind, patient)
        module.SeriesDescription = series.description
    return module


def _equipment(request: ReportRequest) -> Dataset:
    equipment = Dataset()
    equipment.Manufacturer = MANUFACTURER
    equipment.ManufacturerModelName = MODEL_NAME
    equipment.DeviceSerialNumber = device_serial_number(request.identity.installation_uid)
    equipment.SoftwareVersions = __version__
    return equipment


def _created(request: ReportRequest) -> Dataset:
    """Say when and as which revision the object was made (PS3.3 C.12.1)."""
    created = Dataset()
    created.InstanceNumber = request.identity.revision
    created.InstanceCreationDate = request.created_at.strftime("%Y%m%d")
    created.InstanceCreationTime = request.created_at.strftime("%H%M%S.%f")
    created.TimezoneOffsetFromUTC = request.created_at.strftime("%z")[:5]
    return created


def _file_meta(encoded: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = encoded.SOPClassUID
    meta.MediaStorageSOPInstanceUID = encoded.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta
