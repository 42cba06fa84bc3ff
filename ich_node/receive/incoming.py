"""What comes of a message before it is whole: a little in memory, the rest in a file without a name.

pynetdicom keeps whatever comes in memory, of as many messages as a peer sends before it waits for an answer. Thirty-two
associations with half an object of 512 MiB each would hold 16 GiB.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dul import DULServiceProvider
from pynetdicom.events import EVT_CONN_CLOSE, trigger
from pynetdicom.pdu_primitives import P_DATA

from ich_node.durable import troubles_are_named
from ich_node.errors import SpoolFull, SpoolReadOnly, StorageFailed
from ich_node.log import EventLog
from ich_node.receive.association_request import ReadRequest
from ich_node.receive.store_request import ReceivedValues, StoreRequest, usual_store_request
from ich_node.receive.waiting import Messages

IN_MEMORY: Final = 1024 * 1024
"""Bytes of a data set; what is longer goes into a file. A slice of 512 x 512 has half of it."""
LONGEST_COMMAND: Final = 64 * 1024
"""Bytes of a command set; they have some 200."""
MOST_WAITING: Final = 2
"""Whole messages of one association that wait for their turn; then nothing more is read from it."""
_P_DATA_TF: Final = 0x04
_PIECE: Final = 256 * 1024
_LOOK_AT_DISK_EVERY: Final = 16 * 1024 * 1024

log = EventLog("receive")


class IncomingDataSet(BytesIO):
    """The encoded data set of one message, as it comes."""

    def __init__(self, folder: Path, reserve_bytes: int = 0) -> None:
        super().__init__()
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._file: BinaryIO | None = None
        self.size = 0
        self._trouble: SpoolFull | SpoolReadOnly | StorageFailed | None = None
        """Why the rest of it is not kept."""
        self._looked_at = 0
        self.may_be_long = False

    def write(self, piece: Any) -> int:
        """Add what came. Where the disk takes no more the rest is counted and not kept; `check_kept` says so.

        Raises:
            OSError: it is longer than the data set of such a message may be.
        """
        self.size += len(piece)
        if self._file is None and self.size > IN_MEMORY:
            if not self.may_be_long:
                raise OSError("the data set of a message is longer than allowed")
            self._keep(self._move_to_file)
        if self._trouble is None:
            if self._file is None:
                return super().write(piece)
            self._keep(lambda: self._append(piece))
        return len(piece)

    def check_kept(self) -> None:
        """Raise where not all of it could be kept.

        Raises:
            SpoolFull: the disk is full.
            SpoolReadOnly: it is mounted read-only.
            StorageFailed: it failed.
        """
        if self._trouble is not None:
            raise self._trouble

    def with_mark(self, mark: bytes) -> BinaryIO:
        """Give a file with the data set and ``mark`` behind it, to be read.

        Raises:
            SpoolFull, SpoolReadOnly, StorageFailed: as of `check_kept`.
        """
        if self._file is None:
            return BytesIO(b"".join((self.getvalue(), mark)))
        with _named():  # what was buffered is written only now
            self._file.seek(self.size)
            self._file.write(mark)
            self._file.seek(0)
        return self._file

    def pieces(self) -> Iterator[bytes]:
        """Give the data set in pieces."""
        if self._file is None:
            yield self.getvalue()
            return
        self._file.seek(0)
        left = self.size
        while left and (piece := self._file.read(min(_PIECE, left))):
            left -= len(piece)
            yield piece

    def sha256(self) -> str:
        """Hash the data set, in hexadecimal."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    def close(self) -> None:
        """Let go of memory and disk."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        super().close()

    def _keep(self, how: Callable[[], object]) -> None:
        try:
            with _named():
                how()
        except (SpoolFull, SpoolReadOnly, StorageFailed) as error:
            self._trouble = error
            self.truncate(0)

    def _move_to_file(self) -> None:
        """The file has no name from the start where the system can do that: a crash leaves nothing."""
        self._check_disk()
        file = tempfile.TemporaryFile(dir=self._folder, buffering=_PIECE)  # noqa: SIM115 - open until close()
        self._file = cast(BinaryIO, file)
        file.write(self.getvalue())
        self.seek(0)
        self.truncate(0)

    def _append(self, piece: Any) -> None:
        assert self._file is not None
        if self.size - self._looked_at > _LOOK_AT_DISK_EVERY:
            self._check_disk()
        self._file.write(piece)

    def _check_disk(self) -> None:
        self._looked_at = self.size
        if shutil.disk_usage(self._folder).free < self._reserve_bytes:
            raise SpoolFull("the disk is filled up to its reserve")


@contextmanager
def _named() -> Iterator[None]:
    """Name why the disk takes no more; whatever else the system says, the sender may come again."""
    try:
        with troubles_are_named():
            yield
    except OSError as error:
        raise SpoolFull(f"an object that is coming cannot be kept: {error.strerror}") from error


class AnswerableMessages(Messages):
    """Whole messages that wait for their turn; none that pynetdicom would pass over in silence."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add context ID and message; two times None where the association ends.

        Raises:
            ValueError: the message lacks what a request or response must have (PS3.7 9.3): nobody would answer it.
        """
        message = item[1]
        if message is not None and not (message.is_valid_request or message.is_valid_response):
            raise ValueError("a message lacks what it must have")
        super().put(item, block, timeout)


class BoundedMessages(DIMSEServiceProvider):
    """Puts messages together without keeping more of them in memory than allowed."""

    _folder: Path
    _reserve_bytes: int
    _request: StoreRequest | None
    """One that we decode; what pynetdicom decodes is in ``message``."""

    @classmethod
    def of(cls, messages: DIMSEServiceProvider, folder: Path, reserve_bytes: int) -> None:
        """Change the one of an association: pynetdicom has no hook for its class."""
        messages.__class__ = cls
        ours = cast(BoundedMessages, messages)
        ours._folder, ours._reserve_bytes, ours._request = folder, reserve_bytes, None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take one P-DATA, whose values may belong to several messages; abort where one cannot be read, or is too long.

        pynetdicom would end the thread, and leave the connection open.
        """
        for context_id, fragment in primitive.presentation_data_value_list:
            try:
                self._take(context_id, fragment)
            except Exception as error:  # noqa: BLE001 - a broad catch (docs/architecture.md): pynetdicom raises what its parts raise
                self._request = self.message = None
                address = self.assoc.requestor.address
                log.warning(
                    "association aborted: its message cannot be read", address=address, why=type(error).__name__
                )
                self.dul.event_queue.put("Evt19")  # an invalid PDU: A-ABORT (PS3.8 9.2)
                return

    def _take(self, context_id: int, fragment: bytes | memoryview) -> None:
        """Take one value: of the usual C-STORE request we decode it ourselves, of anything else pynetdicom does."""
        if self._request is None and self.message is None:
            if (primitive := usual_store_request(context_id, fragment)) is not None:
                data_set = IncomingDataSet(self._folder, self._reserve_bytes)
                data_set.may_be_long = True
                self._request = StoreRequest(primitive, data_set)
                return
            self.message = DIMSEMessage()
            self.message.data_set = IncomingDataSet(self._folder, self._reserve_bytes)
        if self._request is not None:
            if self._request.take(fragment):
                primitive, self._request = self._request.primitive, None
                self.msg_queue.put((cast(int, primitive._context_id), primitive))
            return
        one = P_DATA()
        one.presentation_data_value_list.append((context_id, bytes(fragment)))
        if isinstance(coming := cast(DIMSEMessage, self.message).data_set, IncomingDataSet):
            coming.may_be_long = isinstance(self.message, C_STORE_RQ)
        super().receive_primitive(one)


