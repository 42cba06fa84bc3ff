"""The service class provider: one handler per event, each event in, status out."""

from __future__ import annotations

import errno
import hashlib
import ssl
import struct
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, cast

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom import _config as pynetdicom_config
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from ich_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from ich_node.association import measure_by_no_clock
from ich_node.audit import AuditTrail, Outcome, Peer, Subject, Transfers, open_trail
from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import StartError, StorageFailed, StorageUnavailable, TransientError
from ich_node.failpoint import reach
from ich_node.job_queue import (
    SendingAssociation,
    forget_association,
    free_leases_of_the_dead,
    is_forgotten,
    known_paths,
    look_up,
    new_owner,
    register_instance,
    release_association,
)
from ich_node.log import EventLog
from ich_node.receive import statuses
from ich_node.receive.association_request import AssociationRequest
from ich_node.receive.commitment_reports import CommitmentReports
from ich_node.receive.data_set import Identity, check_agreement, end_mark, identify, identify_file
from ich_node.receive.entry import READ_SOP_CLASSES, Kept, describe
from ich_node.receive.incoming import IncomingDataSet
from ich_node.receive.negotiation import Negotiation, serve_as_storage
from ich_node.receive.nesting import RefusedDataSet
from ich_node.receive.self_check import SelfCheck
from ich_node.receive.spool import Spool, file_head, split_file
from ich_node.receive.transport import ConnectionHandler, Server
from ich_node.records import PeerCertificate, Reception
from ich_node.tls import ServerTls, log_state, peer_certificate

_REJECTED_PERMANENT, _BY_USER = 1, 1
_NO_REASON, _CALLING_AE_TITLE_NOT_RECOGNISED = 1, 3
_ASSOCIATION_TIMEOUT_S: Final = 10.0
_STUCK_S: Final = 15.0
"""Longest time that the listener may need for one connection."""
_RECOVERED: Final = "RECOVERED"
_PRIORITIES: Final = {0: "MEDIUM", 1: "HIGH", 2: "LOW"}
"""Priority of a C-STORE request (PS3.7 9.3.1.1)."""

log = EventLog("receive")


@dataclass(frozen=True, slots=True)
class _Sender:
    calling_ae_title: str
    address: str
    """Empty where it is not known any more."""
    association: SendingAssociation | None


