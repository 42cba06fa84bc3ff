"""Storage SCU: send one object to one destination, and say what came of it (PS3.4 B.2)."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom import _config as pynetdicom_config
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from ich_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from ich_node.errors import DestinationRefuses, DestinationUnavailable
from ich_node.records import DeliveryObject, Destination

_UNCOMPRESSED: Final = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
_SOP_CLASS_NOT_SUPPORTED: Final = 0x0122


class Verdict(Enum):
    """What a C-STORE status means for the outbox."""

    DELIVERED = "the destination has it"
    TRY_AGAIN = "the destination could not take it now"
    REFUSED = "the destination will hardly ever take it"


@dataclass(frozen=True, slots=True)
class StoreOutcome:
    """The answer to one C-STORE."""

    sop_instance_uid: str
    dimse_status: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a destination."""

    connect_s: float = 10.0
    response_s: float = 30.0


def judge(dimse_status: int) -> Verdict:
    """Sort a C-STORE status (PS3.4 B.2.3, PS3.7 Annex C): warnings are delivered, A7xx and 01xx may pass."""
    if dimse_status == 0x0000 or 0xB000 <= dimse_status <= 0xBFFF:
        return Verdict.DELIVERED
    refused = 0xA900 <= dimse_status <= 0xA9FF or 0xC000 <= dimse_status <= 0xCFFF
    return Verdict.REFUSED if refused or dimse_status == _SOP_CLASS_NOT_SUPPORTED else Verdict.TRY_AGAIN


def is_warning(dimse_status: int) -> bool:
    """Tell a delivery with a warning from one without."""
    return 0xB000 <= dimse_status <= 0xBFFF


@contextmanager
def associate(
    destination: Destination, ae_title: str, sop_class_uids: Sequence[str], patience: Patience
) -> Iterator[Association]:
    """Open an association for storing objects of some classes, and release it at the end.

    Raises:
        DestinationUnavailable: no connection, an abort, or no answer in time.
        DestinationRefuses: the association was rejected, or no presentation context was accepted.
    """
    entity = _application_entity(ae_title, patience)
    for uid in sop_class_uids:
        entity.add_requested_context(uid, _UNCOMPRESSED)
    association = _associate(entity, destination)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def store(association: Association, objects: Sequence[DeliveryObject]) -> StoreOutcome:
    """Send the first of several encodings whose SOP Class the destination accepted.

    Raises:
        DestinationRefuses: it accepted none of them.
        DestinationUnavailable: it aborted, hung, or did not answer in time.
    """
    accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
    chosen = next((one for one in objects if one.sop_class_uid in accepted), None)
    if chosen is None:
        raise DestinationRefuses("the destination accepts none of the report's storage classes")
    try:
        answer = association.send_c_store(chosen.path)
    except (RuntimeError, OSError) as error:
        raise DestinationUnavailable("the association ended before the object was sent") from error
    status = answer.get("Status")
    if status is None:
        raise DestinationUnavailable("the destination aborted or did not answer the C-STORE in time")
    return StoreOutcome(chosen.sop_instance_uid, int(status), judge(int(status)))


def echo(destination: Destination, ae_title: str, patience: Patience) -> None:
    """Ask a destination whether it is there (C-ECHO).

    Raises:
        DestinationUnavailable: no connection or no answer.
        DestinationRefuses: the association was rejected.
    """
    entity = _application_entity(ae_title, patience)
    entity.add_requested_context(Verification, _UNCOMPRESSED)
    association = _associate(entity, destination)
    answer = association.send_c_echo()
    association.release()
    if answer.get("Status") != 0x0000:
        raise DestinationUnavailable("no answer to C-ECHO")


def _application_entity(ae_title: str, patience: Patience) -> AE:
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"
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
        return association
    if association.is_rejected:
        raise DestinationRefuses(f"the association was rejected: {_why_rejected(association)}")
    if association.rejected_contexts:
        raise DestinationRefuses("the destination accepted no presentation context")
    raise DestinationUnavailable(f"no association with {destination.host}:{destination.port}")


def _why_rejected(association: Association) -> str:
    primitive = association.acceptor.primitive
    return str(getattr(primitive, "reason_str", "")) or "no reason given"


def _send_at_once(event: Event) -> None:
    """Switch off Nagle's algorithm, which holds small messages back for 40 ms."""
    wrapped = event.assoc.dul.socket
    if wrapped is not None and wrapped.socket is not None:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
