"""What is asked of storage commitment, and what is answered (PS3.4 Annex J)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

FAILURE_REASONS: Final = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0119: "class-instance conflict",
    0x0122: "referenced SOP Class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}
"""Failure Reason (0008,1197) of an object that is not committed (PS3.3 C.14.1.1)."""


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """One SOP instance by its class and UID; both must be right."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class CommitmentFailure:
    """An object that the destination does not commit to."""

    reference: ObjectReference
    reason: int

    @property
    def why(self) -> str:
        """Say the reason as the Standard does, with its code."""
        return f"{FAILURE_REASONS.get(self.reason, 'failure reason')} ({self.reason:04X}H)"


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """One transaction: the objects that a destination is asked to keep."""

    id: int
    transaction_uid: str
    objects: tuple[ObjectReference, ...]


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """What a peer says of a transaction."""

    transaction_uid: str
    committed: tuple[ObjectReference, ...]
    failed: tuple[CommitmentFailure, ...] = ()

    def is_about(self, asked: Iterable[ObjectReference]) -> bool:
        """Say whether it names exactly the objects that were asked about, each once."""
        named = [*self.committed, *(one.reference for one in self.failed)]
        return Counter(named) == Counter(asked)


class ReportTaken(Enum):
    """What became of a peer's answer when it came."""

    TAKEN = "it is kept, and matched with what was asked"
    KNOWN = "the same answer came before"
    UNKNOWN = "no such transaction was asked of who answers"
    DIFFERS = "it names other objects than were asked about"
    TOO_MANY = "too many different answers to one transaction"
