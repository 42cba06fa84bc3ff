"""Stores what comes by C-STORE: success means that it is safe (PS3.4 B.2.2)."""

from __future__ import annotations

import threading
import uuid
import weakref
from dataclasses import replace
from itertools import chain
from typing import Any, Final, cast

from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_RELEASE

from ich_node.audit import AuditTrail, Outcome, Subject, Transfers
from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import StorageFailed, StorageUnavailable, TransientError
from ich_node.failpoint import reach
from ich_node.job_queue import (
    Entered,
    SendingAssociation,
    forget_association,
    is_forgotten,
    known_paths,
    look_up,
    new_owner,
    register_instance,
    rehearse,
    release_association,
)
from ich_node.job_queue.self_tests import is_reserved
from ich_node.log import EventLog
from ich_node.receive import statuses
from ich_node.receive.data_set import Identity, check_agreement, end_mark, identify_file
from ich_node.receive.entry import READ_SOP_CLASSES, Kept, describe, describe_file
from ich_node.receive.incoming import IncomingDataSet
from ich_node.receive.scp.origin import origin_of, peer_of
from ich_node.receive.spool import Spool, file_head
from ich_node.receive.statuses import RefusedDataSet
from ich_node.records import CT_IMAGE_STORAGE, ReceivedInstance, Reception
from ich_node.records.self_tests import SELF_TEST_AE_TITLE
from ich_node.stored_files import mark_of_host, stored_files

_PRIORITIES: Final = {0: "MEDIUM", 1: "HIGH", 2: "LOW"}
"""Priority of a C-STORE request (PS3.7 9.3.1.1)."""

_NO_SELF_TEST: Final = "the node's own AE title is for its self-tests, and these for it; no such test runs"

log = EventLog("receive")


