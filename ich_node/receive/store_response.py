"""C-STORE responses, encoded at once: pynetdicom takes a fifth of the time of receiving an image to encode one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

_STORE_RSP: Final = 0x8001
_LONGEST_UID: Final = 64
_NO_DATA_SET: Final = 0x0101
_LAST_OF_COMMAND: Final = b"\x03"


def answer_stores_at_once(association: Association) -> None:
    """Let an association encode the usual C-STORE responses itself."""
    association.dimse.send_msg = _Sending(association, association.dimse.send_msg)  # type: ignore[method-assign]  # of this one association


class _Sending:
    def __init__(self, association: Association, usual: Callable[[Any, int], None]) -> None:
        self._association = association
        self._usual = usual

    def __call__(self, primitive: Any, context_id: int) -> None:
        encoded = encode_store_response(primitive) if isinstance(primitive, C_STORE) else None
        if encoded is None:
            self._usual(primitive, context_id)
            return
        data = P_DATA()
        data.presentation_data_value_list = [[context_id, _LAST_OF_COMMAND + encoded]]  # type: ignore[list-item]  # a list
        self._association.dul.send_pdu(data)


def encode_store_response(response: C_STORE) -> bytes | None:
    """Encode the command set of a response (PS3.7 9.3.1.2, in Implicit VR Little Endian by PS3.7 6.3.1).

    Returns:
        None for a request, and for a response that holds more than the usual.
    """
    status = response.Status
    if response.MessageIDBeingRespondedTo is None or status is None:
        return None
    if response.ErrorComment or response.OffendingElement or response.DataSet is not None:
        return None
    if len(response.AffectedSOPInstanceUID or "") > _LONGEST_UID:  # the peer's longest PDU may be short
        return None
    elements = b"".join(
        (
            _uid(0x0002, response.AffectedSOPClassUID),
            _number(0x0100, _STORE_RSP),
            _number(0x0120, response.MessageIDBeingRespondedTo),
            _number(0x0800, _NO_DATA_SET),
            _number(0x0900, status),
            _uid(0x1000, response.AffectedSOPInstanceUID),
        )
    )
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def _number(element: int, value: int) -> bytes:
    return struct.pack("<HHLH", 0, element, 2, value)


def _uid(element: int, uid: str | None) -> bytes:
    if uid is None:
        return b""
    value = uid.encode()
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, element, len(value)) + value
