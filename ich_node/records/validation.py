"""What a validation needs to know of one study's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ich_node.records.findings import ClassThresholds
from ich_node.records.states import Presence, Triage


@dataclass(frozen=True, slots=True)
class StudyResult:
    """The current answer of one study, or why there is none. Holds no patient data but age and sex."""

    study_instance_uid: str
    triage: Triage | None
    """None: no answer; ``why_not`` says why."""
    why_not: str = ""
    in_progress: bool = False
    """It is being analysed; what is said of it may change any moment."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Empty where there is no answer, and where the database was rebuilt from reports, which do not hold them whole."""
    presence: Mapping[str, Presence] = field(default_factory=dict)
    """What was said of each class."""
    thresholds: Mapping[str, ClassThresholds] = field(default_factory=dict)
    """That were used."""
    complete: bool = True
    test_model: bool = False
    model: tuple[str, str, str] | None = None
    """Name, version and SHA-256 of the model that answered."""
    station_name: str = ""
    """Empty where it is not known."""
    slice_thickness_mm: float | None = None
    age_years: int | None = None
    sex: str = ""
    """PatientSex; empty where it is not known."""
    received_at: float | None = None