class Storing:
    """The objects of all associations of one process, and which of these have sent something."""

    def __init__(self, config: Config, database: Database, trail: AuditTrail) -> None:
        self._config = config
        self._database = database
        self._transfers = Transfers(trail, incoming=True)
        self.spool = Spool(stored_files(config), config.receiver.reserve_mib, mark_of_host(config))
        self._owner = new_owner()
        self._sending: dict[Any, SendingAssociation] = {}
        """Open associations that have sent something."""
        self._closed: weakref.WeakKeyDictionary[Any, SendingAssociation] = weakref.WeakKeyDictionary()
        """Associations that have ended after they sent something; one may still be storing its last object."""
        self._released: weakref.WeakSet[Any] = weakref.WeakSet()
        """Associations whose release was answered, or is about to be."""
        self._lock = threading.Lock()
        self._failed = threading.Event()

    def begin_process(self) -> None:
        """Own what is leased from now on, as the process that is about to serve."""
        self._owner = new_owner()

    def record_in(self, trail: AuditTrail) -> None:
        """Record in another audit trail; before anything was stored."""
        self._transfers = Transfers(trail, incoming=True)

    @property
    def failed(self) -> bool:
        """The disk or the database failed: nothing is stored any more, and this process has to end."""
        return self._failed.is_set() or self._database.failed

    # ---------------------------------------------------------------------------------- events

    def on_store(self, event: Event) -> int:
        """Answer a C-STORE."""
        try:
            return self._store(event)
        except RefusedDataSet as refused:
            log.warning("object refused", why=refused.why, status=f"0x{refused.status:04X}", **origin_of(event))
            self._audit_refusal(event, refused.why)
            return refused.status
        except (StorageUnavailable, StorageFailed) as error:
            if isinstance(error, StorageFailed):
                self._failed.set()
            log.error("object refused", error, status="0xA700", **origin_of(event))
            self._audit_refusal(event, type(error).__name__, Outcome.MINOR)
            return statuses.OUT_OF_RESOURCES
        except Exception as error:  # noqa: BLE001 - a broad catch (docs/architecture.md): a peer always gets a status
            log.error("object refused", error, status="0x0110", **origin_of(event))
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
        self._transfers.count(event.assoc, peer_of(event), Subject("", ""), sop_class_uid, outcome=outcome, why=why)

    def on_acse_sent(self, event: Event) -> None:
        """See that a release is answered: the peer then closes its connection, and another thread tells of that.

        Under load that thread comes before ``on_released``, and the association would be taken for one that was cut.
        """
        if isinstance(getattr(event, "primitive", None), A_RELEASE):
            with self._lock:
                self._released.add(event.assoc)

    def on_released(self, event: Event) -> None:
        """Let the series of a released association close soon, but for those another association still sends."""
        reach("release-before-note")
        if (association := self._ended(event)) is not None:
            settings = self._config.series
            try:
                closing = release_association(
                    self._database,
                    association,
                    quiet_s=settings.quiet_s,
                    max_wait_s=settings.max_wait_s,
                    habits=settings.habits,
                )
                for series in closing:
                    log.info("as many slices as this sender always sends: no waiting", series=series)
            except (TransientError, StorageFailed) as error:  # its series close at max_wait_s instead
                log.error("release not noted", error, association=association.name)

    def on_closed(self, event: Event) -> None:
        """Forget an association that was aborted or cut: its series close after ``max_wait_s``."""
        with self._lock:
            if event.assoc in self._released:
                return  # on_released comes in any case
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
            log.warning("object has a fault of form", fault=warning, **origin_of(event))
        subject, peer = Subject(identity.patient_id, identity.study_instance_uid), peer_of(event)
        association = self._association(event)
        self._transfers.begin(event.assoc, peer, subject)
        self._demand_reserved(peer.ae_title, identity.study_instance_uid)
        sha256 = data_set.sha256()
        series = (identity.study_instance_uid, identity.series_instance_uid)
        reception, series_id, study_id = None, None, None
        if series not in association.began:  # of one that is known it may be held, and is not written again
            reception = look_up(self._database, identity.sop_instance_uid, sha256)
        if reception is None:
            kept = self._keep(data_set, sha256, identity, syntax, peer.ae_title)
            received = describe(self._config, identity, kept, peer.ae_title, peer.address)
            reception, series_id, study_id, first = self._enter(received, association)
            if first:
                association.began.add(series)
        if reception is Reception.NO_SELF_TEST:
            raise RefusedDataSet(statuses.PROCESSING_FAILURE, _NO_SELF_TEST)
        held = reception is Reception.DUPLICATE
        self._transfers.count(event.assoc, peer, subject, identity.sop_class_uid, held=held)
        fields = {"study": study_id, "series": series_id, **origin_of(event)}
        log.info("object received", reception=reception.name, bytes=data_set.size, **fields)
        if reception is Reception.QUARANTINED:
            what = "an image's UID is in two series; both are quarantined"
            log.error(what, None, **fields)
        reach("answer-before-send")
        return statuses.SUCCESS

    def _demand_reserved(self, calling_ae_title: str, study_instance_uid: str) -> None:
        """Refuse before anything else what calls itself a self-test and is none: not even what is held is confirmed."""
        if calling_ae_title == SELF_TEST_AE_TITLE and not is_reserved(self._database, study_instance_uid):
            raise RefusedDataSet(statuses.PROCESSING_FAILURE, _NO_SELF_TEST)

    def _keep(
        self, data_set: IncomingDataSet, sha256: str, identity: Identity, syntax: str, calling_ae_title: str
    ) -> Kept:
        """Make the data set a file."""
        head = file_head(identity.sop_class_uid, identity.sop_instance_uid, syntax, calling_ae_title)
        path = self.spool.write(chain((head,), data_set.pieces()))
        reach("instance-before-row")
        return Kept(path, sha256, data_set.size, syntax)

    def _enter(self, received: ReceivedInstance, association: SendingAssociation) -> Entered:
        try:
            return self._register(received, association)
        except TransientError:
            self.spool.remove(received.path)  # nothing was written, and the sender is told so
            raise  # after any other error the row may be there for all we know: the next start looks

    def _register(self, received: ReceivedInstance, association: SendingAssociation | None) -> Entered:
        entered = register_instance(
            self._database,
            received,
            max_wait_s=self._config.series.max_wait_s,
            analysed=received.sop_class_uid in READ_SOP_CLASSES,
            association=association,
        )
        if entered.reception in (Reception.DUPLICATE, Reception.NO_SELF_TEST):
            self.spool.remove(received.path)
        return entered

    # ------------------------------------------------------------------------------ at the start

    def rehearse(self) -> None:
        """Make the statements that every image needs, before processes are started that need them."""
        identity = Identity(CT_IMAGE_STORAGE, "1.1", "1.2", "1.3", "CT")
        kept = Kept("rehearsal", "", 0, "")
        rehearse(self._database, describe(self._config, identity, kept, "", ""), self._config.series.max_wait_s)

    def adopt_orphans(self) -> None:
        """Enter files that a crash left without a row: written, but never answered with success."""
        known = known_paths(self._database)
        left = (one.name for one in self.spool.files() if self.spool.is_left_over(one))
        for path in [name for name in left if name not in known]:
            try:
                received = describe_file(self._config, path)
            except (RefusedDataSet, OSError) as error:
                log.error("file without a row cannot be read and stays where it is", error, path=path)
                continue
            if is_forgotten(
                self._database, received.sop_instance_uid, received.sha256
            ):  # a power cut took its deletion back
                self.spool.remove(path)
                continue
            reach("adopted-before-row")
            if self._register(received, None).reception is Reception.NO_SELF_TEST:
                log.info("file of a self-test that has ended deleted", path=path)
            else:
                log.warning("file without a row adopted", path=path)
