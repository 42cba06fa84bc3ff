"""A storage SCP that takes the one series that was asked for, for `ich-node score-archive` of a PACS.

Sockets, limits and the look at each object are those of the receiver; what comes lies in a folder and in no database.
"""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, cast

from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE

from ich_node.audit import AuditTrail, Outcome, Subject, Transfers
from ich_node.config import Config, PeerSettings
from ich_node.config.values import parse_ip
from ich_node.durable import replace_durably
from ich_node.errors import SpoolFull, StorageFailed, StorageUnavailable
from ich_node.receive import statuses
from ich_node.receive.association_request import AssociationRequest
from ich_node.receive.data_set import Identity, check_agreement, end_mark, identify_file
from ich_node.receive.incoming import IncomingDataSet
from ich_node.receive.negotiation import Negotiation, serve_as_storage
from ich_node.receive.scp.listening import application_entity, open_port
from ich_node.receive.scp.origin import peer_of
from ich_node.receive.spool import file_head
from ich_node.receive.statuses import RefusedDataSet
from ich_node.receive.transport import Server
from ich_node.records import Destination, PeerCertificate
from ich_node.tls import ServerTls, peer_certificate

MOST_BYTES: Final = 16 * 1024**3
"""Of one series."""
_REJECTED_PERMANENT, _BY_USER = 1, 1
_CALLING_AE_TITLE_NOT_RECOGNISED: Final = 3
_DOES_NOT_MATCH_SOP_CLASS: Final = 0xB007
"""A warning (PS3.4 B.2.3): a damaged object is kept as it is. After a failure Orthanc sends no more of a series."""
_UID: Final = re.compile(r"[0-9.]{1,64}")
_DRAIN_S: Final = 5.0


@dataclass(slots=True)
class ArrivingSeries:
    """What has come of the series that was asked for."""

    study_instance_uid: str
    series_instance_uid: str
    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    """By SOP Instance UID; the names are random and ours."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Why, of those that cannot be used, by the SOP Instance UID that the PACS says."""
    refused: Counter[str] = field(default_factory=Counter)
    """Why objects were not taken, and how many."""
    trouble: StorageUnavailable | StorageFailed | None = None
    """Our disk took no more."""
    size: int = 0


