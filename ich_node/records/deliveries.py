"""Where results go, and what is to be sent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

KEY_SLICE_KINDS: Final = tuple(f"KEY_SLICE_{number}" for number in range(1, 6))
OBJECT_OF_KIND: Final = {
    "SR": "report",
    "SUMMARY": "summary",
    "KEY_OBJECTS": "key_objects",
    "PRESENTATION": "presentation",
    **dict.fromkeys(KEY_SLICE_KINDS, "key_slices"),
}
"""By what name the configuration speaks of each kind of result object."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where results go."""

    name: str
    ae_title: str
    host: str
    port: int
    objects: tuple[str, ...] = ("report",)
    """What goes there: report, summary, key_slices, key_objects, presentation."""
    held: str = ""
    """Why nothing is sent for now, such as "shadow mode"; empty where it is."""

    def wants(self, kind: str) -> bool:
        """Say whether a kind of result object goes there."""
        return OBJECT_OF_KIND.get(kind, kind) in self.objects


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
