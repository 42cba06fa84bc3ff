"""The service class provider: one handler per event, each event in, status out."""

from __future__ import annotations

import errno
import hashlib
import struct
import threading
import time
import uuid
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom import _config as pynetdicom_config
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from ich_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from ich_node.association import measure_by_no_clock
from ich_node.config import Config
from ich_node.database import Database, open_database, prepare_database
from ich_node.errors import StartError, StorageFailed, StorageUnavailable, TransientError
from ich_node.job_queue import (
    SendingAssociation,
    forget_association,
    free_leases_of_the_dead,
    known_paths,
    look_up,
    new_owner,
    register_instance,
    release_association,
)
from ich_node.log import EventLog
from ich_node.receive import statuses
from ich_node.receive.association_request import AssociationRequest
from ich_node.receive.data_set import Identity, RefusedDataSet, check_agreement, identify
from ich_node.receive.entry import READ_SOP_CLASSES, Kept, describe
from ich_node.receive.negotiation import Negotiation, serve_as_storage
from ich_node.receive.self_check import SelfCheck
from ich_node.receive.spool import Spool, file_head, split_file
from ich_node.receive.transport import ConnectionHandler, Server
from ich_node.records import Reception
from ich_node.role_lock import holding_role
from ich_node.service import SystemdNotifier, stop_on_signals
from ich_node.timekeeping import keep_time

_REJECTED_PERMANENT, _BY_USER = 1, 1
_NO_REASON, _CALLING_AE_TITLE_NOT_RECOGNISED = 1, 3
_ASSOCIATION_TIMEOUT_S: Final = 10.0
_RECOVERED: Final = "RECOVERED"
_PRIORITIES: Final = {0: "MEDIUM", 1: "HIGH", 2: "LOW"}
"""Priority of a C-STORE request (PS3.7 9.3.1.1)."""

_LOOK_S: Final = 2.0
_LOOKS_A_CHECK: Final = 5
_DRAIN_S: Final = 30.0
_FAILED_DRAIN_S: Final = 2.0

log = EventLog("receive")


@dataclass(frozen=True, slots=True)
class _Sender:
    calling_ae_title: str
    address: str
    """Empty where it is not known any more."""
    association: SendingAssociation | None