class SeriesReceiver:
    """Listens under an AE title and at a port of its own, by TLS where the PACS is called by TLS.

    Args:
        folder: on the disk that what comes is kept on.
        pacs: who is asked, and may send; so may every ``[[peer]]``.
    """

    def __init__(
        self, config: Config, ae_title: str, port: int, pacs: Destination, folder: Path, trail: AuditTrail
    ) -> None:
        self._config = config
        self._ae_title = ae_title
        self._wanted_port = port
        self._pacs = pacs
        self._folder = folder
        self._trail = trail
        self._transfers = Transfers(trail, incoming=True)
        self._negotiation = Negotiation(
            (*config.peer, *_as_peers(config.peer, pacs)), allow_any=config.receiver.allow_any, accept="all"
        )
        self._lock = threading.Lock()
        self._expected: ArrivingSeries | None = None
        self._server: Server | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            StartError: the port is taken.
            ConfigError: certificates cannot be used.
        """
        handlers: list[EventHandlerType] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_SOP_COMMON, serve_as_storage),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_RELEASED, self._on_ended),
            (evt.EVT_CONN_CLOSE, self._on_ended),
        ]
        entity = application_entity(self._config, self._ae_title)
        server = open_port(
            self._config, entity, self._wanted_port, handlers, self._folder, "name another one with --port"
        )
        server.tls, server.knows, server.refused = self._tls(), self._knows, self._trail.refused
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.2,), name="listener", daemon=True).start()

    def stop(self) -> None:
        """Take no more, and let who is sending finish for a moment."""
        if (server := self._server) is None:
            return
        self._server = None
        server.shutdown()
        for association in server.active_associations:
            association.join(_DRAIN_S)
        for association in server.active_associations:
            association.abort()

    @property
    def port(self) -> int:
        assert self._server is not None, "start() comes first"
        return int(self._server.server_address[1])

    @contextmanager
    def expecting(self, study_instance_uid: str, series_instance_uid: str, folder: Path) -> Iterator[ArrivingSeries]:
        """Take the images of a series into a folder, as long as this lasts; everything else is refused."""
        arriving = ArrivingSeries(study_instance_uid, series_instance_uid, folder)
        with self._lock:
            self._expected = arriving
        try:
            yield arriving
        finally:
            with self._lock:
                self._expected = None

    # ----------------------------------------------------------------------------------------- who is let in

    def _tls(self) -> Callable[[], ssl.SSLContext] | None:
        if self._pacs.tls is None:
            return None
        require = self._config.tls.require_client_certificate
        return ServerTls(self._pacs.tls, require_certificate=require).context

    def _knows(self, asked: AssociationRequest, address: str, certificate: PeerCertificate | None) -> bool:
        return asked.called_ae_title == self._ae_title and self._negotiation.admits(
            asked.calling_ae_title, address, certificate
        )

    def _on_requested(self, event: Event) -> None:
        request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        calling, address = request.calling_ae_title.strip(), event.assoc.requestor.address
        wrapped = event.assoc.dul.socket
        certificate = peer_certificate(None if wrapped is None else wrapped.socket)
        if not self._negotiation.admits(calling, address, certificate):
            self._trail.refused(address, "association refused: neither the PACS nor a peer", calling, self._ae_title)
            event.assoc.acse.send_reject(_REJECTED_PERMANENT, _BY_USER, _CALLING_AE_TITLE_NOT_RECOGNISED)
            event.assoc.kill()
            return
        proposed = [str(context.abstract_syntax) for context in request.presentation_context_definition_list or ()]
        event.assoc.acceptor.supported_contexts = self._negotiation.contexts_for(proposed)

    # --------------------------------------------------------------------------------------------- what comes

    def _on_store(self, event: Event) -> int:
        """Answer a C-STORE: success or a warning means that the object is on the disk."""
        data_set = cast(IncomingDataSet | None, cast(C_STORE, event.request).DataSet)
        try:
            if data_set is None:
                raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the request holds no data set")
            return self._take(event, data_set)
        except RefusedDataSet as refused:
            self._note_refused(event, refused.why)
            return refused.status
        except (StorageUnavailable, StorageFailed) as error:
            with self._lock:
                if self._expected is not None:
                    self._expected.trouble = error
            self._count(event, Subject("", ""), type(error).__name__)
            return statuses.OUT_OF_RESOURCES
        finally:
            if data_set is not None:
                data_set.close()

    def _take(self, event: Event, data_set: IncomingDataSet) -> int:
        data_set.check_kept()
        request, syntax = cast(C_STORE, event.request), str(event.context.transfer_syntax)
        try:
            identity = identify_file(data_set.with_mark(end_mark(syntax)), data_set.size, syntax)
        except RefusedDataSet as damage:
            if damage.status != statuses.CANNOT_UNDERSTAND:
                raise
            return self._take_damaged(event, data_set, damage)
        check_agreement(identity, str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
        subject = Subject(identity.patient_id, identity.study_instance_uid)
        with self._lock:
            arriving = self._asked_for(identity, data_set.size)
            self._transfers.begin(event.assoc, peer_of(event), subject)
            known = arriving.files.get(identity.sop_instance_uid)
            path = known or arriving.folder / f"{uuid.uuid4().hex}.dcm"
            head = file_head(identity.sop_class_uid, identity.sop_instance_uid, syntax, peer_of(event).ae_title)
            self._write(path, chain((head,), data_set.pieces()))
            arriving.files[identity.sop_instance_uid] = path
            arriving.damaged.pop(identity.sop_instance_uid, None)
            arriving.size += data_set.size if known is None else 0
        self._count(event, subject, "", identity.sop_class_uid)
        return statuses.SUCCESS

    def _take_damaged(self, event: Event, data_set: IncomingDataSet, damage: RefusedDataSet) -> int:
        """Keep what is not read, for as long as the series is: the PACS goes on with the next image."""
        uid = str(cast(C_STORE, event.request).AffectedSOPInstanceUID)
        with self._lock:
            arriving = self._expected
            if arriving is None or not _UID.fullmatch(uid) or arriving.size + data_set.size > MOST_BYTES:
                raise damage
            self._write(arriving.folder / f"{uuid.uuid4().hex}.damaged", data_set.pieces())
            arriving.size += data_set.size
            arriving.damaged[uid] = damage.why
        self._count(event, Subject("", ""), damage.why)
        return _DOES_NOT_MATCH_SOP_CLASS

    def _write(self, path: Path, pieces: Iterable[bytes]) -> None:
        if shutil.disk_usage(path.parent).free < self._config.receiver.reserve_mib * 1024 * 1024:
            raise SpoolFull("the disk is filled up to its reserve")
        replace_durably(path, pieces)

    def _asked_for(self, identity: Identity, size: int) -> ArrivingSeries:
        """Give the series that is expected, where an object is of it."""
        arriving = self._expected
        mine = (identity.study_instance_uid, identity.series_instance_uid)
        if arriving is None or mine != (arriving.study_instance_uid, arriving.series_instance_uid):
            raise RefusedDataSet(statuses.PROCESSING_FAILURE, "it is of no series that was asked for")
        if arriving.size + size > MOST_BYTES:
            raise RefusedDataSet(statuses.OUT_OF_RESOURCES, f"its series has more than {MOST_BYTES // 1024**3} GiB")
        return arriving

    def _note_refused(self, event: Event, why: str) -> None:
        with self._lock:
            if self._expected is not None:
                self._expected.refused[why] += 1
        self._count(event, Subject("", ""), why)

    def _count(self, event: Event, subject: Subject, why: str, sop_class_uid: str = "") -> None:
        """Count an object for the audit trail. Of whom one that was refused says that it is, nobody believes."""
        uid = sop_class_uid or str(event.context.abstract_syntax)
        outcome = Outcome.SERIOUS if why else Outcome.SUCCESS
        self._transfers.count(event.assoc, peer_of(event), subject, uid, outcome=outcome, why=why)

    def _on_ended(self, event: Event) -> None:
        self._transfers.end(event.assoc)


def _as_peers(peers: Sequence[PeerSettings], pacs: Destination) -> Iterator[PeerSettings]:
    """Let the PACS send from the addresses of its host, unless a ``[[peer]]`` says what holds for its AE title."""
    if any(one.ae_title == pacs.ae_title for one in peers):
        return
    try:
        found = {str(parse_ip(str(one[4][0]))) for one in socket.getaddrinfo(pacs.host, None)}
    except (OSError, ValueError):  # to ask it fails likewise, and says why
        return
    for address in sorted(found):
        yield PeerSettings(ae_title=pacs.ae_title, address=address)
