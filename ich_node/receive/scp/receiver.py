"""A storage SCP: how it starts, listens and stops."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from typing import Final

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType

from ich_node.audit import AuditTrail, open_trail
from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import StartError
from ich_node.job_queue import free_leases_of_the_dead
from ich_node.receive.commitment_reports import CommitmentReports
from ich_node.receive.negotiation import serve_as_storage
from ich_node.receive.scp.entrance import Entrance
from ich_node.receive.scp.listening import application_entity, open_port
from ich_node.receive.scp.storing import Storing
from ich_node.receive.self_check import SelfCheck
from ich_node.receive.transport import Server
from ich_node.tls import ServerTls, log_state

_STUCK_S: Final = 15.0
"""Longest time that the listener may need for one connection."""


class Receiver:
    """A storage SCP over one state folder."""

    def __init__(self, config: Config, database: Database, trail: AuditTrail | None = None) -> None:
        self._config = config
        self._database = database
        self._trail = trail or open_trail(config, "receive")
        self.check = SelfCheck(database, config.state_directory, config.node.ae_title, config.node.bind)
        self._storing = Storing(config, database, self._trail)
        self._commitments = CommitmentReports(config, database)
        self._entrance = Entrance(config, self._commitments, self.check.calling_ae_title, self._trail)
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
        self._storing.spool.prepare()
        free_leases_of_the_dead(self._database)
        self._storing.adopt_orphans()
        self._storing.rehearse()

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
        self._storing.begin_process()
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
        return self._storing.failed

    def work_apart(self) -> None:
        """Have an audit trail of one's own, as a process beside the one that made this receiver."""
        self._trail = self._entrance.trail = open_trail(self._config, "receive")
        self._storing.record_in(self._trail)

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
        handlers: list[EventHandlerType] = [
            (evt.EVT_REQUESTED, self._entrance.on_requested),
            (evt.EVT_REJECTED, self._entrance.on_rejected),
            (evt.EVT_SOP_COMMON, serve_as_storage),
            (evt.EVT_C_STORE, self._storing.on_store),
            (evt.EVT_N_EVENT_REPORT, self._commitments.on_event_report),
            (evt.EVT_ACSE_SENT, self._storing.on_acse_sent),
            (evt.EVT_RELEASED, self._storing.on_released),
            (evt.EVT_CONN_CLOSE, self._storing.on_closed),
        ]
        entity = application_entity(self._config, self._config.node.ae_title)
        hint = f"is another node running? see {'node.port' if tls is None else 'tls.port'} and node.bind"
        listening = open_port(self._config, entity, port, handlers, self._storing.spool.incoming, hint)
        listening.tls, listening.knows, listening.repeats = tls, self._entrance.knows, self._entrance.repeats
        return listening
