"""Objects that come and go: of each association one pair of messages per patient, however many objects it has."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

from ich_node.audit import codes, events
from ich_node.audit.events import Peer, Transfer
from ich_node.audit.message import Action, Outcome, Participant, Subject
from ich_node.audit.trail import AuditTrail

_COUNTS_AT_ONCE: Final = 50
"""Of studies and SOP Classes in one message: it must stay below what every syslog server takes (32 KiB, PS3.15 A.6)."""
_MOST_GROUPS: Final = 500
"""Patients and reasons that are counted at once, of one association."""


@dataclass(slots=True)
class _Open:
    source: Participant
    destination: Participant
    begun: set[tuple[str, str]] = field(default_factory=set)
    groups: dict[tuple[str, Action, Outcome, str], dict[str, dict[str, int]]] = field(default_factory=dict)


class Transfers:
    """What goes over the associations that are open now, in one direction."""

    def __init__(self, trail: AuditTrail, *, incoming: bool) -> None:
        self._trail = trail
        self._incoming = incoming
        self._lock = threading.Lock()
        self._open: dict[Hashable, _Open] = {}

    def begin(self, association: Hashable, peer: Peer, subject: Subject) -> None:
        """Record that objects of a study are about to be transferred, before the first of them is."""
        with self._lock:
            known = self._of(association, peer)
            key = (subject.patient_id, subject.study_instance_uid)
            new = key not in known.begun
            known.begun.add(key)
        if new:
            transfer = Transfer(known.source, known.destination, key[0], {key[1]: {}})
            self._trail.record(events.begin_transferring(transfer), durable=True)

    def count(
        self, association: Hashable, peer: Peer, subject: Subject, sop_class_uid: str, *,
        held: bool = False, outcome: Outcome = Outcome.SUCCESS, why: str = "",
    ) -> None:  # fmt: skip
        """Count an object that was transferred, or could not be.

        Args:
            held: whoever got it had it already, or nobody knows whether.
            why: it could not be, in our words.
        """
        group = (subject.patient_id, Action.READ if held else Action.CREATE, outcome, why)
        with self._lock:
            known = self._of(association, peer)
            studies = known.groups.setdefault(group, {})
            classes = studies.setdefault(subject.study_instance_uid, {})
            classes[sop_class_uid] = classes.get(sop_class_uid, 0) + 1
            many = sum(map(len, studies.values())) >= _COUNTS_AT_ONCE or len(known.groups) >= _MOST_GROUPS
            full = _Open(known.source, known.destination, groups=known.groups) if many else None
            if many:
                known.groups = {}
        if full is not None:
            self._record(full)

    def end(self, association: Hashable) -> None:
        """Record what was transferred over an association that ends. May be called again."""
        with self._lock:
            ended = self._open.pop(association, None)
        if ended is not None:
            self._record(ended)

    def _record(self, counted: _Open) -> None:
        for (patient_id, action, outcome, why), studies in counted.groups.items():
            transfer = Transfer(counted.source, counted.destination, patient_id, studies)
            self._trail.record(events.instances_transferred(transfer, action, outcome, why))

    def _of(self, association: Hashable, peer: Peer) -> _Open:
        known = self._open.get(association)
        if known is None:
            known = _Open(*self._ends(peer))
            self._open[association] = known
        return known

    def _ends(self, peer: Peer) -> tuple[Participant, Participant]:
        if self._incoming:
            return peer.as_participant(codes.SOURCE_ROLE, is_requestor=True), self._trail.as_destination()
        there = peer.as_participant(codes.DESTINATION_ROLE, is_requestor=False)
        return self._trail.as_source(is_requestor=True), there
