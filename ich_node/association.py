"""Open an association as a service class user."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom import _config as pynetdicom_config
from pynetdicom import timer as pynetdicom_timer
from pynetdicom.association import Association as Association
from pynetdicom.events import Event

from ich_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from ich_node.errors import ClassNotTaken, DestinationRefuses, DestinationUnavailable
from ich_node.records import Destination

UNCOMPRESSED: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
"""Transfer syntaxes that are proposed for every class."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a destination."""

    connect_s: float = 10.0
    response_s: float = 30.0


@contextmanager
def associate(
    destination: Destination, ae_title: str, sop_class_uids: Sequence[str], patience: Patience
) -> Iterator[Association]:
    """Open an association for some SOP Classes, and release it at the end.

    Raises:
        DestinationUnavailable: no connection, an abort, or no answer in time.
        DestinationRefuses: the association was rejected.
        ClassNotTaken: no presentation context was accepted.
    """
    entity = _application_entity(ae_title, patience)
    for uid in sop_class_uids:
        entity.add_requested_context(uid, list(UNCOMPRESSED))
    association = _associate(entity, destination)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def measure_by_no_clock() -> None:
    """Have pynetdicom measure its time-outs by the time since the boot.

    pynetdicom 3.0.4 takes the wall clock (``timer.Timer``): set forward it would end every association, set back it
    would keep those that are idle for as long.
    """
    pynetdicom_timer.time = SimpleNamespace(time=time.monotonic)  # type: ignore[attr-defined,assignment]


def _application_entity(ae_title: str, patience: Patience) -> AE:
    measure_by_no_clock()
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"
    pynetdicom_config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
    entity = AE(ae_title=ae_title)
    entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = patience.connect_s
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = patience.response_s
    return entity


def _associate(entity: AE, destination: Destination) -> Association:
    association = entity.associate(
        destination.host,
        destination.port,
        ae_title=destination.ae_title,
        evt_handlers=[(evt.EVT_CONN_OPEN, _send_at_once)],
    )
    if association.is_established:
        keep_answers(association)
        return association
    if association.is_rejected:
        raise DestinationRefuses(f"the association was rejected: {_why_rejected(association)}")
    if association.rejected_contexts:
        raise ClassNotTaken("the destination accepted no presentation context")
    raise DestinationUnavailable(f"no association with {destination.host}:{destination.port}")


def keep_answers(association: Association) -> None:
    """See that every answer reaches who asked for it.

    Between two of our requests the reactor of pynetdicom 3.0.4 looks whether the peer asks something. It says that it
    pauses a moment before it does (``Association._run_reactor``), so under load it may take the answer to the next
    request instead; who asked then waits until the time-out and aborts. A peer asks an SCU nothing: only who waits for
    an answer is given what comes.
    """
    take = association.dimse.get_msg

    def take_if_waiting(block: bool = False) -> tuple[Any, Any]:
        return take(block=True) if block else (None, None)

    association.dimse.get_msg = take_if_waiting  # type: ignore[method-assign]  # of this one association


def _why_rejected(association: Association) -> str:
    primitive = association.acceptor.primitive
    return str(getattr(primitive, "reason_str", "")) or "no reason given"


def _send_at_once(event: Event) -> None:
    """Switch off Nagle's algorithm, which holds small messages back for 40 ms."""
    wrapped = event.assoc.dul.socket
    if wrapped is not None and wrapped.socket is not None:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
