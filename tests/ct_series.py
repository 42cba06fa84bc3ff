"""A small valid CT series, and the findings and requests that reports are tested with."""

import warnings
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import DataElement
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ich_node import triage
from ich_node.records import (
    HEMORRHAGE_CLASSES,
    ClassThresholds,
    Completeness,
    Gap,
    ModelIdentity,
    NotAnalysedReason,
    PlaneMember,
    Presence,
    ReportIdentity,
    ReportRequest,
    SliceProbability,
    Step,
    StudyContext,
    Triage,
    TriageFinding,
)

STUDY = "2.25.101"
INSTALLATION = "2.25.329800735698586629295641978511506172918"
MODEL = ModelIdentity("ich-irv2", "1.0.0", "ab" * 32, trained=True, backbone="inception_resnet_v2")
CREATED = datetime(2026, 3, 2, 14, 5, 12, 345000, tzinfo=UTC)
STEPS = (
    Step("first slice received", datetime(2026, 3, 2, 14, 4, 51, 120000, tzinfo=UTC)),
    Step("last slice received", datetime(2026, 3, 2, 14, 5, 1, 7000, tzinfo=UTC)),
    Step("concluded", datetime(2026, 3, 2, 14, 5, 11, 998000, tzinfo=UTC)),
)


def ct_slice(number: int, **changes: Any) -> Dataset:
    """Return one valid CT slice of 16 x 16 pixels; ``changes`` replace attributes, None removes one."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"{STUDY}.1.{number}"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260302"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "150030"
    ds.AccessionNumber, ds.Modality = "ACC0001", "CT"
    ds.Manufacturer, ds.ReferringPhysicianName = "SynthCT", "Ref^Erring"
    ds.StudyDescription, ds.SeriesDescription = "CT HEAD W/O CONTRAST", "AXIAL 5MM"
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = "Doe^Jane", "PID0001", "HOSPITAL"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19600101", "F", "066Y"
    ds.BodyPartExamined, ds.SliceThickness, ds.KVP, ds.PatientPosition = "HEAD", "5", "120", "HFS"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, f"{STUDY}.1"
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = "1", 2, 1, number
    ds.ImagePositionPatient = [-125.0, -125.0, 5.0 * number]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = f"{STUDY}.2", "OM"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = 16
    ds.PixelSpacing = [10, 10]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "HU"
    ds.PixelData = np.full((16, 16), 30, "<i2").tobytes()
    for keyword, value in changes.items():
        if keyword in ds:
            delattr(ds, keyword)
        if value is not None:
            tag = Tag(keyword)
            ds[tag] = DataElement(tag, dictionary_VR(tag), value, validation_mode=pydicom.config.IGNORE)
    return ds


def encoded(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A data set as it goes over the network."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == ImplicitVRLittleEndian
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are odd on purpose
        write_dataset(buffer, ds)
    return buffer.getvalue()


def as_file(ds: Dataset) -> bytes:
    """Return a data set as the bytes of a DICOM file."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def headers(count: int = 12, **changes: Any) -> tuple[Dataset, ...]:
    """Return a series as the worker reads it: from its bytes, without pixels."""
    return tuple(read_header(as_file(ct_slice(number, **changes))) for number in range(1, count + 1))


def read_header(source: bytes | Path) -> Dataset:
    """Read a header without pixels."""
    return pydicom.dcmread(BytesIO(source) if isinstance(source, bytes) else source, stop_before_pixels=True)


def make_request(evidence: tuple[Dataset, ...], finding: TriageFinding, **changes: Any) -> ReportRequest:
    """Return a request for a report on these images."""
    study = StudyContext(str(evidence[0].StudyInstanceUID), evidence)
    identity = ReportIdentity(INSTALLATION, study.study_instance_uid, revision=1)
    return replace(ReportRequest(identity, study, finding, MODEL, STEPS, CREATED), **changes)


def positive(evidence: tuple[Dataset, ...]) -> TriageFinding:
    """Return a finding with two subtypes present, one indeterminate and two absent."""
    percentages = {"any": 97, "epidural": 4, "intraparenchymal": 93, "intraventricular": 61, "subarachnoid": 31}
    return _finding(evidence, Triage.POSITIVE, {**percentages, "subdural": 8})


def indeterminate(evidence: tuple[Dataset, ...]) -> TriageFinding:
    """Return a finding between the thresholds."""
    return _finding(evidence, Triage.INDETERMINATE, dict.fromkeys(HEMORRHAGE_CLASSES, 12) | {"any": 34})


