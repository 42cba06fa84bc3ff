"""Where results go, and what is to be sent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


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
