"""The receiver as a process, or as several that accept from one listening socket.

Several, since a Python process keeps one core busy at most. The first one clears up, listens, and starts the others; it
serves nobody itself. Whichever has the fewest connections takes the next. One that dies takes its own connections with
it, the others go on, and what waits to be accepted is not lost: the first process holds the socket, too.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from pydicom.config import IGNORE
from pydicom.config import settings as pydicom_settings

from ich_node.audit import open_trail
from ich_node.config import Config
from ich_node.database import Database, open_database, prepare_database
from ich_node.errors import StartError, StorageFailed, StorageUnavailable, TransientError
from ich_node.job_queue import free_leases_of_the_dead
from ich_node.log import EventLog
from ich_node.receive.scp import Receiver
from ich_node.role_lock import holding_role
from ich_node.service import MemoryGivenBack, SystemdNotifier, stop_on_signals
from ich_node.stored_files import stored_files
from ich_node.timekeeping import keep_time

MOST_BY_ITSELF: Final = 4
"""Processes where the configuration leaves their number to us."""
DRAIN_S: Final = 30.0
FAILED_DRAIN_S: Final = 2.0
BEAT_S: Final = 2.0
CHECK_S: Final = 10.0
"""Between two calls at our own port."""
SILENT_S: Final = 20.0
"""Without a sign of life, after which a process is killed and started again; the watchdog waits longer."""
LONGEST_PAUSE_S: Final = 30.0
_STORAGE_FAILED: Final = 3
"""Exit status of a process of the receiver that met a failed disk or database."""
_SHORT_S: Final = 1.0
_ITS_END: Final = "the disk or the database failed: what is stored is looked over at the next start"
_STEADY_S: Final = 60.0
_LOOK_S: Final = 0.2

log = EventLog("receive")


def run_receiver(config: Config) -> None:
    """Receive until a signal says stop.

    Raises:
        StartError: the node cannot run here.
        StorageFailed: the disk or the database failed.
    """
    # What is received is checked by us, where it matters; here it takes half the time of decoding a request.
    pydicom_settings.reading_validation_mode = IGNORE
    database = open_database(config.database_url, config.database.busy_timeout_s)
    notifier = SystemdNotifier()
    with stop_on_signals() as stop, holding_role(config.host_directory, "receive"):
        files = stored_files(config)
        installation_uid = prepare_database(database, config.state_directory, host_directory=config.host_directory)
        files.claim(installation_uid)
        keep_time(config, database)
        trail = open_trail(config, "receive")
        receiver = Receiver(config, database, trail)
        processes = number_of_processes(config)
        receiver.prepare()
        files.close()  # connections do not survive a fork
        receiver.listen(processes)
        trail.started(config)
        if processes == 1:
            _serve_alone(config, receiver, stop, notifier)
        else:
            Processes(config, database, receiver, processes, notifier).run(stop)
        trail.stopped()
    database.close()


def number_of_processes(config: Config) -> int:
    """Say how many processes receive: as configured, or one for each core, up to a few."""
    return config.receiver.processes or min(len(os.sched_getaffinity(0)), MOST_BY_ITSELF)


def _say_ready(config: Config, receiver: Receiver, processes: int, notifier: SystemdNotifier) -> None:
    settings = config.node
    log.info("receiver ready", ae_title=settings.ae_title, bind=settings.bind, port=receiver.port,
             tls_port=receiver.tls_port, processes=processes)  # fmt: skip
    notifier.ready(f"receiving on port {receiver.port}")


def _serve_alone(config: Config, receiver: Receiver, stop: threading.Event, notifier: SystemdNotifier) -> None:
    receiver.serve()
    _say_ready(config, receiver, 1, notifier)
    checked, memory = OwnCheck(receiver), MemoryGivenBack()
    while receiver.alive and not receiver.failed and not stop.wait(BEAT_S):
        if checked.passes():
            notifier.alive()
        memory.look()
    notifier.stopping()
    receiver.stop(FAILED_DRAIN_S if receiver.failed else DRAIN_S)
    if receiver.failed:
        raise StorageFailed(_ITS_END)
    if not stop.is_set():
        raise StartError("the listener ended by itself")


class OwnCheck:
    """What the receiver found when it last called itself; it does so now and then, and often where that failed."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._passed = True
        self._looked_at = -CHECK_S

    def passes(self) -> bool:
        """Say whether the receiver does its work."""
        now = time.monotonic()
        if not self._passed or now - self._looked_at >= CHECK_S:
            port = self._receiver.port
            self._passed = self._receiver.check.passes(port, tls=port == self._receiver.tls_port)
            self._looked_at = now
        return self._passed


@dataclass(slots=True)
class _Child:
    number: int
    pid: int = 0
    line: socket.socket | None = None
    """To the process: it sends a sign of life now and then, and each side sees when the other is gone."""
    started_at: float = 0.0
    beat_at: float = 0.0
    beats: int = 0
    killed: bool = False
    failures: int = 0
    restart_at: float = 0.0


