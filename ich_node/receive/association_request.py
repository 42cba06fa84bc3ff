"""An A-ASSOCIATE-RQ, looked at before anybody works for who sent it (PS3.8 9.3.2)."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE

from ich_node.association import VERIFICATION

_FIXED_BYTES: Final = 74
_PRESENTATION_CONTEXT: Final = 0x20
_USER_INFORMATION: Final = 0x50
_HEADS: Final = {_PRESENTATION_CONTEXT: 4, _USER_INFORMATION: 0}
"""Bytes before the sub-items of an item that has any."""
_MOST_CONTEXTS: Final = 128
_MOST_ITEMS: Final = 4000
"""Of all kinds: 128 contexts with 30 transfer syntaxes each. Decoding this many takes a third of a second."""
_PROTOCOL_VERSION: Final = 1
_decoding = threading.BoundedSemaphore(2)
"""Strangers get no more of the processor than that."""


class ReadRequest(A_ASSOCIATE_RQ):
    """A request that is read once, though pynetdicom asks for it twice."""

    def __init__(self, encoded: bytes) -> None:
        super().__init__()
        self.encoded: Final = encoded
        self.decode(encoded)
        self.primitive: Final = super().to_primitive()

    def to_primitive(self) -> A_ASSOCIATE:
        return self.primitive


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """Who asks, whom, and for what."""

    pdu: ReadRequest
    calling_ae_title: str
    called_ae_title: str
    echo_alone: bool
    """It proposes Verification and nothing else."""


def read_association_request(pdu: bytes) -> AssociationRequest:
    """Read a request as pynetdicom will.

    Raises:
        ValueError: it cannot be read, holds more than any request does, or is of another protocol.
    """
    _check_items(pdu)
    with _decoding:
        try:
            asked = ReadRequest(pdu)
        except Exception as error:  # noqa: BLE001 - a broad catch (docs/architecture.md): pynetdicom raises what its parts raise
            raise ValueError(f"its request cannot be read ({type(error).__name__})") from None
    request = asked.primitive
    if not isinstance(request, A_ASSOCIATE) or asked.protocol_version != _PROTOCOL_VERSION:
        raise ValueError("its request is of another protocol")
    contexts = request.presentation_context_definition_list or ()
    if not all(one.transfer_syntax for one in contexts):  # PS3.8 9.3.2.2: one or more; pynetdicom takes the first
        raise ValueError("a presentation context of its request names no transfer syntax")
    proposed = {str(one.abstract_syntax) for one in contexts}
    return AssociationRequest(
        asked, request.calling_ae_title.strip(), request.called_ae_title.strip(), proposed == {VERIFICATION}
    )


def _check_items(pdu: bytes) -> None:
    """Count the items in one quick pass: pynetdicom takes 80 us for each, and a request has room for 65,000."""
    contexts = items = 0
    for kind, begin, end in _items(pdu, _FIXED_BYTES, len(pdu)):
        contexts += kind == _PRESENTATION_CONTEXT
        items += 1
        if kind in _HEADS:
            for _ in _items(pdu, begin + _HEADS[kind], end):
                items += 1
        if contexts > _MOST_CONTEXTS or items > _MOST_ITEMS:
            raise ValueError("its request holds more items than any")


def _items(pdu: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give kind, begin and end of each item in a part of a PDU.

    Raises:
        ValueError: one is cut short.
    """
    while begin < end:
        if begin + 4 > end:
            raise ValueError("an item of its request is cut short")
        kind, _, length = struct.unpack_from(">BBH", pdu, begin)
        begin += 4
        if begin + length > end:
            raise ValueError("an item of its request is cut short")
        yield kind, begin, begin + length
        begin += length
