"""A small PACS: answers C-ECHO and C-FIND, keeps every object it is sent, may send it on.

It is no archive: nothing is fsynced, nothing can be retrieved, and its log names no object and no patient.
"""

import logging
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Self
from uuid import uuid4

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.transport import ThreadedAssociationServer

from ich_node.association import VERIFICATION, keep_answers
from ich_node.pacs.finding import STUDY_ROOT_FIND, find_matches, is_answerable

LOG: Final = logging.getLogger(__name__)

SUCCESS: Final = 0x0000
WARNINGS: Final = range(0xB000, 0xC000)
"""PS3.4 B.2.3: the object was stored, with a remark."""
DATA_SET_DOES_NOT_MATCH_SOP_CLASS: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
OUT_OF_RESOURCES: Final = 0xA700
IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS: Final = 0xA900
CANCELLED: Final = 0xFE00
PENDING: Final = 0xFF00

STORAGE_SERVICE_CLASS_UID: Final = "1.2.840.10008.4.2"
UID_FORM: Final = re.compile(r"[0-9.]{1,64}")
TRANSFER_SYNTAXES: Final = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    HTJ2K,
)
MAXIMUM_PDU_BYTES: Final = 128 * 1024
FORWARD_TIMEOUT_S: Final = 10.0


@dataclass
class SmallPacs:
    """A PACS in threads of this process; use it in a ``with`` block, or ``start`` and ``stop`` it."""

    directory: Path
    """Objects go to ``<directory>/<StudyInstanceUID>/<SOPInstanceUID>.dcm``."""
    ae_title: str = "PACS"
    """Any called AE title is answered."""
    port: int = 0
    """0: one that is free; after ``start`` the one taken."""
    bind: str = "127.0.0.1"
    accepted_sop_classes: tuple[str, ...] | None = None
    """Storage classes to accept; None: all, private and unknown ones too."""
    store_status: int | Callable[[Dataset], int] = SUCCESS
    """The answer to every object that could be stored; a failure status keeps it from being stored."""
    on_stored: Callable[[Path, Dataset], None] | None = None
    """Called after each object was stored, with its data set."""
    forward_to: tuple[str, int, str] | None = None
    """Host, port and AE title of a node that gets every stored object, in the background."""
    counts_instances: bool = True
    """Answer NumberOfSeriesRelatedInstances; False: leave that optional key empty, as some do."""
    received: Counter[str] = field(default_factory=Counter)
    """How often each SOP Instance UID was stored."""
    forwarded: Counter[str] = field(default_factory=Counter)
    """How often each SOP Instance UID was sent on and accepted."""
    _server: ThreadedAssociationServer | None = field(default=None, init=False, repr=False)
    _to_forward: SimpleQueue[Path | None] = field(default_factory=SimpleQueue, init=False, repr=False)
    _forwarder: threading.Thread | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen. Raises OSError where the port is taken."""
        if self._server is not None:
            raise ValueError("already started")
        self.directory.mkdir(parents=True, exist_ok=True)
        ae = AE(ae_title=self.ae_title)
        ae.maximum_pdu_size = MAXIMUM_PDU_BYTES
        ae.maximum_associations = 64
        ae.add_supported_context(VERIFICATION)
        ae.add_supported_context(STUDY_ROOT_FIND)
        handlers: list[EventHandlerType] = [
            (evt.EVT_CONN_OPEN, send_without_delay),
            (evt.EVT_REQUESTED, self._offer_contexts),
            (evt.EVT_SOP_COMMON, storage_for_unknown_classes),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
        ]
        server = ae.start_server((self.bind, self.port), block=False, evt_handlers=handlers)
        assert server is not None, "a server that does not block is returned"
        self._server = server
        self.port = server.server_address[1]
        if self.forward_to is not None:
            self._forwarder = threading.Thread(target=self._forward_all, name="pacs-forward", daemon=True)
            self._forwarder.start()

    def stop(self) -> None:
        """Stop listening, end what is connected, and send on what is still to be sent."""
        if self._server is None:
            return
        for association in self._server.active_associations:
            association.abort()
        self._server.shutdown()
        self._server = None
        if self._forwarder is not None:
            self._to_forward.put(None)
            self._forwarder.join()
            self._forwarder = None

    def path_of(self, sop_instance_uid: str) -> Path | None:
        """Return where an object is, None where it never came."""
        if not UID_FORM.fullmatch(sop_instance_uid):
            return None
        return next(self.directory.glob(f"*/{sop_instance_uid}.dcm"), None)

    def _offer_contexts(self, event: Event) -> None:
        """Offer what this association asks for, so that no list of storage classes can be too short."""
        acceptor = event.assoc.acceptor
        proposed = {str(context.abstract_syntax) for context in event.assoc.requestor.requested_contexts}
        offered = [context_of(uid) for uid in sorted(proposed) if self._accepts(uid)]
        acceptor.supported_contexts = [*acceptor.supported_contexts, *offered]

    def _accepts(self, abstract_syntax: str) -> bool:
        if not may_be_stored(abstract_syntax):
            return False
        return self.accepted_sop_classes is None or abstract_syntax in self.accepted_sop_classes

    def _store(self, event: Event) -> int:
        """Write one object and answer with a status of PS3.4 B.2.3."""
        assert isinstance(event.request, C_STORE)
        part10 = event.encoded_dataset()
        try:
            dataset = dcmread(BytesIO(part10))
            study_uid, sop_uid = str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID)
        except (InvalidDicomError, AttributeError, ValueError, EOFError):
            LOG.warning("an object could not be read; refused")
            return CANNOT_UNDERSTAND
        if not (is_safe_uid(study_uid) and is_safe_uid(sop_uid)) or sop_uid != event.request.AffectedSOPInstanceUID:
            LOG.warning("an object has UIDs that are malformed or contradict the request; refused")
            return DATA_SET_DOES_NOT_MATCH_SOP_CLASS
        status = self.store_status(dataset) if callable(self.store_status) else self.store_status
        if status != SUCCESS and status not in WARNINGS:
            return status
        try:
            path = self._write(study_uid, sop_uid, part10)
        except OSError as error:
            LOG.warning("an object could not be written: %s", error.strerror)
            return OUT_OF_RESOURCES
        self._announce(path, sop_uid, dataset)
        return status

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        """Answer which series or images match, each with a status of PS3.4 C.4.1.1.4."""
        identifier = event.identifier
        if not is_answerable(identifier) or not is_safe_uid(identifier.StudyInstanceUID):
            yield IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, None
            return
        for match in find_matches(self.directory, identifier, count_instances=self.counts_instances):
            if event.is_cancelled:
                yield CANCELLED, None
                return
            yield PENDING, match

    def _write(self, study_uid: str, sop_uid: str, part10: bytes) -> Path:
        """Put the file in place in one step; what was there under the same UID is replaced."""
        folder = self.directory / study_uid
        folder.mkdir(exist_ok=True)
        unfinished = self.directory / f".{uuid4().hex}.part"
        path = folder / f"{sop_uid}.dcm"
        try:
            unfinished.write_bytes(part10)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return path

    def _announce(self, path: Path, sop_uid: str, dataset: Dataset) -> None:
        with self._lock:
            self.received[sop_uid] += 1
        if self.forward_to is not None:
            self._to_forward.put(path)
        if self.on_stored is not None:
            self.on_stored(path, dataset)

    def _forward_all(self) -> None:
        while (path := self._to_forward.get()) is not None:
            if self._forward(path):
                self.forwarded[path.stem] += 1
            else:
                LOG.warning("an object could not be sent on")

    def _forward(self, path: Path) -> bool:
        """Send one object on; return whether it was accepted."""
        assert self.forward_to is not None
        host, port, called_ae_title = self.forward_to
        dataset = dcmread(path)
        ae = AE(ae_title=self.ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = FORWARD_TIMEOUT_S
        ae.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        association = ae.associate(
            host, port, ae_title=called_ae_title, evt_handlers=[(evt.EVT_CONN_OPEN, send_without_delay)]
        )
        if not association.is_established or not association.accepted_contexts:
            association.abort()
            return False
        keep_answers(association)
        answer = association.send_c_store(dataset)
        association.release()
        return "Status" in answer and (answer.Status == SUCCESS or answer.Status in WARNINGS)


def send_study(
    files: Iterable[Path], host: str, port: int, called_ae_title: str, calling_ae_title: str = "PACS"
) -> int:
    """Send files in one association, each in the transfer syntax it is stored in; return how many were accepted.

    Raises:
        ConnectionError: no association, or it ended before the last file.
    """
    paths = list(files)
    ae = AE(ae_title=calling_ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = FORWARD_TIMEOUT_S
    for class_uid, syntax_uid in sorted({_class_and_syntax(path) for path in paths}):
        ae.add_requested_context(class_uid, syntax_uid)
    handlers: list[EventHandlerType] = [(evt.EVT_CONN_OPEN, send_without_delay)]
    association = ae.associate(host, port, ae_title=called_ae_title, evt_handlers=handlers)
    if not association.is_established:
        raise ConnectionError(f"no association with {called_ae_title} at {host}:{port}")
    keep_answers(association)
    accepted = 0
    for path in paths:
        answer = association.send_c_store(path)
        if "Status" not in answer:
            raise ConnectionError(f"{called_ae_title} ended the association after {accepted} objects")
        accepted += answer.Status == SUCCESS or answer.Status in WARNINGS
    association.release()
    return accepted


def _class_and_syntax(path: Path) -> tuple[str, str]:
    meta = read_file_meta_info(path)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def send_without_delay(event: Event) -> None:
    """Set TCP_NODELAY: each answer is one small segment that nobody should wait for."""
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def storage_for_unknown_classes(event: Event) -> dict[str, SOPClassCommonExtendedNegotiation]:
    """Have classes that pynetdicom does not know served as storage, for this association only (PS3.7 D.3.3.6)."""
    answer = {}
    for context in event.assoc.requestor.requested_contexts:
        uid = str(context.abstract_syntax)
        if may_be_stored(uid) and uid_to_service_class(uid) is not StorageServiceClass:
            item = SOPClassCommonExtendedNegotiation()
            item.sop_class_uid = uid
            item.service_class_uid = STORAGE_SERVICE_CLASS_UID
            answer[uid] = item
    return answer


def may_be_stored(abstract_syntax: str) -> bool:
    """Return True for storage classes and for classes of no known service."""
    return uid_to_service_class(abstract_syntax) in (StorageServiceClass, ServiceClass)


def context_of(abstract_syntax: str) -> PresentationContext:
    """Return a presentation context with every transfer syntax accepted here."""
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = list(TRANSFER_SYNTAXES)
    return context


def is_safe_uid(uid: str) -> bool:
    """Return True for 1 to 64 digits and dots that name a file and nothing but a file."""
    return UID_FORM.fullmatch(uid) is not None and uid.strip(".") != ""