def negative(evidence: tuple[Dataset, ...]) -> TriageFinding:
    """Return a finding below all thresholds."""
    return _finding(evidence, Triage.NEGATIVE, dict.fromkeys(HEMORRHAGE_CLASSES, 2))


def incomplete(evidence: tuple[Dataset, ...]) -> TriageFinding:
    """Return a finding whose probability is that of a negative one, with slices missing."""
    missing = Completeness(tuple(Gap(-12.0 + 14 * n, 3.0 + 14 * n) for n in range(8)), unreadable=2)
    finding = _finding(evidence, Triage.INDETERMINATE, dict.fromkeys(HEMORRHAGE_CLASSES, 2))
    return replace(finding, completeness=missing, presence={**finding.presence, "any": Presence.INDETERMINATE})


def not_analysed(reason: NotAnalysedReason = NotAnalysedReason.NOT_AXIAL, detail: str = "") -> TriageFinding:
    """Return a finding without a result, as the node makes it."""
    return triage.not_analysed(reason, detail, Completeness())


def withdrawn(reason: NotAnalysedReason = NotAnalysedReason.TWO_PATIENTS) -> TriageFinding:
    """Return the finding that takes an earlier one back."""
    return replace(not_analysed(reason), withdrawn=True)


def in_slabs(evidence: tuple[Dataset, ...]) -> TriageFinding:
    """Return a positive finding on slabs of three slices, each named after its middle one."""
    members = [PlaneMember(str(one.SOPInstanceUID), None, float(number)) for number, one in enumerate(evidence)]
    finding = positive(evidence[1::3])
    slabs = {
        one.sop_instance_uid: replace(
            one, position_mm=members[start + 1].position_mm, members=tuple(members[start:end])
        )
        for one, start, end in zip(finding.slices, range(0, 99, 3), range(3, 99, 3), strict=False)
    }
    return _with_slices(finding, slabs)


def in_frames(evidence: tuple[Dataset, ...], count: int = 12) -> TriageFinding:
    """Return a positive finding on the frames of the first object."""
    finding = positive(headers(count))
    uid = str(evidence[0].SOPInstanceUID)
    frames = {
        one.sop_instance_uid: replace(one, sop_instance_uid=uid, frame=number)
        for number, one in enumerate(finding.slices, start=1)
    }
    return _with_slices(finding, frames)


def minimal(header: Dataset) -> Dataset:
    """Return what a report needs of an image to refer to it."""
    reference = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "InstanceNumber"):
        reference.add(header[keyword])
    return reference


def untrained(evidence: tuple[Dataset, ...]) -> TriageFinding:
    """Return what an untrained model leads to: scores that nobody may read."""
    scored = positive(evidence)
    return replace(
        scored,
        triage=None,
        presence=dict.fromkeys(HEMORRHAGE_CLASSES, Presence.UNDETERMINED),
        reason=NotAnalysedReason.UNTRAINED_MODEL,
    )


def _with_slices(finding: TriageFinding, slices: dict[str, SliceProbability]) -> TriageFinding:
    """Replace every slice of a finding; ``slices`` are keyed by the SOP Instance UID they had."""
    key_slices = {
        name: tuple(slices[one.sop_instance_uid] for one in best) for name, best in finding.key_slices.items()
    }
    return replace(finding, slices=tuple(slices.values()), key_slices=key_slices)


def _finding(evidence: tuple[Dataset, ...], triage: Triage, percentages: dict[str, int]) -> TriageFinding:
    probabilities = {name: value / 100 for name, value in percentages.items()}
    slices = tuple(
        SliceProbability(str(header.SOPInstanceUID), None, 5.0 * number, _peaked(probabilities, number, len(evidence)))
        for number, header in enumerate(evidence)
    )
    best = sorted(slices, key=lambda one: -one.probabilities["any"])[:3]
    return TriageFinding(
        triage=triage,
        presence={name: _presence(value) for name, value in probabilities.items()},
        probabilities=probabilities,
        thresholds=dict.fromkeys(HEMORRHAGE_CLASSES, ClassThresholds(0.2, 0.5)),
        slices=slices,
        key_slices=dict.fromkeys(HEMORRHAGE_CLASSES, tuple(best)),
    )


def _peaked(probabilities: dict[str, float], number: int, count: int) -> dict[str, float]:
    weight = 1 - abs(number - count / 3) / count
    return {name: value * weight for name, value in probabilities.items()}


def _presence(probability: float) -> Presence:
    if probability < 0.2:
        return Presence.ABSENT
    return Presence.PRESENT if probability >= 0.5 else Presence.INDETERMINATE
