"""A PACS that stores, is asked for storage commitment, and answers as truthfully or not as a test wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from sqlalchemy import update

from ich_node.commitment_asker import CommitmentAsker
from ich_node.database import CommitmentRow, DeliveryRow
from ich_node.receive import Receiver
from ich_node.report.structured_report import ENCODINGS
from ich_node.routing import configured_destinations
from ich_node.storage_commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from tests.outbox import Outbox, outbox
from tests.running import wait_for

Reference = tuple[str, str]


@dataclass(frozen=True)
class Answer:
    """An N-EVENT-REPORT to be sent; the truth unless a test changes it."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[str, str, int], ...] = ()
    event_type: int | None = None

    def data_set(self) -> Dataset:
        information = Dataset()
        information.TransactionUID = self.transaction_uid
        if self.committed:
            information.ReferencedSOPSequence = [_item(*one) for one in self.committed]
        if self.failed:
            information.FailedSOPSequence = [_item(*one[:2], FailureReason=one[2]) for one in self.failed]
        return information

    @property
    def type_id(self) -> int:
        return self.event_type or (2 if self.failed else 1)

    def failing(self, reason: int = 0x0112) -> Answer:
        """Say of every object that it is not committed."""
        return replace(self, committed=(), failed=tuple((*one, reason) for one in self.committed))


def _item(sop_class_uid: str, sop_instance_uid: str, **more: Any) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return item


@dataclass
class CommitmentPeer:
    """The PACS. ``asked`` holds the truthful answer to each request that it got."""

    port: int = 0
    action_status: int = 0x0000
    comment: str = ""
    """What it says to a request that it refuses."""
    answers_at_once: Callable[[Answer], Answer | None] = lambda _: None
    """Gives what it answers on the association of the request; None: nothing."""
    asked: list[Answer] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    statuses: list[int | None] = field(default_factory=list)
    """What it was answered to its answers at once."""

    @contextmanager
    def running(self) -> Iterator[CommitmentPeer]:
        entity = AE(ae_title="PACS")
        for _, uid in ENCODINGS:
            entity.add_supported_context(uid)
        entity.add_supported_context(STORAGE_COMMITMENT)
        handlers = [(evt.EVT_C_STORE, self._on_store), (evt.EVT_N_ACTION, self._on_action)]
        server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None
        self.port = server.server_address[1]
        try:
            yield self
        finally:
            for association in server.active_associations:
                association.abort()
            server.shutdown()

    def _on_store(self, event: evt.Event) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _on_action(self, event: evt.Event) -> tuple[int | Dataset, None]:
        if self.action_status:
            status = Dataset()
            status.Status, status.ErrorComment = self.action_status, self.comment
            return status, None
        information = event.action_information
        assert (event.action_type, event.request.RequestedSOPInstanceUID) == (1, STORAGE_COMMITMENT_INSTANCE)
        named = ((str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID))
                 for one in information.ReferencedSOPSequence)  # fmt: skip
        answer = Answer(str(information.TransactionUID), tuple(named))
        self.asked.append(answer)
        if (at_once := self.answers_at_once(answer)) is not None:
            threading.Thread(target=self._answer_here, args=(event.assoc, at_once)).start()
        return 0x0000, None

    def _answer_here(self, association: Any, answer: Answer) -> None:
        time.sleep(0.2)  # our response to the request goes first
        status, _ = association.send_n_event_report(
            answer.data_set(), answer.type_id, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
        self.statuses.append(status.get("Status"))


def report(
    port: int,
    answer: Answer,
    *,
    ae_title: str = "PACS",
    instance: str = STORAGE_COMMITMENT_INSTANCE,
    with_role: bool = True,
) -> int | None:
    """Answer on an association of one's own; give the status, or None where storage commitment is not accepted."""
    entity = AE(ae_title=ae_title)
    entity.add_requested_context(STORAGE_COMMITMENT)
    roles = [build_role(STORAGE_COMMITMENT, scp_role=True)] if with_role else []
    association = entity.associate("127.0.0.1", port, ae_title="ICH_NODE", ext_neg=roles)
    if not association.is_established:
        return None
    try:
        if not with_role:  # as a peer does that does not negotiate what it is
            association.accepted_contexts[0]._as_scp = True
        status, _ = association.send_n_event_report(answer.data_set(), answer.type_id, STORAGE_COMMITMENT, instance)
        return int(status.Status)
    finally:
        association.release()


@dataclass
class CommitmentSite:
    """Outbox, asker and receiver in this process, step by step."""

    box: Outbox
    asker: CommitmentAsker
    receiver: Receiver
    peer: CommitmentPeer

    @property
    def port(self) -> int:
        return self.receiver.port

    def state(self, uid: str | None = None) -> list[str]:
        return [one.state for one in self.box.deliveries(uid)]

    def deliver_and_ask(self) -> Answer:
        """Deliver what waits and ask for its commitment; give the truthful answer."""
        before = len(self.peer.asked)
        wait_for(lambda: self.box.deliverer.step() or "PENDING" not in self.state(), "all is delivered")
        wait_for(lambda: self.asker.step() and len(self.peer.asked) > before, "commitment is asked")
        return self.peer.asked[-1]

    def settle(self) -> list[str]:
        """Draw the conclusions of what was answered."""
        while self.asker.step():
            pass
        return self.state()

    def let_pass(self, hours: float) -> None:
        """Make everything older, as time does."""
        with self.box.database.writing() as connection:
            for table, *columns in (
                (DeliveryRow, "created_at", "finished_at", "commitment_ask_at", "next_attempt_at"),
                (CommitmentRow, "asked_at", "acknowledged_at"),
            ):
                past = {name: getattr(table, name) - hours * 3600 for name in columns}
                connection.execute(update(table).values(past))


@contextmanager
def commitment_site(folder: Path, peer: CommitmentPeer | None = None, **sections: Any) -> Iterator[CommitmentSite]:
    """A node with one destination, which is asked for storage commitment."""
    delivery = {"first_retry_s": 0.01, "longest_retry_s": 0.02, "connect_timeout_s": 5.0, "response_timeout_s": 10.0,
                "commitment_stay_s": 0.0} | sections.pop("delivery", {})  # fmt: skip
    with (peer or CommitmentPeer()).running() as pacs:
        destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port,
                       "objects": ["report"], "commitment": True}  # fmt: skip
        with outbox(folder, delivery=delivery, destination=[destination], **sections) as box:
            receiver = Receiver(box.config, box.database)
            receiver.start()
            try:
                (place,) = configured_destinations(box.config)
                yield CommitmentSite(box, CommitmentAsker(box.config, box.database, place), receiver, pacs)
            finally:
                receiver.stop(drain_s=5.0)


def another_uid() -> str:
    return str(generate_uid())
