"""C-STORE requests, decoded at once: pynetdicom takes a third of its reading thread's time for that."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Final, cast

from pydicom.uid import RE_VALID_UID
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

_STORE_RQ: Final = 0x0001
_NO_DATA_SET: Final = 0x0101
_LAST_OF_COMMAND: Final = 3
_PRIORITIES: Final = (0, 1, 2)
_USUAL: Final = [0x0000, 0x0002, 0x0100, 0x0110, 0x0700, 0x0800, 0x1000]
"""Elements of the usual request: Group Length, Affected SOP Class UID, Command Field, Message ID, Priority, Command
Data Set Type, Affected SOP Instance UID."""
_LONGEST_UID: Final = 64
_PDU_HEADER: Final = 6


class StoreRequest:
    """A request whose data set is coming."""

    def __init__(self, primitive: C_STORE, data_set: BytesIO) -> None:
        self.primitive = primitive
        self.primitive.DataSet = data_set

    def take(self, fragment: bytes | memoryview) -> bool:
        """Take the next fragment, with its control header (PS3.8 Annex E.2); tell whether it was the last.

        Raises:
            ValueError: it is of a command, while the data set of the one before is not whole.
            OSError: the data set is longer than allowed.
        """
        control = fragment[0]
        if control & 1:
            raise ValueError("a command in the middle of a data set")
        cast(BytesIO, self.primitive.DataSet).write(fragment[1:])
        return bool(control & 2)


def usual_store_request(context_id: int, fragment: bytes | memoryview) -> C_STORE | None:
    """Decode a fragment that is the whole command set of a request (PS3.7 9.3.1.1, in Implicit VR Little Endian).

    Returns:
        None for whatever else it is, and for a request that holds more or less than the usual: pynetdicom decodes
        that.
    """
    if not fragment or fragment[0] & 3 != _LAST_OF_COMMAND:
        return None
    elements = list(_elements(bytes(fragment[1:])))
    if [element for element, _ in elements] != _USUAL:
        return None
    found = dict(elements)
    numbers = [_number(found[element]) for element in (0x0100, 0x0110, 0x0700, 0x0800)]
    uids = [_uid(found[element]) for element in (0x0002, 0x1000)]
    if None in numbers or None in uids or numbers[0] != _STORE_RQ or numbers[3] == _NO_DATA_SET:
        return None
    if numbers[2] not in _PRIORITIES:
        return None
    request = C_STORE()
    request.MessageID, request.Priority = numbers[1], numbers[2]
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = uids
    request._context_id = context_id
    return request


def _elements(command: bytes) -> Iterator[tuple[int, bytes]]:
    """Give element number and value; -1 for what is no element of a command set."""
    position = 0
    while position + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHL", command, position)
        position += 8 + length
        yield -1 if group or position > len(command) else element, command[position - length : position]
    if position != len(command):
        yield -1, b""


def _number(value: bytes) -> int | None:
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _uid(value: bytes) -> str | None:
    uid = value.removesuffix(b"\0").decode("latin-1")
    return uid if len(uid) <= _LONGEST_UID and RE_VALID_UID.fullmatch(uid) else None


class ReceivedValues(P_DATA_TF):
    """A P-DATA-TF PDU that came; its values are where it was read to, and not copied four times (PS3.8 9.3.5)."""

    def __init__(self, encoded: bytearray) -> None:
        """Find the values.

        Raises:
            ValueError: one has no control header, or is longer than the PDU.
        """
        super().__init__()
        whole, position = memoryview(encoded), _PDU_HEADER
        self._values: list[tuple[int, memoryview]] = []
        while position < len(whole):
            length, context_id = struct.unpack_from(">LB", whole, position) if position + 5 <= len(whole) else (0, 0)
            end = position + 4 + length
            if length < 2 or end > len(whole):
                raise ValueError("a presentation data value is not whole")
            self._values.append((context_id, whole[position + 5 : end]))
            position = end

    def to_primitive(self) -> P_DATA:
        """Give them as a P-DATA indication; each value is a ``memoryview``."""
        primitive = P_DATA()
        primitive._presentation_data_value_list = self._values  # type: ignore[assignment]  # views, which the setter refuses
        return primitive
