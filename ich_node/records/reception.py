"""What is received and queued."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


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
