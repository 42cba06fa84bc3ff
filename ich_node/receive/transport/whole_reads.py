"""Reads a PDU whole and in time."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from typing import Final, cast

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

from ich_node.receive.incoming import LONGEST_COMMAND, MOST_WAITING, AnswerableMessages
from ich_node.receive.waiting import Alarm, wait_instead_of_looking

LONGEST_PDU: Final = 1024 * 1024 + 1024
"""Bytes: beyond the largest maximum that can be configured."""
PDU_S: Final = 8.0
"""Without a byte in the middle of a PDU; and after it, each must have come at SLOWEST or faster."""
SLOWEST: Final = 4096.0
"""Bytes a second, of a PDU that takes longer than PDU_S."""
MOST_VALUES: Final = 2000
"""Presentation data values in one PDU: pynetdicom takes 15 us for each."""
LOOK_S: Final = 1.0
"""Longest wait in one call to the system: deadlines are looked at in between."""

_HEADER_BYTES: Final = 6
_P_DATA: Final = 0x04


class WholeReads(AssociationSocket):
    """Reads a PDU with one call to the system where pynetdicom makes one for every 4 KiB, and in time.

    After each call a thread queues for the interpreter; with several associations that took most of the time.
    """

    _ahead: bytearray
    """What was read before there was an association."""
    _header: bytearray
    """Of the PDU whose rest is to come; empty between two."""
    _begun_at: float
    _alarm: Alarm
    _unfinished: int
    """Bytes of the data set of which fragments have come."""
    _command_bytes: int
    """Of the command set of which fragments have come."""
    _longest_object: int
    last_byte_at: float | None
    """On the monotonic clock; None between two PDUs."""
    _quiet_since: float
    _owes_answer: bool
    """A whole data set has come, and nothing was sent since."""

    @classmethod
    def of(cls, association: Association, ahead: bytes, longest_object: int = sys.maxsize) -> WholeReads:
        """Change the socket of an association: pynetdicom has no hook for its class, and a second one would be
        announced twice."""
        reading = association.dul.socket
        reading.__class__ = cls
        ours = cast(WholeReads, reading)
        ours._alarm = wait_instead_of_looking(association, AnswerableMessages())
        ours.begin(ahead, longest_object)
        return ours

    def begin(self, ahead: bytes, longest_object: int) -> None:
        """Make it ready to read the first PDU."""
        self._ahead, self._header, self._begun_at, self.last_byte_at = bytearray(ahead), bytearray(), 0.0, None
        self._unfinished, self._command_bytes, self._longest_object = 0, 0, longest_object
        self._quiet_since, self._owes_answer = time.monotonic(), False

    @property
    def ready(self) -> bool:
        """Wait until there is something to read or to send, for a moment; say whether it is to read.

        Nothing is read from who sends on and on without waiting for answers: what is whole would pile up in memory.
        """
        if not self.event_queue.empty():  # of two that came at once, as when it begins: the loop takes one at a time
            return False
        full = self.assoc.dimse.msg_queue.qsize() >= MOST_WAITING
        if self._ahead and not full:
            return True
        connection = self.socket
        if connection is None or not self._is_connected:
            return False
        if isinstance(connection, ssl.SSLSocket) and connection.pending() and not full:
            return True
        try:
            came = self._alarm.wait_for(None if full else connection.fileno())
            if came and isinstance(connection, ssl.SSLSocket):
                came = self._has_data(connection)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False
        if not came:  # the loop sleeps where it finds no event
            self.assoc.dul._process_recv_primitive()
        return came

    def _has_data(self, connection: ssl.SSLSocket) -> bool:
        """Say whether a PDU begins, or the connection ends: a new key comes by TLS and is neither (RFC 8446 4.6)."""
        timeout = connection.gettimeout()
        connection.settimeout(0)
        try:
            self._ahead += connection.recv(_HEADER_BYTES)
        except ssl.SSLWantReadError:
            return False
        finally:
            connection.settimeout(timeout)
        return True

    def let_go(self) -> None:
        """Give the alarm's descriptor back, which only who waits for it may do: pynetdicom does not always close."""
        self._alarm.close()

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``, a PDU's header or its rest; fewer where the connection ends before.

        Raises:
            OSError: the peer announced more than any PDU holds, was too slow with one, or sends an object without end.
        """
        if nr_bytes > LONGEST_PDU:
            raise OSError("the announced PDU is longer than allowed")
        is_rest = bool(self._header)
        if not is_rest:
            self._begun_at = self.last_byte_at = time.monotonic()
        received, self._ahead = self._ahead[:nr_bytes], self._ahead[nr_bytes:]
        if len(received) < nr_bytes:
            received += read_whole(cast(socket.socket, self.socket), nr_bytes - len(received), self._keep_pace)
        whole = len(received) == nr_bytes
        if is_rest and whole and self._header[0] == _P_DATA:
            self._check_values(received)
        if is_rest or not whole or not any(received[2:]):  # a PDU may be a header alone
            self._header, self.last_byte_at = bytearray(), None
            self._quiet_since = time.monotonic()
        else:
            self._header = received[:]
        return received

    def send(self, bytestream: bytes) -> None:
        """Send a PDU, and note that it is the peer's turn."""
        super().send(bytestream)
        self._quiet_since, self._owes_answer = time.monotonic(), False

    def idle_s(self) -> float:
        """Say for how long the peer has had its turn and sent nothing."""
        busy = self._owes_answer or self.last_byte_at is not None or not self.assoc.dimse.msg_queue.empty()
        return 0.0 if busy else time.monotonic() - self._quiet_since

    def _keep_pace(self, new: int, so_far: int) -> None:
        """Look whether a PDU comes in time.

        Raises:
            TimeoutError: nothing has come for PDU_S, or it comes more slowly than SLOWEST.
        """
        now = time.monotonic()
        if new:
            self.last_byte_at = now
        longest = min(PDU_S, self.assoc.network_timeout or PDU_S)
        took = now - self._begun_at
        silent = now - (self.last_byte_at or now) > longest
        if silent or (took > longest and so_far < took * SLOWEST):
            raise TimeoutError("the rest of a PDU did not come in time")

    def _check_values(self, data: bytearray) -> None:
        """Add up the fragments of a data set (PS3.8 9.3.5, Annex E.2).

        Raises:
            OSError: too many values in one PDU, or a data set that is longer than allowed.
        """
        begin = values = 0
        while begin + 6 <= len(data):
            length, _, control = struct.unpack_from(">LBB", data, begin)
            begin, values = begin + 4 + length, values + 1
            is_command, is_last = control & 1, control & 2
            self._command_bytes += length if is_command else 0
            self._unfinished += 0 if is_command else length
            too_long = self._command_bytes > LONGEST_COMMAND or self._unfinished > self._longest_object
            if too_long or values > MOST_VALUES:
                raise OSError("an object, or the number of its fragments, is larger than allowed")
            if is_last and is_command:
                self._command_bytes = 0
            elif is_last:
                self._unfinished, self._owes_answer = 0, True


def read_whole(connection: socket.socket, nr_bytes: int, look: Callable[[int, int], object]) -> bytearray:
    """Read so many bytes; fewer where the connection ends before.

    Args:
        look: called where there is more to wait for, with the bytes that came now and in all; may raise.

    Raises:
        TimeoutError: they did not come in time.
        OSError: the connection broke.
    """
    flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_WAITALL
    received = bytearray(nr_bytes)
    count = 0
    with memoryview(received) as view:
        while count < nr_bytes:
            try:
                new = connection.recv_into(view[count:], nr_bytes - count, flags)
            except (BlockingIOError, TimeoutError):  # nothing for a while
                new = None
            if new == 0:
                break
            count += new or 0
            if count < nr_bytes:
                look(new or 0, count)
    del received[count:]
    return received
