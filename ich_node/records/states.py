"""States that things pass through, and why there is no result. The only ones; see docs/architecture.md."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final

HEMORRHAGE_CLASSES: Final = (
    "any",
    "epidural",
    "intraparenchymal",
    "intraventricular",
    "subarachnoid",
    "subdural",
)
"""Order of every six-vector in this package; a model bundle must declare the same."""


MOST_KEY_SLICES: Final = 5
"""Of a class, that are named and shown."""

CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2.2"
ANALYSED_SOP_CLASSES: Final = (
    CT_IMAGE_STORAGE,
    ENHANCED_CT_IMAGE_STORAGE,
    LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE,
)
"""Instances of every other class are kept, and never decoded."""
KEY_OBJECT_SELECTION_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.88.59"
"""Read for rejection notes."""


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


OPEN_SERIES: Final = (SeriesState.RECEIVING, SeriesState.COMPLETE)
"""States of a series that gets a result yet."""


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


TRIAGE_RANKS: Final = {None: 0, Triage.NEGATIVE: 1, Triage.INDETERMINATE: 2, Triage.POSITIVE: 3}
"""Of several answers a study keeps the one of the highest rank."""


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
    SECONDARY = "a derived or secondary image, not a CT slice"
    PROJECTION = "a projection, map or rendering, not a slice"
    NOT_AXIAL = "not axial"
    CONTRAST = "contrast agent was given"
    TOO_YOUNG = "the patient is younger than the minimum age"
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
    FILE_GONE = "the image's file is gone"
    NO_READABLE_SLICE = "no slice of the series could be read"
    OTHER_SERIES_CHOSEN = "another series of the study is analysed"
    TWO_PATIENTS = "the series holds images of two patients"
    TWO_STUDIES = "the series belongs to two studies"
    TWO_FRAMES_OF_REFERENCE = "the series has two frames of reference"
    OTHER_PIXELS = "an image's UID came again with another picture"
    UID_ELSEWHERE = "an image's UID came again in another series"
    REJECTED_QUALITY = "rejected for quality reasons"
    REJECTED_SAFETY = "rejected for patient safety reasons"
    REJECTED_WORKLIST = "rejected because of a wrong worklist entry"
    REJECTED_BY_PERSON = "rejected by a person"
    ANALYSIS_FAILED = "the analysis failed"
    UNTRAINED_MODEL = "untrained model, no finding"
    IMAGES_DELETED = "the images were deleted"

    def __init__(self, text: str) -> None:
        self.text = text


UNREADABLE_REASONS: Final = frozenset(
    {
        NotAnalysedReason.NO_PIXEL_DATA,
        NotAnalysedReason.CANNOT_DECODE,
        NotAnalysedReason.DECODE_CRASHED,
        NotAnalysedReason.DECODE_TIMEOUT,
        NotAnalysedReason.TOO_LARGE,
        NotAnalysedReason.NOT_DICOM,
        NotAnalysedReason.FILE_GONE,
    }
)
"""What makes a slice that was wanted unreadable."""