class Receiver:
    """A storage SCP over one state folder."""

    def __init__(self, config: Config, database: Database, trail: AuditTrail | None = None) -> None:
        self._config = config
        self._database = database
        self._trail = trail or open_trail(config, "receive")
        self._transfers = Transfers(self._trail, incoming=True)
        self._spool = Spool(config.state_directory, config.receiver.reserve_mib)
        accept = config.receiver.accept
        self._negotiation = Negotiation(config.peer, allow_any=config.receiver.allow_any, accept=accept)
        self._commitments = CommitmentReports(config, database)
        self._owner = new_owner()
        self._sending: dict[Any, SendingAssociation] = {}
        """Open associations that have sent something."""
        self._closed: weakref.WeakKeyDictionary[Any, SendingAssociation] = weakref.WeakKeyDictionary()
        """Associations that have ended after they sent something; one may still be storing its last object."""
        self._lock = threading.Lock()
        self._failed = threading.Event()
        self.check = SelfCheck(database, config.state_directory, config.node.ae_title, config.node.bind)
        self._servers: list[Server] = []
        """The plain port first, where it is open."""
        self._threads: list[threading.Thread] = []

    # ------------------------------------------------------------------------------------ life

    def start(self) -> None:
        """Clear up after a crash and listen.

        Raises:
            StartError: the port is taken, or the state folder cannot be written.
            ConfigError: certificates cannot be used.
        """
        self.prepare()
        self.listen()
        self.serve()

    def prepare(self) -> None:
        """Clear up after a crash; once, by the first process of the receiver and before any other is there.

        Raises:
            StartError: the state folder cannot be written.
        """
        self._spool.prepare()
        free_leases_of_the_dead(self._database)
        self._adopt_orphans()

    def listen(self, processes: int = 1) -> None:
        """Let connections come; they wait until somebody serves them.

        Raises:
            StartError: a port is taken.
            ConfigError: certificates cannot be used.
        """
        self._servers = self._listen_everywhere(processes)

    def serve(self, number: int = 0) -> None:
        """Serve the connections that come, as one of the processes that share them."""
        assert self._servers, "listen() comes first"
        self._owner = new_owner()
        for server in self._servers:
            server.number, server.went_round_at = number, time.monotonic()
            server.refused = self._trail.refused
            thread = threading.Thread(target=server.serve_forever, args=(0.2,), name="listener", daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def port(self) -> int:
        """The port of plain DICOM, or that of TLS where there is no other."""
        assert self._servers, "start() comes first"
        return int(self._servers[0].server_address[1])

    @property
    def tls_port(self) -> int | None:
        """The port that takes TLS alone; None where none does."""
        return next((int(one.server_address[1]) for one in self._servers if one.tls is not None), None)

    @property
    def alive(self) -> bool:
        return bool(self._threads) and all(one.is_alive() for one in self._threads)

    @property
    def failed(self) -> bool:
        """The disk or the database failed: nothing is stored any more, and this process has to end."""
        return self._failed.is_set() or self._database.failed

    def work_apart(self) -> None:
        """Have an audit trail of one's own, as a process beside the one that made this receiver."""
        self._trail = open_trail(self._config, "receive")
        self._transfers = Transfers(self._trail, incoming=True)

    def end_trail(self) -> None:
        """Let go of the audit trail of a process that worked apart."""
        self._trail.close()

    def show_life(self) -> None:
        """Look whether the listeners go round, and the database answers.

        Raises:
            StartError: one does not go round any more.
            StorageUnavailable: the database does not answer now.
            StorageFailed: it never will.
        """
        if any(time.monotonic() - one.went_round_at > _STUCK_S for one in self._servers):
            raise StartError("the listener does not accept connections any more")
        with self._database.reading():
            pass

    def note_gone(self, number: int) -> None:
        """Note that another process that shares the connections takes no more."""
        if self._servers:
            self._servers[0].loads.leave(number)

    def leave_to_others(self) -> None:
        """Stop listening in this process, which has served nobody."""
        for server in self._servers:
            server.server_close()

    def stop(self, drain_s: float = 30.0, give_up: Callable[[], bool] = lambda: False) -> None:
        """Take no more connections, let open associations finish for a while, then abort them.

        Args:
            drain_s: how long.
            give_up: asked now and then whether to wait no longer.
        """
        for server in self._servers:
            server.shutdown()
        deadline = time.monotonic() + drain_s
        while (left := self._active_associations()) and time.monotonic() < deadline and not give_up():
            left[0].join(min(0.5, max(0.0, deadline - time.monotonic())))
        for association in self._active_associations():
            association.abort()
        self._servers = []
        self.check.close()

    def _active_associations(self) -> list[Association]:
        return [one for server in self._servers for one in server.active_associations]

    def _listen_everywhere(self, processes: int) -> list[Server]:
        """Listen on the plain port, with TLS on its own, or on both; they share one limit and one lobby."""
        tls, files = self._config.tls, self._config.tls.files_of_the_receiver
        servers = [self._listen(self._config.node.port, None)] if tls.plain_is_open else []
        if files is not None:
            secure = ServerTls(files, require_certificate=tls.require_client_certificate)
            log_state(files, serves=True)
            servers.append(self._listen(tls.port, secure.context))
        for one in servers:
            if processes > 1:
                one.divide(processes, self._config.receiver.maximum_associations)
            one.share_with(servers[0])
        servers[0].admission.limit_each_address(self._config.receiver.most_of_one_address)
        return servers

    def _listen(self, port: int, tls: Callable[[], ssl.SSLContext] | None) -> Server:
        settings = self._config.node
        try:
            server = self._application_entity().make_server(
                (settings.bind, port),
                ae_title=settings.ae_title,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self.on_requested),
                    (evt.EVT_REJECTED, self.on_rejected),
                    (evt.EVT_SOP_COMMON, serve_as_storage),
                    (evt.EVT_C_STORE, self.on_store),
                    (evt.EVT_N_EVENT_REPORT, self._commitments.on_event_report),
                    (evt.EVT_RELEASED, self.on_released),
                    (evt.EVT_CONN_CLOSE, self.on_closed),
                ],
                server_class=Server,
                request_handler=ConnectionHandler,
            )
        except OSError as error:
            taken = error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
            what = f"cannot listen on {settings.bind}:{port}: {error.strerror}"
            key = "node.port" if tls is None else "tls.port"
            hint = f"; is another node running? see {key} and node.bind" if taken else ""
            raise StartError(what + hint) from error
        listening = cast(Server, server)
        listening.tls, listening.knows = tls, self._knows
        listening.longest_object = self._config.receiver.maximum_object_mib * 1024 * 1024
        listening.incoming = self._spool.incoming, self._config.receiver.reserve_mib * 1024 * 1024
        return listening

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

    def _knows(self, asked: AssociationRequest, address: str, certificate: PeerCertificate | None) -> bool:
        if asked.calling_ae_title == self.check.calling_ae_title:
            return True
        named = asked.called_ae_title == self._config.node.ae_title
        return named and self._negotiation.admits(asked.calling_ae_title, address, certificate)

    def on_requested(self, event: Event) -> None:
        """Reject who is not on the allow-list, or shows not its certificate; offer our contexts to the others."""
        request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        calling, address = request.calling_ae_title.strip(), event.assoc.requestor.address
        if calling == self.check.calling_ae_title:
            event.assoc.acceptor.supported_contexts = self._negotiation.contexts_for([])
            return
        wrapped = event.assoc.dul.socket
        certificate = peer_certificate(None if wrapped is None else wrapped.socket)
        if not self._negotiation.admits(calling, address, certificate):
            reason = self._why_refused(request, address, certificate)
            event.assoc.acse.send_reject(_REJECTED_PERMANENT, _BY_USER, reason)
            event.assoc.kill()
            return
        proposed = [str(context.abstract_syntax) for context in request.presentation_context_definition_list or ()]
        contexts = self._negotiation.contexts_for(proposed) + self._commitments.contexts_for(calling, proposed)
        event.assoc.acceptor.supported_contexts = contexts

    def _why_refused(self, request: A_ASSOCIATE, address: str, certificate: PeerCertificate | None) -> int:
        """Log a refusal; give the reason for the A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        known = self._negotiation.knows(calling)
        if self._negotiation.asks_for_a_certificate(calling, address):
            shown = "none" if certificate is None else certificate.sha256
            log.warning("association refused: its certificate does not belong to its AE title", address=address,
                        calling_ae_title=calling, certificate=shown)  # fmt: skip
            self._trail.refused(address, "association refused: another certificate", calling, called)
            return _CALLING_AE_TITLE_NOT_RECOGNISED
        if self._servers and self._servers[0].repeats.is_first("association refused", address):
            log.warning("association refused", address=address, calling_ae_title=calling, ae_title_known=known)
        self._trail.refused(address, "association refused: not on the allow-list", calling, called)
        return _NO_REASON if known else _CALLING_AE_TITLE_NOT_RECOGNISED

    def on_rejected(self, event: Event) -> None:
        """Record that an association was rejected for what pynetdicom looks at: it called somebody else."""
        request, address = cast(A_ASSOCIATE, event.assoc.requestor.primitive), event.assoc.requestor.address
        called = request.called_ae_title.strip()
        self._trail.refused(address, "association refused: not the called AE title", request.calling_ae_title, called)

    def on_store(self, event: Event) -> int:
        """Answer a C-STORE (PS3.4 B.2.2): success means that the object is safe."""
        try:
            return self._store(event)
        except RefusedDataSet as refused:
            log.warning("object refused", why=refused.why, status=f"0x{refused.status:04X}", **_origin(event))
            self._audit_refusal(event, refused.why)
            return refused.status
        except (StorageUnavailable, StorageFailed) as error:
            if isinstance(error, StorageFailed):
                self._failed.set()
            log.error("object refused", error, status="0xA700", **_origin(event))
            self._audit_refusal(event, type(error).__name__, Outcome.MINOR)
            return statuses.OUT_OF_RESOURCES
        except Exception as error:  # noqa: BLE001 - one of the two broad catches: a peer always gets a status
            log.error("object refused", error, status="0x0110", **_origin(event))
            self._audit_refusal(event, type(error).__name__)
            return statuses.PROCESSING_FAILURE
        finally:
            if (data_set := cast(C_STORE, event.request).DataSet) is not None:
                data_set.close()
            if (association := self._closed.get(event.assoc)) is not None:  # cut meanwhile: it leased, and counted
                self._transfers.end(event.assoc)
                self._forget(association)

    def _audit_refusal(self, event: Event, why: str, outcome: Outcome = Outcome.SERIOUS) -> None:
        """Count an object that was refused. Of whom it says that it is, nobody believes."""
        sop_class_uid = str(event.context.abstract_syntax)
        self._transfers.count(event.assoc, _peer(event), Subject("", ""), sop_class_uid, outcome=outcome, why=why)

    def on_released(self, event: Event) -> None:
        """Let the series of a released association close soon, but for those another association still sends."""
        reach("release-before-note")
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
            self._forget(association)

    def _forget(self, association: SendingAssociation) -> None:
        try:
            forget_association(self._database, association)
        except (TransientError, StorageFailed) as error:  # its lease runs out
            log.error("abort not noted", error, association=association.name)

    def _ended(self, event: Event) -> SendingAssociation | None:
        """Give an association that has sent something, once."""
        with self._lock:
            ended = self._sending.pop(event.assoc, None)
            if ended is not None:
                self._closed[event.assoc] = ended
        self._transfers.end(event.assoc)  # only now: a connection that closes meanwhile must not take the release away
        return ended

    def _association(self, event: Event) -> SendingAssociation:
        with self._lock:
            known = self._closed.get(event.assoc) or self._sending.get(event.assoc)
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
        reach("object-received")
        data_set = cast(IncomingDataSet, request.DataSet)
        data_set.check_kept()
        syntax = str(event.context.transfer_syntax)
        identity = identify_file(data_set.with_mark(end_mark(syntax)), data_set.size, syntax)
        check_agreement(identity, str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
        if not identity.requested_priority:
            identity = replace(identity, requested_priority=_PRIORITIES.get(request.Priority, ""))
        for warning in identity.warnings:
            log.warning("object has a fault of form", fault=warning, **_origin(event))
        requestor = event.assoc.requestor
        sender = _Sender(requestor.ae_title.strip(), requestor.address, self._association(event))
        subject, peer = Subject(identity.patient_id, identity.study_instance_uid), _peer(event)
        self._transfers.begin(event.assoc, peer, subject)
        reception, series_id = self._keep(data_set, identity, syntax, sender)
        held = reception is Reception.DUPLICATE
        self._transfers.count(event.assoc, peer, subject, identity.sop_class_uid, held=held)
        log.info("object received", reception=reception.name, series=series_id, bytes=data_set.size, **_origin(event))
        if reception is Reception.QUARANTINED:
            log.error("an image's UID is in two series; both are quarantined", None, series=series_id, **_origin(event))
        reach("answer-before-send")
        return statuses.SUCCESS

    def _keep(
        self, data_set: IncomingDataSet, identity: Identity, syntax: str, sender: _Sender
    ) -> tuple[Reception, int | None]:
        sha256 = data_set.sha256()
        if known := look_up(self._database, identity.sop_instance_uid, sha256):
            return known, None
        head = file_head(identity.sop_class_uid, identity.sop_instance_uid, syntax, sender.calling_ae_title)
        path = self._spool.write(chain((head,), data_set.pieces()))
        reach("instance-before-row")
        try:
            return self._register(identity, syntax, sha256, data_set.size, path, sender)
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
            if is_forgotten(self._database, identity.sop_instance_uid, sha256):  # killed between row and file
                self._spool.remove(path)
                continue
            reach("adopted-before-row")
            self._register(identity, syntax, sha256, len(encoded), path, _Sender(_RECOVERED, "", None))
            log.warning("file without a row adopted", path=path)


def _origin(event: Event) -> dict[str, str]:
    requestor = event.assoc.requestor
    return {
        "calling_ae_title": requestor.ae_title.strip(),
        "address": requestor.address,
        "association": event.assoc.name,
    }


def _peer(event: Event) -> Peer:
    requestor = event.assoc.requestor
    return Peer(requestor.ae_title.strip(), requestor.address)
