"""Slices in Hounsfield units, and what the network said of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ich_node.records.reception import PatientMarks, RejectionNote, StoredInstance
from ich_node.records.states import InstanceState, NotAnalysedReason, SeriesState, Triage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    enclosed_brain_fraction: float = 0.0
    """0 to 80 HU with bone on all four sides, of all pixels; times the pixel area it is the brain's area."""
    air_median_hu: float = math.nan
    """Median of the air around the body, padding left out; NaN where there is too little, and in older rows."""
    noise_hu: float = math.nan
    """Standard deviation of enclosed brain between neighbouring pixels, whatever anatomy lies beneath; NaN likewise."""


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
    series_number: int | None = None
    rescale_type: str = ""
    """RescaleType in capitals; empty where it is absent, which for CT means HU (PS3.3 C.11.1.1.2)."""
    contrast_agent: str = ""
    """ContrastBolusAgent, or the meaning of ContrastBolusAgentSequence; as it came, without spaces at the ends."""
    patient_age_years: int | None = None
    """Whole years when the images were made, 90 for all who are older; None where it is unknown."""
    names_bone: bool = False
    """The series' description or protocol speaks of a bone reconstruction."""
    lossy: bool = False
    """LossyImageCompression is 01."""
    frame_of_reference_uid: str = ""
    reason: NotAnalysedReason | None = None
    """Why this slice is not used: its header declines it, or it could not be read."""

    @property
    def key(self) -> SliceKey:
        return self.sop_instance_uid, self.frame


SliceKey = tuple[str, int | None]
"""SOP Instance UID and frame number: which slice."""


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
    members: tuple[PlaneMember, ...] = ()
    """The slices it was made of, along the slice normal; empty means the one slice that it is named after."""
    tissue: TissueMeasure | None = None


@dataclass(frozen=True, slots=True)
class PlaneMember:
    """One slice of a plane."""

    sop_instance_uid: str
    frame: int | None
    position_mm: float

    @property
    def key(self) -> SliceKey:
        return self.sop_instance_uid, self.frame


PlaneScores = tuple[PlaneScore, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ReadInstance:
    """What was read of one stored instance."""

    instance_id: int
    state: InstanceState
    facts: tuple[SliceFacts, ...] = ()
    reason: NotAnalysedReason | None = None
    detail: str = ""
    marks: PatientMarks = field(default_factory=PatientMarks)
    rejection: RejectionNote | None = None
    other_picture: bool = False
    """The version before showed another picture under the same UID."""


@dataclass(frozen=True, slots=True)
class StoredPlane:
    """A plane that was scored."""

    id: int
    members: tuple[PlaneMember, ...]
    logits: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SiblingSeries:
    """Another series of the same study."""

    id: int
    series_instance_uid: str
    state: SeriesState
    triage: Triage | None
    choice: dict[str, Any] | None
    """What the choice among series needs to know of it; None until it was assessed."""


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
    """Instances whose header was not read yet."""
    expected_instances: int | None = None
    """How many the PACS said it holds of this series; None where it was not asked or gave no number."""
    marks: tuple[PatientMarks, ...] = ()
    """Whose images they are, one for each instance that is to be judged."""
    in_two_studies: bool = False
    """Another study holds images of a series of the same UID."""
    stamp: tuple[int, int] = (0, 0)
    """Count and sum of the numbers of the current instances: another one, and something has changed."""
    siblings: tuple[SiblingSeries, ...] = ()
    """The other series of the study."""
    concluded_before: bool = False
    """It was analysed before, so the choice among the series is made: it stays."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch along the slice normal where slices are missing."""

    from_mm: float
    to_mm: float


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether a series shows a whole head without gaps."""

    gaps: tuple[Gap, ...] = ()
    unreadable: int = 0
    """Slices that arrived and could not be decoded."""
    extent_mm: tuple[float, float] | None = None
    """Lowest and highest position along the slice normal."""
    short: bool = False
    """It covers less of the slice normal than a head is high."""
    cut_below: bool = False
    """Its lowest slice still shows much brain: the series begins inside the head."""
    cut_above: bool = False
    """Its highest slice still shows much brain: the series ends inside the head."""
    missing_by_count: int = 0
    """How many more images of the series the PACS says it holds."""

    @property
    def whole_head(self) -> bool:
        """Nothing of the head lies beyond the two ends."""
        return not (self.short or self.cut_below or self.cut_above)

    @property
    def complete(self) -> bool:
        return self.whole_head and not (self.gaps or self.unreadable or self.missing_by_count)
