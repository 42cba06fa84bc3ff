"""What is said of a series."""

from __future__ import annotations

from dataclasses import dataclass, field

from ich_node.records.images import Completeness, PlaneMember
from ich_node.records.states import NotAnalysedReason, Presence, Triage


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model made a result."""

    name: str
    version: str
    sha256: str
    """Of the manifest, which holds the hash of every other file."""
    trained: bool
    backbone: str = ""
    operating_points: dict[str, str] = field(default_factory=dict)
    """Per class, in one line: what was measured at its thresholds. Empty where nothing was."""
    signature: str = ""
    """In words, whether somebody vouches for the manifest; empty where that was not asked, as in older rows."""
    site_thresholds: str = ""
    """In words, who signed off the site's own thresholds; empty where the model's are used."""
    engine: str = ""
    """In words, what computed; empty in older rows."""


@dataclass(frozen=True, slots=True)
class ClassThresholds:
    """Probability below ``low`` is negative, from ``high`` on positive, between them indeterminate."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SliceProbability:
    """Calibrated probabilities of one slice."""

    sop_instance_uid: str
    """Of a slab, its middle slice."""
    frame: int | None
    position_mm: float
    probabilities: dict[str, float]
    members: tuple[PlaneMember, ...] = ()
    """All slices of a slab, along the slice normal; empty for a single slice."""


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
    derived: bool = False
    """It rests on a derived series (reformatted, averaged or lossy), for want of an original one."""
    bone_kernel: bool = False
    """It rests on a bone reconstruction, for want of a soft one."""
    withdrawn: bool = False
    """An earlier result does not hold any more; ``reason`` says why."""


@dataclass(frozen=True, slots=True)
class OtherSeriesFinding:
    """What another series of the same study said, where it differs from the study's answer."""

    series_instance_uid: str
    series_number: int | None
    triage: Triage | None
    """None where the series gave no finding."""
