"""Where results go, and what is to be sent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from ich_node.records.states import MOST_KEY_SLICES, Triage
from ich_node.records.tls import TlsFiles

REPORT_KIND: Final = "SR"
OBJECT_OF_KIND: Final = {
    REPORT_KIND: "report",
    "SUMMARY": "summary",
    "KEY_OBJECTS": "key_objects",
    "PRESENTATION": "presentation",
    **{f"KEY_SLICE_{number}": "key_slices" for number in range(1, MOST_KEY_SLICES + 1)},
}
"""By what name the configuration speaks of each kind of result object."""
USUAL_OBJECTS: Final = ("report", "summary", "key_slices", "key_objects")
"""What goes to a destination unless the site says otherwise."""


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
    tls: TlsFiles | None = None
    """What it is reached with by TLS; None: without."""
    tls_name: str = ""
    """The name its certificate must have been issued to; empty: its host."""

    def wants(self, kind: str) -> bool:
        """Say whether a kind of result object goes there."""
        return OBJECT_OF_KIND.get(kind, kind) in self.objects


@dataclass(frozen=True, slots=True)
class StudySent:
    """What decides where the results of a study go."""

    calling_ae_title: str
    remote_address: str
    """Empty where nobody knows any more who sent it."""
    old: bool
    triage: Triage | None
    """None: there is no result, and the report says why."""


@dataclass(frozen=True, slots=True)
class DeliveryObject:
    """One saved object that may be sent for a delivery."""

    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    sha256: str
    """Of the file as it was saved."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An outbox row this deliverer holds the lease of."""

    id: int
    study_id: int
    study_instance_uid: str
    revision: int
    kind: str
    destination: Destination
    attempts: int
    created_at: datetime
    objects: tuple[DeliveryObject, ...]
    """The same content in several encodings, the preferred one first."""
    urgent: bool = False
    """The study is positive: it goes before others, and as C-STORE of high priority."""