class Receiver:
    """A storage SCP over one state folder."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._database = database
        self._spool = Spool(config.state_directory, config.receiver.reserve_mib)
        accept = config.receiver.accept
        self._negotiation = Negotiation(config.peer, allow_any=config.receiver.allow_any, accept=accept)
        self._owner = new_owner()
        self._sending: dict[Any, SendingAssociation] = {}
        """Open associations that have sent something."""
        self._lock = threading.Lock()
        self._failed = threading.Event()
        self.check = SelfCheck(database, config.state_directory, config.node.ae_title, config.node.bind)
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------------------------ life

    def start(self) -> None:
        """Clear up after a crash and listen.

        Raises:
            StartError: the port is taken, or the state folder cannot be written.
        """
        self._spool.prepare()
        free_leases_of_the_dead(self._database)
        self._adopt_orphans()
        self._server = self._listen()
        self._server.knows = self._knows
        self._server.longest_object = self._config.receiver.maximum_object_mib * 1024 * 1024
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="listener", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        assert self._server is not None, "start() comes first"
        return int(self._server.server_address[1])

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """The disk or the database failed: nothing is stored any more, and this process has to end."""
        return self._failed.is_set() or self._database.failed

    def stop(self, drain_s: float = 30.0) -> None:
        """Take no more connections, let open associations finish for a while, then abort them."""
        if self._server is None:
            return
        self._server.shutdown()
        deadline = time.monotonic() + drain_s
        while (left := self._server.active_associations) and time.monotonic() < deadline:
            left[0].join(min(0.5, max(0.0, deadline - time.monotonic())))
        for association in self._server.active_associations:
            association.abort()
        self._server = None
        self.check.close()

    def _listen(self) -> Server:
        settings = self._config.node
        try:
            server = self._application_entity().make_server(
                (settings.bind, settings.port),
                ae_title=settings.ae_title,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self.on_requested),
                    (evt.EVT_SOP_COMMON, serve_as_storage),
                    (evt.EVT_C_STORE, self.on_store),
                    (evt.EVT_RELEASED, self.on_released),
                    (evt.EVT_CONN_CLOSE, self.on_closed),
                ],
                server_class=Server,
                request_handler=ConnectionHandler,
            )
            return cast(Server, server)
        except OSError as error:
            taken = error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
            what = f"cannot listen on {settings.bind}:{settings.port}: {error.strerror}"
            hint = "; is another node running? see node.port and node.bind" if taken else ""
            raise StartError(what + hint) from error

    def _application_entity(self) -> AE:
        measure_by_no_clock()
        pynetdicom_config.LOG_REQUEST_IDENTIFIERS = False
        pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
        pynetdicom_config.LOG_HANDLER_LEVEL = "none"
        # a UID that is too long is answered 0xA900; by itself pynetdicom would abort the whole study's association
        pynetdicom_config.VALIDATORS["UI"] = lambda _uid: (True, "")
        entity = AE(ae_title=self._config.node.ae_title)
        entity.require_called_aet = True
        entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = self._config.receiver.maximum_pdu_kib * 1024
        entity.maximum_associations = self._config.receiver.maximum_associations
        entity.acse_timeout = _ASSOCIATION_TIMEOUT_S
        entity.network_timeout = self._config.receiver.idle_timeout_s
        entity.dimse_timeout = self._config.receiver.idle_timeout_s
        entity.add_supported_context(Verification)  # the others are decided per association, in on_requested
        return entity

    # ---------------------------------------------------------------------------------- events

    def _knows(self, asked: AssociationRequest, address: str) -> bool:
        if asked.calling_ae_title == self.check.calling_ae_title:
            return True
        named = asked.called_ae_title == self._config.node.ae_title
        return named and self._negotiation.admits(asked.calling_ae_title, address)

    def on_requested(self, event: Event) -> None:
        """Reject who is not on the allow-list; offer our contexts to the others."""
        request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        calling, address = request.calling_ae_title.strip(), event.assoc.requestor.address
        if calling == self.check.calling_ae_title:
            event.assoc.acceptor.supported_contexts = self._negotiation.contexts_for([])
            return
        if not self._negotiation.admits(calling, address):
            known = self._negotiation.knows(calling)
            log.warning("association refused", address=address, calling_ae_title=calling, ae_title_known=known)
            reason = _NO_REASON if known else _CALLING_AE_TITLE_NOT_RECOGNISED
            event.assoc.acse.send_reject(_REJECTED_PERMANENT, _BY_USER, reason)
            event.assoc.kill()
            return
        proposed = [str(context.abstract_syntax) for context in request.presentation_context_definition_list or ()]
        event.assoc.acceptor.supported_contexts = self._negotiation.contexts_for(proposed)

    def on_store(self, event: Event) -> int:
        """Answer a C-STORE (PS3.4 B.2.2): success means that the object is safe."""
        try:
            return self._store(event)
        except RefusedDataSet as refused:
            log.warning("object refused", why=refused.why, status=f"0x{refused.status:04X}", **_origin(event))
            return refused.status
        except (StorageUnavailable, StorageFailed) as error:
            if isinstance(error, StorageFailed):
                self._failed.set()
            log.error("object refused", error, status="0xA700", **_origin(event))
            return statuses.OUT_OF_RESOURCES
        except Exception as error:  # noqa: BLE001 - one of the two broad catches: a peer always gets a status
            log.error("object refused", error, status="0x0110", **_origin(event))
            return statuses.PROCESSING_FAILURE

    def on_released(self, event: Event) -> None:
        """Let the series of a released association close soon, but for those another association still sends."""
        if (association := self._ended(event)) is not None:
            settings = self._config.series
            try:
                release_association(
                    self._database, association, quiet_s=settings.quiet_s, max_wait_s=settings.max_wait_s
                )
            except (TransientError, StorageFailed) as error:  # its series close at max_wait_s instead
                log.error("release not noted", error, association=association.name)

    def on_closed(self, event: Event) -> None:
        """Forget an association that was aborted or cut: its series close after ``max_wait_s``."""
        if (association := self._ended(event)) is not None:
            try:
                forget_association(self._database, association)
            except (TransientError, StorageFailed) as error:  # its lease runs out
                log.error("abort not noted", error, association=association.name)

    def _ended(self, event: Event) -> SendingAssociation | None:
        """Give an association that has sent something, once."""
        with self._lock:
            return self._sending.pop(event.assoc, None)

    def _association(self, event: Event) -> SendingAssociation:
        with self._lock:
            known = self._sending.get(event.assoc)
            if known is None:
                known = SendingAssociation(uuid.uuid4().hex, self._owner)
                self._sending[event.assoc] = known
            return known

    # --------------------------------------------------------------------------------- storing

    def _store(self, event: Event) -> int:
        if self.failed:
            raise StorageFailed("the disk or the database failed a moment ago; this process ends")
        request = cast(C_STORE, event.request)
        if request.DataSet is None:
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the request holds no data set")
        encoded = request.DataSet.getvalue()  # no copy, unlike getbuffer() when it is read again
        syntax = str(event.context.transfer_syntax)
        identity = identify(encoded, syntax)
        check_agreement(identity, str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
        if not identity.requested_priority:
            identity = replace(identity, requested_priority=_PRIORITIES.get(request.Priority, ""))
        for warning in identity.warnings:
            log.warning("object has a fault of form", fault=warning, **_origin(event))
        requestor = event.assoc.requestor
        sender = _Sender(requestor.ae_title.strip(), requestor.address, self._association(event))
        reception, series_id = self._keep(encoded, identity, syntax, sender)
        log.info("object received", reception=reception.name, series=series_id, bytes=len(encoded), **_origin(event))
        if reception is Reception.QUARANTINED:
            log.error("an image's UID is in two series; both are quarantined", None, series=series_id, **_origin(event))
        return statuses.SUCCESS

    def _keep(self, encoded: bytes, identity: Identity, syntax: str, sender: _Sender) -> tuple[Reception, int | None]:
        sha256 = hashlib.sha256(encoded).hexdigest()
        if known := look_up(self._database, identity.sop_instance_uid, sha256):
            return known, None
        head = file_head(identity.sop_class_uid, identity.sop_instance_uid, syntax, sender.calling_ae_title)
        path = self._spool.write((head, encoded))
        try:
            return self._register(identity, syntax, sha256, len(encoded), path, sender)
        except TransientError:
            self._spool.remove(path)  # nothing was written, and the sender is told so
            raise  # after any other error the row may be there for all we know: the next start looks

    def _register(
        self, identity: Identity, syntax: str, sha256: str, size: int, path: str, sender: _Sender
    ) -> tuple[Reception, int]:
        kept = Kept(path, sha256, size, syntax)
        received = describe(self._config, identity, kept, sender.calling_ae_title, sender.address)
        reception, series_id = register_instance(
            self._database,
            received,
            max_wait_s=self._config.series.max_wait_s,
            analysed=identity.sop_class_uid in READ_SOP_CLASSES,
            association=sender.association,
        )
        if reception is Reception.DUPLICATE:
            self._spool.remove(path)
        return reception, series_id

    def _adopt_orphans(self) -> None:
        """Enter files that a crash left without a row: written, but never answered with success."""
        known = known_paths(self._database)
        for path in [path for path in self._spool.files() if path not in known]:
            part10 = (self._config.state_directory / path).read_bytes()
            try:
                syntax, encoded = split_file(part10)
                identity = identify(encoded, syntax)
            except (RefusedDataSet, ValueError, struct.error) as error:
                log.error("file without a row cannot be read and stays where it is", error, path=path)
                continue
            sha256 = hashlib.sha256(encoded).hexdigest()
            self._register(identity, syntax, sha256, len(encoded), path, _Sender(_RECOVERED, "", None))
            log.warning("file without a row adopted", path=path)


def _origin(event: Event) -> dict[str, str]:
    requestor = event.assoc.requestor
    return {
        "calling_ae_title": requestor.ae_title.strip(),
        "address": requestor.address,
        "association": event.assoc.name,
    }


def run_receiver(config: Config) -> None:
    """Receive until a signal says stop.

    Raises:
        StartError: the node cannot run here.
    """
    database = open_database(config.database_url, config.database.busy_timeout_s)
    notifier = SystemdNotifier()
    with stop_on_signals() as stop, holding_role(config.state_directory, "receive"):
        prepare_database(database, config.state_directory)
        keep_time(config, database)
        receiver = Receiver(config, database)
        receiver.start()
        log.info("receiver ready", ae_title=config.node.ae_title, bind=config.node.bind, port=receiver.port)
        notifier.ready(f"receiving on port {receiver.port}")
        _watch(receiver, stop, notifier)
        notifier.stopping()
        receiver.stop(_FAILED_DRAIN_S if receiver.failed else _DRAIN_S)
        if receiver.failed:
            raise StorageFailed("the disk or the database failed: what is stored is looked over at the next start")
        if not stop.is_set():
            raise StartError("the listener ended by itself")
    database.close()


def _watch(receiver: Receiver, stop: threading.Event, notifier: SystemdNotifier) -> None:
    """Say that we are alive as long as we are, until a signal, the end of the listener, or a disk that failed."""
    passed, looks = True, 0
    while receiver.alive and not receiver.failed and not stop.wait(_LOOK_S):
        if looks % _LOOKS_A_CHECK == 0:
            passed = receiver.check.passes(receiver.port)
        looks = looks + 1 if passed else 0
        if passed:
            notifier.alive()
