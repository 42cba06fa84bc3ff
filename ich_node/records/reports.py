"""What a report is made of, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ich_node.records.deliveries import REPORT_KIND
from ich_node.records.findings import ModelIdentity, OtherSeriesFinding, TriageFinding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset


@dataclass(frozen=True, slots=True, eq=False)
class StudyContext:
    """The only record that holds patient data: the headers of the images a report rests on."""

    study_instance_uid: str
    evidence: tuple[Dataset, ...]
    """The images that were read, in anatomical order; at least one. Whole headers, or only what a reference needs:
    SOPClassUID, SOPInstanceUID, SeriesInstanceUID and InstanceNumber."""
    header: Dataset | None = None
    """The header that speaks for patient and study: the one received last. None: the first of ``evidence``."""

    @property
    def speaker(self) -> Dataset:
        return self.evidence[0] if self.header is None else self.header


@dataclass(frozen=True, slots=True)
class Step:
    """When something happened on the way from the first slice to the report."""

    name: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ReportReference:
    """One object of an earlier report."""

    encoding: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    kind: str = REPORT_KIND


@dataclass(frozen=True, slots=True, eq=False)
class KeySlicePicture:
    """A slice that is shown to people, with where its score comes from."""

    sop_instance_uid: str
    frame: int | None
    position_mm: float
    hu: NDArray[np.float32]
    """(rows, columns), in Hounsfield units: the slice itself, or the mean of its slab."""
    pixel_spacing_mm: tuple[float, float]
    """Between rows, between columns."""
    shares: NDArray[np.float32] | None
    """(rows, columns), on the grid of ``hu``: what each place adds to the logit of ``any``; nan outside of what the
    network saw. None where the model has no such maps."""
    probabilities: dict[str, float]
    """Of this slice, calibrated."""


@dataclass(frozen=True, slots=True)
class ReportIdentity:
    """What makes the UIDs of a report's objects: the same identity always gives the same UIDs."""

    installation_uid: str
    """Of this installation, "2.25." and a UUID as a decimal number (PS3.5 B.2)."""
    study_instance_uid: str
    revision: int


@dataclass(frozen=True, slots=True, eq=False)
class ReportRequest:
    """All that a report is made of."""

    identity: ReportIdentity
    study: StudyContext
    finding: TriageFinding
    model: ModelIdentity | None
    """None where no model was asked."""
    steps: tuple[Step, ...]
    created_at: datetime
    """Aware; written as ContentDate, ContentTime and TimezoneOffsetFromUTC."""
    predecessors: tuple[ReportReference, ...] = ()
    """All objects of the revision before, the report in each of its encodings; empty where there is none."""
    other_series: tuple[OtherSeriesFinding, ...] = ()
    """Series of the study that say something else than this report."""
    mode: str = ""
    """Of the node: ``live``, ``objects`` or ``shadow``; empty where a report is made without one."""


@dataclass(frozen=True, slots=True)
class ResultObject:
    """One DICOM object that the node made."""

    kind: str
    """"SR", "SUMMARY", "KEY_OBJECTS", "PRESENTATION", "KEY_SLICE_1" to "KEY_SLICE_5"."""
    encoding: str
    """Name of the SOP class, such as "Comprehensive3DSR"."""
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    part10: bytes
    """The whole file, with preamble and file meta."""
