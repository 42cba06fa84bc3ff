"""The values that flow from stage to stage, and the states they pass through.

Arrays are always (slices, rows, columns); lengths carry ``_mm``, times ``_s``, Hounsfield units ``_hu``.
Attribute names are DICOM keywords in snake_case.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset

HEMORRHAGE_CLASSES: Final = (
    "any",
    "epidural",
    "intraparenchymal",
    "intraventricular",
    "subarachnoid",
    "subdural",
)
"""Order of every six-vector in this package; a model bundle must declare the same."""


CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2.1"
ANALYSED_SOP_CLASSES: Final = (CT_IMAGE_STORAGE, ENHANCED_CT_IMAGE_STORAGE)
"""Instances of every other class are kept, and never decoded."""


# ---------------------------------------------------------------------------------------------- states


class InstanceState(StrEnum):
    """What became of one SOP instance."""

    RECEIVED = "RECEIVED"
    DECODED = "DECODED"
    UNREADABLE = "UNREADABLE"
    NOT_NEEDED = "NOT_NEEDED"


class SeriesState(StrEnum):
    """Where a series stands. A new slice reopens every state but QUARANTINED."""

    RECEIVING = "RECEIVING"
    COMPLETE = "COMPLETE"
    CONCLUDED = "CONCLUDED"
    NOT_ANALYSED = "NOT_ANALYSED"
    FAILED = "FAILED"
    QUARANTINED = "QUARANTINED"
    REJECTED = "REJECTED"


class DeliveryState(StrEnum):
    """Where one outbox row stands."""

    PENDING = "PENDING"
    SENDING = "SENDING"
    DELIVERED = "DELIVERED"
    COMMITTED = "COMMITTED"
    HELD = "HELD"
    SUPERSEDED = "SUPERSEDED"
    DEAD = "DEAD"


class Triage(StrEnum):
    """The answer for a series or a study. There is no answer where it is None."""

    POSITIVE = "positive"
    INDETERMINATE = "indeterminate"
    NEGATIVE = "negative"


class Presence(StrEnum):
    """What is said of one hemorrhage class."""

    PRESENT = "present"
    INDETERMINATE = "indeterminate"
    ABSENT = "absent"
    UNDETERMINED = "undetermined"


class NotAnalysedReason(Enum):
    """Why there is no result, in words for the person who asks."""

    text: str

    NOT_CT = "not a CT image"
    LOCALIZER = "a localizer (scout) image"
    SECONDARY = "a derived or secondary image, not an original CT slice"
    NOT_AXIAL = "not axial"
    TOO_FEW_SLICES = "fewer than 10 slices"
    NOT_HEAD = "the header names another body part than the head"
    NO_BRAIN_FOUND = "no brain found: the Hounsfield values cannot be those of a head"
    NO_PIXEL_DATA = "the object holds no image"
    GEOMETRY_MISSING = "position or orientation of the slices is missing"
    CANNOT_DECODE = "the image cannot be decoded"
    DECODE_CRASHED = "the decoder crashed on this image"
    DECODE_TIMEOUT = "decoding took longer than allowed"
    TOO_LARGE = "the image is larger than allowed"
    NOT_DICOM = "not a DICOM file, or a damaged one"
    NO_READABLE_SLICE = "no slice of the series could be read"
    ANALYSIS_FAILED = "the analysis failed"
    UNTRAINED_MODEL = "untrained model, no finding"
    IMAGES_DELETED = "the images were deleted after their retention time"

    def __init__(self, text: str) -> None:
        self.text = text


# ------------------------------------------------------------------------------------------- reception


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """One SOP instance whose bytes are safe in the spool."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    sha256: str
    """Of the data set as it came over the network, without preamble and file meta."""
    size_bytes: int
    path: str
    """Relative to the state folder; chosen by the node, never taken from the object."""
    calling_ae_title: str
    remote_address: str


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An instance row as the worker sees it."""

    id: int
    sop_instance_uid: str
    sop_class_uid: str
    path: str


@dataclass(frozen=True, slots=True)
class SeriesJob:
    """A series this worker holds the lease of."""

    id: int
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    calling_ae_title: str
    remote_address: str
    attempts: int
    first_received_at: datetime
    last_received_at: datetime
    due: bool
    """True when the series may be closed: its quiet time or longest wait has passed."""
    last_chance: bool
    """True when ``max_wait_s`` has passed since the last slice: close it whatever is missing."""


class Reception(Enum):
    """What a received instance meant for the node."""

    NEW = "new"
    VERSION = "another version of a known instance"
    DUPLICATE = "the same bytes again"
    OWN_RESULT = "an object that this node made"
    KEPT_ONLY = "stored, but its study was analysed and deleted before: nothing starts without requeue"


# -------------------------------------------------------------------------------------- images and planes


@dataclass(frozen=True, slots=True)
class TissueMeasure:
    """What the Hounsfield values of one slice consist of; fractions of all pixels, 0 to 1."""

    body_fraction: float
    """Above -300 HU: head, holder, table."""
    brain_fraction: float
    """0 to 80 HU, of the pixels above -300 HU."""
    bone_fraction: float
    """Above 300 HU, of the pixels above -300 HU."""
    lung_or_fat_fraction: float
    """-950 to -300 HU inside the body's outline, of all pixels inside it: lungs, not paranasal air."""
    brain_median_hu: float
    """Median of the pixels from -20 to 150 HU that lie inside bone, else of all such pixels; NaN if none."""


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """What the header and the pixels tell of one slice or frame. Holds no patient data."""

    sop_instance_uid: str
    frame: int | None
    """Frame number from 1 in a multi-frame object, None otherwise (PS3.3 C.7.6.6)."""
    sop_class_uid: str
    modality: str
    image_type: tuple[str, ...]
    image_position_patient: tuple[float, float, float] | None
    image_orientation_patient: tuple[float, float, float, float, float, float] | None
    pixel_spacing_mm: tuple[float, float] | None
    """Row spacing, column spacing."""
    slice_thickness_mm: float | None
    rows: int
    columns: int
    instance_number: int | None
    convolution_kernel: str
    names_head: bool
    """A header text (body part, study, series or protocol description) names head, brain, skull ..."""
    names_other_body_part: bool
    """A header text names chest, abdomen ... and none names the head."""
    tissue: TissueMeasure | None
    repairs: tuple[str, ...] = ()
    """Named repairs that decoding made, such as "12-bit wrap"."""