class Processes:
    """The processes that receive, seen from the one that started them."""

    def __init__(
        self, config: Config, database: Database, receiver: Receiver, number: int, notifier: SystemdNotifier
    ) -> None:
        self._config = config
        self._database = database
        self._receiver = receiver
        self._notifier = notifier
        self._children = [_Child(one) for one in range(number)]
        self._told_at = 0.0
        self._own_check = OwnCheck(receiver)
        self._failed = False

    def run(self, stop: threading.Event) -> None:
        """Keep them running until a signal says stop; then let them finish.

        Raises:
            StorageFailed: the disk or the database failed.
        """
        for child in self._children:
            self._start(child)
        ready, memory = False, MemoryGivenBack()
        while not (stop.is_set() or self._failed or self._database.failed):
            self._listen_to_all()
            for child in self._children:
                self._look_after(child)
            if not ready and (ready := all(child.beats for child in self._children)):
                _say_ready(self._config, self._receiver, len(self._children), self._notifier)
            self._tell_the_watchdog(ready)
            memory.look()
        self._notifier.stopping()
        self._receiver.leave_to_others()
        self._stop_all(FAILED_DRAIN_S if self._failed or self._database.failed else DRAIN_S)
        self._receiver.check.close()
        if not stop.is_set():
            raise StorageFailed(_ITS_END)

    # -------------------------------------------------------------------------------- children

    def _start(self, child: _Child) -> None:
        """Start one. No connection to the database may be open meanwhile: SQLite's do not survive a fork."""
        self._database.close()
        self._receiver.check.close()
        ours, theirs = socket.socketpair()
        gc.collect()
        gc.freeze()  # what is here by now is shared with the child as long as nobody touches it
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            for other in self._children:  # or they would not see that the first process is gone
                if other.line is not None:
                    other.line.close()
            ours.close()
            _serve_as_child(child.number, self._receiver, theirs)
        theirs.close()
        child.pid, child.line, child.started_at, child.beats = pid, ours, time.monotonic(), 0
        child.beat_at, child.killed = child.started_at, False
        log.info("process of the receiver started", process=child.number, pid=pid)

    def _listen_to_all(self) -> None:
        """Wait a moment for signs of life, or for a child that is gone."""
        lines = {child.line.fileno(): child for child in self._children if child.line is not None}
        poll = select.poll()
        for descriptor in lines:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(1000 * _LOOK_S):
            child = lines[descriptor]
            assert child.line is not None
            if child.line.recv(64):
                child.beat_at, child.beats = time.monotonic(), child.beats + 1
            else:  # it has ended, or is about to
                child.line.close()
                child.line = None

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if not child.pid:
            if now >= child.restart_at:
                self._start(child)
            return
        if now - child.beat_at > SILENT_S and not child.killed:
            log.error("process of the receiver gives no sign of life and is killed", process=child.number)
            os.kill(child.pid, signal.SIGKILL)
            child.killed = True
        ended, status = os.waitpid(child.pid, os.WNOHANG)
        if ended:
            self._note_end(child, os.waitstatus_to_exitcode(status))

    def _note_end(self, child: _Child, status: int) -> None:
        """Plan to start one again: at once, where it had run for a while."""
        now = time.monotonic()
        self._failed |= status == _STORAGE_FAILED
        child.failures = 0 if now - child.started_at > _STEADY_S else child.failures
        pause_s = min(0.5 * 2.0 ** (child.failures - 1), LONGEST_PAUSE_S) if child.failures else 0.0
        child.failures += 1
        log.error("process of the receiver ended by itself, will be started again",
                  process=child.number, pid=child.pid, status=status, pause_s=pause_s)  # fmt: skip
        if child.line is not None:
            child.line.close()
        child.pid, child.line, child.restart_at = 0, None, now + pause_s
        self._receiver.note_gone(child.number)
        # where the database is locked we do not wait with it: the others would count as silent meanwhile
        database = open_database(self._config.database_url, _SHORT_S)
        try:
            free_leases_of_the_dead(database)
        except (TransientError, StorageFailed) as error:  # they run out
            log.error("abort not noted", error, association=f"all of process {child.number}")
        finally:
            database.close()

    def _tell_the_watchdog(self, ready: bool) -> None:
        """Say that the receiver is alive, where each process has said so itself a moment ago."""
        now = time.monotonic()
        well = all(child.pid and child.beats and now - child.beat_at < 2 * BEAT_S for child in self._children)
        if ready and well and now - self._told_at >= BEAT_S and self._own_check.passes():
            self._notifier.alive()
            self._told_at = now

    def _stop_all(self, drain_s: float) -> None:
        running = [child for child in self._children if child.pid]
        for child in running:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + drain_s + 5.0
        while running and time.monotonic() < deadline:
            self._notifier.alive()
            running = [child for child in running if not os.waitpid(child.pid, os.WNOHANG)[0]]
            time.sleep(0.05)
        for child in running:
            log.error("process of the receiver did not stop in time and is killed", process=child.number)
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def _serve_as_child(number: int, receiver: Receiver, line: socket.socket) -> NoReturn:
    """Be one of the processes that receive. Nothing of the first process is undone here when it ends."""
    status = 1
    try:
        status = _serve_until_told(number, receiver, line)
    finally:
        if (error := sys.exception()) is not None:
            sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
        os._exit(status)


def _serve_until_told(number: int, receiver: Receiver, line: socket.socket) -> int:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal all get it, and the first process decides
    receiver.work_apart()
    receiver.serve(number)
    beat_at, memory = 0.0, MemoryGivenBack()
    while receiver.alive and not receiver.failed and not stop.is_set():
        if time.monotonic() - beat_at >= BEAT_S:
            try:
                receiver.show_life()
            except StorageFailed:
                break
            except StorageUnavailable:  # a locked database is no fault of the receiver
                pass
            line.send(b".")
            beat_at = time.monotonic()
        memory.look()
        if select.select([line], [], [], _LOOK_S)[0]:
            return 1  # the first process is gone: end as it did, and free the port for its successor
    receiver.stop(
        FAILED_DRAIN_S if receiver.failed else DRAIN_S, give_up=lambda: bool(select.select([line], [], [], 0)[0])
    )
    receiver.end_trail()
    if receiver.failed:
        return _STORAGE_FAILED
    return 0 if stop.is_set() else 1