class GuardedReactor(DULServiceProvider):
    """The thread that reads an association's PDUs; it ends with its connection, whatever comes."""

    _asked: ReadRequest
    _at_end: Callable[[], None]

    @classmethod
    def of(cls, reactor: DULServiceProvider, asked: ReadRequest, at_end: Callable[[], None]) -> None:
        """Change the one of an association before it begins.

        Args:
            asked: the request that it will read first.
            at_end: called when the thread ends, in whatever way.
        """
        reactor.__class__ = cls
        ours = cast(GuardedReactor, reactor)
        ours._asked, ours._at_end = asked, at_end

    def _decode_pdu(self, bytestream: bytearray) -> Any:
        """Decode a PDU, and name its event; those that carry data sets without copying these."""
        if bytestream[0] == _P_DATA_TF:
            return ReceivedValues(bytestream), "Evt10"
        if bytestream == self._asked.encoded:
            return self._asked, "Evt6"
        return super()._decode_pdu(bytestream)

    def run(self) -> None:
        """Run; where PDUs come that its state machine has no answer to, close the connection and say so in one line."""
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 - a broad catch (docs/architecture.md): pynetdicom would leave the connection to nobody
            whose, why = self.assoc.requestor.address, type(error).__name__
            log.warning("association cut: what it sent is out of order", address=whose, why=why)
            self.assoc.is_aborted, self.assoc.is_established = True, False
            self.assoc._kill = self._kill_thread = True
            if self.socket is not None:
                self.socket.close()
            trigger(self.assoc, EVT_CONN_CLOSE, {"address": whose})
        finally:
            self._at_end()
