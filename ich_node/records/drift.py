"""What of a series is compared over time: how it was made, what it looks like, how it ended. No patient data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class SeriesMeasure:
    """What is measured of one series that ended; None where it cannot be said."""

    convolution_kernel: str = ""
    air_hu: float | None = None
    brain_hu: float | None = None
    noise_hu: float | None = None
    slice_thickness_mm: float | None = None
    probability: float | None = None
    """Of any hemorrhage."""
    model_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class MeasuredSeries:
    """One series as it was entered."""

    id: int
    study_id: int
    measured_at: float
    """Seconds since 1970."""
    triage: str | None
    reason: str | None
    """Name of a `NotAnalysedReason`; None where it was analysed."""
    measure: SeriesMeasure


@dataclass(frozen=True, slots=True)
class DriftRules:
    """How much is compared with how much, and how often a site where nothing changes may be alarmed."""

    reference_series: int = 200
    minimum_series: int = 50
    """Fewer are no reference."""
    recent_days: float = 14.0
    recent_series: int = 20
    """Fewer recent ones say nothing."""
    false_alarms_per_year: float = 0.05
    """Chance that a site where nothing changes gets any alarm within a year."""


@dataclass(frozen=True, slots=True)
class GroupMeasures:
    """The series of one station and kernel, in the order of time; not all, where there are very many."""

    station_name: str
    convolution_kernel: str
    series: tuple[MeasuredSeries, ...]
    since: float = 0.0
    """From when on the reference counts."""
    until: float | None = None
    """To when, where a person said so."""


@dataclass(frozen=True, slots=True)
class DriftFinding:
    """One quantity of one station and kernel that differs from its reference."""

    station_name: str
    convolution_kernel: str
    quantity: str
    group: str
    """Station and kernel, as they are called on one short line."""
    text: str
    """For people."""
