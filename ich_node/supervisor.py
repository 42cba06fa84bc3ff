"""``ich-node serve``: every role as a child process, started again when it dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ich_node.config import Config
from ich_node.database import open_database, prepare_database
from ich_node.heartbeat import Heartbeat
from ich_node.log import EventLog
from ich_node.role_lock import holding_role, refuse_where_it_runs
from ich_node.service import SUPERVISED, SystemdNotifier, stop_on_signals

ROLES: Final = ("receive", "work", "deliver")
WEB: Final = "web"
EXIT_CONFIGURATION: Final = 78
_LONGEST_PAUSE_S = 30.0
_STEADY_S = 60.0
_START_S = 120.0
"""A role that cannot run stops the whole node this long; later the receiver must not fall with the model."""
_GRACE_S = 45.0
_LONGEST_SILENCE_S = {"receive": 30.0, "web": 30.0, "work": 120.0, "deliver": 120.0}
"""Without a sign of life, after which a role is killed: ``WatchdogSec`` of the units."""
_LONGEST_START_S = 900.0
"""Until a role is ready: the database may be migrated, the network converted."""

log = EventLog("serve")


@dataclass(slots=True)
class _Child:
    role: str
    process: subprocess.Popen[bytes]
    started_at: float
    heartbeat: Heartbeat
    failures: int = 0
    restart_at: float | None = None


def roles_of(config: Config) -> tuple[str, ...]:
    """Name the roles that this host has; the web pages only where they are switched on."""
    return (*config.node.roles, WEB) if config.web.enabled else config.node.roles


def serve(config: Config, config_path: Path, roles: tuple[str, ...] = ROLES) -> int:
    """Run all roles until a signal says stop; return the exit status.

    Raises:
        AlreadyRunning: a node or one of its roles runs on the state folder.
        StartError: the database cannot be used.
    """
    with holding_role(config.host_directory, "serve", wait_s=0.0):
        refuse_where_it_runs(config.host_directory, roles)
        return _serve(config, config_path, roles)


def _serve(config: Config, config_path: Path, roles: tuple[str, ...]) -> int:
    database = open_database(config.database_url, config.database.busy_timeout_s)
    prepare_database(database, config.state_directory, host_directory=config.host_directory)
    database.close()
    notifier = SystemdNotifier()
    with stop_on_signals() as stop:
        children = [_start(role, config_path) for role in roles]
        notifier.ready(f"running {', '.join(roles)}")
        try:
            return _watch(children, config_path, stop, notifier)
        finally:
            notifier.stopping()
            _stop(children)


def _start(role: str, config_path: Path) -> _Child:
    command = [sys.executable, "-m", "ich_node", role, "--config", str(config_path)]
    heartbeat = Heartbeat()
    environment = os.environ | {SUPERVISED: "1", "NOTIFY_SOCKET": heartbeat.address}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    log.info("role started", role_name=role, pid=process.pid)
    return _Child(role, process, time.monotonic(), heartbeat)


def _watch(children: list[_Child], config_path: Path, stop: threading.Event, notifier: SystemdNotifier) -> int:
    began = time.monotonic()
    running = list(children)
    while not stop.wait(0.2):
        notifier.alive()
        for child in list(running):
            status = child.process.poll()
            if status == EXIT_CONFIGURATION and time.monotonic() - began < _START_S:
                log.error("role cannot run with this configuration or model; stopping", role_name=child.role)
                return EXIT_CONFIGURATION
            if status == EXIT_CONFIGURATION:
                log.error("role stopped and stays down; the others go on", role_name=child.role)
                running.remove(child)
            elif status is not None:
                _restart_when_due(child, config_path, status)
            else:
                _kill_where_silent(child)
    return 0


def _kill_where_silent(child: _Child) -> None:
    """End a role that hangs or was stopped: what it held is free then, and it is started again."""
    silent_s = child.heartbeat.silent_s(_LONGEST_START_S)
    if silent_s > _LONGEST_SILENCE_S[child.role]:
        log.error("role gives no sign of life and is killed", role_name=child.role, silent_s=round(silent_s))
        child.process.kill()
        child.process.wait()


def _restart_when_due(child: _Child, config_path: Path, status: int) -> None:
    now = time.monotonic()
    if child.restart_at is None:
        child.failures = 0 if now - child.started_at > _STEADY_S else child.failures
        pause_s = min(0.5 * 2.0**child.failures, _LONGEST_PAUSE_S)
        child.restart_at = now + pause_s
        child.failures += 1
        log.error("role ended by itself, will be started again", role_name=child.role, status=status, pause_s=pause_s)
    elif now >= child.restart_at:
        _let_go(child)
        fresh = _start(child.role, config_path)
        child.process, child.started_at, child.heartbeat = fresh.process, fresh.started_at, fresh.heartbeat
        child.restart_at = None


def _stop(children: list[_Child]) -> None:
    for child in children:
        child.process.terminate()
    deadline = time.monotonic() + _GRACE_S
    for child in children:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("role did not stop in time and is killed", role_name=child.role)
            child.process.kill()
            child.process.wait()
    for child in children:
        _let_go(child)


def _let_go(child: _Child) -> None:
    """Close our ends of what tied an ended role to us."""
    child.heartbeat.close()
    if child.process.stdin is not None:
        child.process.stdin.close()