@dataclass(frozen=True, slots=True, eq=False)
class HounsfieldSlice:
    """One slice in Hounsfield units with its identity."""

    facts: SliceFacts
    hu: NDArray[np.float32]
    """(rows, columns)."""


HounsfieldSlices = tuple[HounsfieldSlice, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PlaneScore:
    """What the slice network said of one plane."""

    sop_instance_uid: str
    frame: int | None
    position_mm: float
    """Along the slice normal."""
    logits: tuple[float, ...]
    """Six, in the order of HEMORRHAGE_CLASSES; uncalibrated."""
    embedding: NDArray[np.float16]
    """(embedding,)."""


PlaneScores = tuple[PlaneScore, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredInstance:
    """What decoding and scoring made of one stored instance; saved in one transaction."""

    instance_id: int
    state: InstanceState
    facts: tuple[SliceFacts, ...] = ()
    planes: PlaneScores = ()
    reason: NotAnalysedReason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class SeriesContent:
    """Everything known of a series when it is to be concluded."""

    facts: tuple[SliceFacts, ...]
    """Of every slice whose header could be read, analysed or not."""
    planes: PlaneScores
    instances: tuple[StoredInstance, ...]
    """Current instances whose file is there."""
    unreadable: int = 0
    declined: tuple[NotAnalysedReason, ...] = ()
    """Reasons of the slices that are not needed."""
    waiting: int = 0
    """Instances not yet decoded."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch along the slice normal where slices are missing."""

    from_mm: float
    to_mm: float


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether the positions of a series leave no gap."""

    gaps: tuple[Gap, ...] = ()
    unreadable: int = 0
    """Slices that arrived and could not be decoded."""

    @property
    def complete(self) -> bool:
        return not self.gaps and not self.unreadable


# ---------------------------------------------------------------------------------------------- findings


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model made a result."""

    name: str
    version: str
    sha256: str
    """Of the manifest, which holds the hash of every other file."""
    trained: bool
    backbone: str = ""


@dataclass(frozen=True, slots=True)
class ClassThresholds:
    """Probability below ``low`` is negative, from ``high`` on positive, between them indeterminate."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SliceProbability:
    """Calibrated probabilities of one slice."""

    sop_instance_uid: str
    frame: int | None
    position_mm: float
    probabilities: dict[str, float]


@dataclass(frozen=True, slots=True)
class TriageFinding:
    """What is said of a series: the whole content of its report but for the patient."""

    triage: Triage | None
    """None: not analysed, or an untrained model; ``reason`` then says why."""
    presence: dict[str, Presence]
    """One for each of HEMORRHAGE_CLASSES."""
    probabilities: dict[str, float]
    """Of the study, per class; empty where nothing was scored."""
    thresholds: dict[str, ClassThresholds]
    slices: tuple[SliceProbability, ...]
    """In anatomical order, along the slice normal."""
    key_slices: dict[str, tuple[SliceProbability, ...]]
    """Per class, best first."""
    completeness: Completeness = field(default_factory=Completeness)
    reason: NotAnalysedReason | None = None
    reason_detail: str = ""
    test_model: bool = False
    """The finding comes from a model that is not trained and was shown for a test only."""


# ------------------------------------------------------------------------------------------------ report


@dataclass(frozen=True, slots=True, eq=False)
class StudyContext:
    """The only record that holds patient data: the headers of the images a report rests on."""

    study_instance_uid: str
    evidence: tuple[Dataset, ...]
    """Data sets without pixels, read from disk, in anatomical order; at least one."""


@dataclass(frozen=True, slots=True)
class Step:
    """When something happened on the way from the first slice to the report."""

    name: str
    at: datetime


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


@dataclass(frozen=True, slots=True)
class ResultObject:
    """One DICOM object that the node made."""

    kind: str
    """"SR"; key objects and images come with later versions."""
    encoding: str
    """Name of the SOP class, such as "Comprehensive3DSR"."""
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    part10: bytes
    """The whole file, with preamble and file meta."""


# ---------------------------------------------------------------------------------------------- delivery


@dataclass(frozen=True, slots=True)
class Destination:
    """Where results go."""

    name: str
    ae_title: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class DeliveryObject:
    """One saved object that may be sent for a delivery."""

    sop_class_uid: str
    sop_instance_uid: str
    path: Path


@dataclass(frozen=True, slots=True)
class Delivery:
    """An outbox row this deliverer holds the lease of."""

    id: int
    study_instance_uid: str
    revision: int
    kind: str
    destination: Destination
    attempts: int
    created_at: datetime
    objects: tuple[DeliveryObject, ...]
    """The same content in several encodings, the preferred one first."""
