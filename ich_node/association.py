"""Open an association as a service class user."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom import _config as pynetdicom_config
from pynetdicom import timer as pynetdicom_timer
from pynetdicom.association import Association as Association
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE

from ich_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from ich_node.errors import ClassNotTaken, DestinationRefuses, DestinationUnavailable
from ich_node.records import Destination
from ich_node.tls import client_context, reason, why_it_failed

VERIFICATION: Final = "1.2.840.10008.1.1"
"""SOP Class of C-ECHO (PS3.4 A.4)."""
UNCOMPRESSED: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
"""Transfer syntaxes that are proposed for every class."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a destination."""

    connect_s: float = 10.0
    response_s: float = 30.0


@contextmanager
def associate(
    destination: Destination,
    ae_title: str,
    sop_class_uids: Sequence[str],
    patience: Patience,
    handlers: Sequence[EventHandlerType] = (),
) -> Iterator[Association]:
    """Open an association for some SOP Classes, and release it at the end; by TLS where the destination says so.

    Args:
        handlers: of what the peer may ask meanwhile; without any it is not listened to.

    Raises:
        DestinationUnavailable: no connection, a certificate that is not trusted, an abort, or no answer in time.
        DestinationRefuses: the association was rejected.
        ClassNotTaken: no presentation context was accepted.
    """
    entity = _application_entity(ae_title, patience)
    for uid in sop_class_uids:
        entity.add_requested_context(uid, list(UNCOMPRESSED))
    association = _associate(entity, destination, handlers)
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
    # another clock for this one module; to mypy the name is the module `time`, and none that it exports
    pynetdicom_timer.time = SimpleNamespace(time=time.monotonic)  # type: ignore[assignment, attr-defined]


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


def _associate(entity: AE, destination: Destination, handlers: Sequence[EventHandlerType]) -> Association:
    tls = _tls(destination)
    association = entity.associate(
        destination.host,
        destination.port,
        ae_title=destination.ae_title,
        evt_handlers=[(evt.EVT_CONN_OPEN, _send_at_once), *handlers],
        tls_args=tls,
    )
    if association.is_established:
        if handlers:
            tell_answers_from_requests(association)
        else:
            keep_answers(association)
        return association
    if (rejection := _rejection(association)) is not None:
        raise DestinationRefuses(f"the association was rejected: {rejection.reason_str}")
    if association.rejected_contexts:
        raise ClassNotTaken("the destination accepted no presentation context")
    why = why_it_failed(tls[0]) if tls is not None else ""
    raise DestinationUnavailable(f"no association with {destination.host}:{destination.port}{why and f' ({why})'}")


def _tls(destination: Destination) -> tuple[ssl.SSLContext, str] | None:
    if destination.tls is None:
        return None
    try:
        return client_context(destination.tls), destination.tls_name or destination.host
    except (OSError, ValueError) as error:  # perhaps in the middle of a renewal: tried again
        raise DestinationUnavailable(f"our certificate, key or authorities cannot be used ({reason(error)})") from error


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


def tell_answers_from_requests(association: Association) -> None:
    """See that every answer reaches who asked for it, and every request of the peer its handler.

    As `keep_answers`, on an association on which the peer may ask something, too: whoever takes a message that is for
    the other lays it down again.
    """
    take = association.dimse.get_msg
    asked: SimpleQueue[tuple[Any, Any]] = SimpleQueue()

    def take_mine(block: bool = False) -> tuple[Any, Any]:
        if block:  # who waits for an answer
            while _is_request(message := take(block=True)):
                asked.put(message)
            return message
        try:
            message = asked.get_nowait() if not asked.empty() else association.dimse.msg_queue.get_nowait()
        except Empty:
            return None, None
        if _is_request(message):
            return message
        association.dimse.msg_queue.put(message)  # an answer, or the mark of an abort
        return None, None

    association.dimse.get_msg = take_mine  # type: ignore[method-assign]  # of this one association


def _is_request(message: tuple[Any, Any]) -> bool:
    return message[1] is not None and getattr(message[1], "MessageIDBeingRespondedTo", None) is None


def _rejection(association: Association) -> A_ASSOCIATE | None:
    """Give the A-ASSOCIATE-RJ that came as the answer (PS3.8 9.3.4).

    pynetdicom 3.0.4 waits until there is a connection, then asks whether it is open
    (``ACSE._negotiate_as_requestor``). A peer that rejects and closes in between seems not to be there: what it
    answered still lies in the queue.
    """
    answer = association.acceptor.primitive if association.is_rejected else association.dul.receive_pdu()
    return answer if isinstance(answer, A_ASSOCIATE) and answer.result else None


def _send_at_once(event: Event) -> None:
    """Switch off Nagle's algorithm, which holds small messages back for 40 ms.

    What comes by TLS may be no message (a ticket, a key), so that a read of one waits: it must end in time.
    """
    wrapped = event.assoc.dul.socket
    if wrapped is None or wrapped.socket is None:
        return
    wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if isinstance(wrapped.socket, ssl.SSLSocket):
        wrapped.socket.settimeout(event.assoc.network_timeout)
