"""What is received and queued."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from ich_node.records.states import NotAnalysedReason


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
    priority: int = 0
    """By the site's rules; higher is analysed first."""
    old: bool = False
    """Acquired longer ago than ``routine_max_age_h``: it goes behind what is new."""
    acquired_at: float | None = None
    """Seconds since 1970; None where the header does not say."""
    station_name: str = ""


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An instance row as the worker sees it."""

    id: int
    sop_instance_uid: str
    sop_class_uid: str
    path: str
    older_path: str | None = None
    """File of the version before, where this object came again with other bytes."""


@dataclass(frozen=True, slots=True)
class PatientMarks:
    """Whose image it is, as marks that can be compared and not read back: hashes of what the header says."""

    patient_id: str = ""
    """Of PatientID with its issuer; empty where there is none."""
    patient_name: str = ""
    patient_birth_date: str = ""


@dataclass(frozen=True, slots=True)
class RejectionNote:
    """A key object selection that takes images back (PS3.3 A.35.4, IHE Imaging Object Change Management)."""

    reason: NotAnalysedReason
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeriesJob:
    """A series this worker holds the lease of."""

    id: int
    study_id: int
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
    counted: bool = False
    """The PACS said, asked after the last slice, that it holds no more of this series."""


class Reception(Enum):
    """What a received instance meant for the node."""

    NEW = "new"
    VERSION = "another version of a known instance"
    QUARANTINED = "stored, and its series needs a person"
    DUPLICATE = "the same bytes again"
    OWN_RESULT = "an object that this node made"
    KEPT_ONLY = "stored, but its study was analysed and deleted before: nothing starts without requeue"
    NO_SELF_TEST = "not stored: it came as a self-test, and none has reserved its study; or the other way round"
