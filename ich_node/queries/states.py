"""The state of studies, for a person to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ich_node.records import OBJECT_OF_KIND


def object_in_words(kind: str) -> str:
    """Name a kind of result as people do."""
    return OBJECT_OF_KIND.get(kind, kind).replace("_", " ")


@dataclass(frozen=True, slots=True)
class SeriesStatus:
    """A series for a person to read."""

    series_instance_uid: str
    modality: str
    state: str
    why: str
    """Reason and detail; empty where all is well."""
    slices: int
    unreadable: int
    complete: bool | None
    triage: str | None
    finding: dict[str, Any] | None
    model: dict[str, Any] | None
    steps: dict[str, float] | None
    attempts: int
    number: int | None
    """Series Number, where it is known."""
    planes: int
    """What was scored: slices, or slabs of thin ones."""
    expected: int | None
    """How many images the PACS says it holds."""
    priority: int


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """An outbox row for a person to read."""

    destination: str
    kind: str
    revision: int
    state: str
    attempts: int
    error: str
    created_at: float
    finished_at: float | None
    next_attempt_at: float
    sop_instance_uid: str | None
    report_file: str | None
    """Relative to the state folder."""
    commitment: str = ""
    """How far its storage commitment is, in words; empty where none is wanted, or it is there."""

    @property
    def what(self) -> str:
        """Name the object as the configuration does: report, summary, key slices, key objects, presentation."""
        return object_in_words(self.kind)


@dataclass(frozen=True, slots=True)
class AlertStatus:
    """An alert through one channel for a person to read."""

    identifier: str
    channel: str
    kind: str
    outcome: str
    revision: int
    step: int
    state: str
    attempts: int
    error: str
    answer: str
    created_at: float
    next_attempt_at: float
    sent_at: float | None
    acknowledged_at: float | None
    acknowledged_by: str


@dataclass(frozen=True, slots=True)
class DeletionStatus:
    """What retention or a person deleted of a study."""

    what: str
    files: int
    size_bytes: int
    rule: str
    deleted_at: float


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """A study for a person to read."""

    study_instance_uid: str
    revision: int
    triage: str | None
    reason: str | None
    outcome: str
    """The current answer in words."""
    withdrawn: bool
    old: bool
    """Acquired longer ago than ``series.routine_max_age_h``."""
    rests_on: str | None
    """Series Instance UID that the answer rests on."""
    received_at: float
    prior: str = ""
    """What is known of earlier studies of the patient, in words."""
    prior_undated: str = ""
    """The same without dates, which are patient data."""
    series: tuple[SeriesStatus, ...] = ()
    deliveries: tuple[DeliveryStatus, ...] = ()
    alerts: tuple[AlertStatus, ...] = ()
    legal_hold: str = ""
    """Why nothing of it is deleted, and who says so; empty where its days count."""
    deletions: tuple[DeletionStatus, ...] = ()

    @property
    def basis(self) -> SeriesStatus | None:
        """Give the series that the answer rests on; None where it rests on none."""
        return next((one for one in self.series if one.series_instance_uid == self.rests_on), None)
