"""What a forked child becomes: a role of the node by its own command, one of its peers, or its housekeeping."""

# ruff: noqa: E402 - the stub must stand before anything imports torch

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from tests.torture import stub_model

stub_model.install()

# Everything is imported once, here, in the parent.
import ich_node.deliverer
import ich_node.receive
import ich_node.worker.loop
from ich_node import commitment_asker, failpoint, housekeeping
from ich_node.cli import main
from ich_node.config import Config, load_config
from ich_node.database import Database, open_database
from ich_node.failpoint import BY_A_TEST, FAILPOINT, MAY_BE_KILLED
from ich_node.log import start_logging
from ich_node.receive import processes
from tests.many_hosts.host import be_a_host, enter, shorten_leases
from tests.torture.outsiders import echo_without_end
from tests.torture.peers import send_until_answered, take_what_comes

NODE_ROLES = ("receive", "work", "deliver")
_A_DAY_S = 86400.0
_SPARE_LEASE_S = -9.0
"""Makes two seconds of the time after which commitment is asked again where a kill came before the request."""


def become(order: dict[str, Any]) -> int:
    """Do what an order asks for, and give the exit status."""
    _arm(order)
    if "namespace" in order:
        enter(order["namespace"], order["hostname"])
    role = order["role"]
    if role in NODE_ROLES:
        commitment_asker._POLL_S = 0.05
        commitment_asker._SPARE_LEASE_S = _SPARE_LEASE_S
        ich_node.worker.loop.open_configured_model = stub_model.open_stub
        ich_node.worker.loop.DecoderPool = stub_model.DecoderInside
        if "lease_s" in order:
            shorten_leases(order["lease_s"])
        if role == "receive":
            _strike_once()
        return main([role, "--config", order["config"]])
    if role == "expire":
        _expire(load_config(Path(order["config"])))
    elif role == "send":
        where = {"host": order["host"]} if "host" in order else {}
        send_until_answered(Path(order["study"]), order["port"], Path(order["witness"]), **where)
    elif role == "echo":
        echo_without_end(order["port"], Path(order["witness"]))
    elif role == "peers":
        where = {name: order[name] for name in ("bind", "node", "slow_s") if name in order}
        take_what_comes(order["pacs_port"], order["ris_port"], order["node_port"], Path(order["witness"]), **where)
    elif role == "host":
        be_a_host(order, become)
    else:
        raise ValueError(role)
    return 0


def _arm(order: dict[str, Any]) -> None:
    os.environ[MAY_BE_KILLED] = BY_A_TEST
    os.environ[FAILPOINT] = order.get("failpoint", "")
    shim = ctypes.CDLL(None)
    if "within" in order:
        what, nth = order["within"]
        shim.torture_kill_at(what.encode(), order["root"].encode(), nth)
    if "journal" in order:
        shim.torture_record(order["journal"].encode(), order["root"].encode())


def _strike_once() -> None:
    """Let one of several processes of the receiver be killed where it was told to, and not its successors, too."""
    note_end = processes.Processes._note_end

    def disarmed(*arguments: Any) -> None:
        failpoint.arm({})
        ctypes.CDLL(None).torture_kill_at(b"", b"", 0)
        note_end(*arguments)

    processes.Processes._note_end = disarmed


def _expire(config: Config) -> None:
    """Do the housekeeping of a day on which everything is past its days, and every stray is old."""
    start_logging("INFO", "expire")
    database: Database = open_database(config.database_url)
    days = config.retention.model_copy(update={"images_days": 0.0, "not_head_days": 0.0, "results_days": 0.0})
    config = config.model_copy(update={"retention": days})
    for path in config.state_directory.rglob("*"):
        if path.is_file() and path.suffix in (".dcm", ".part"):
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - _A_DAY_S))
    housekeeping.remove_strays(config, database)
    housekeeping.delete_expired(config, database)
    database.close()


def imported() -> set[str]:
    """Name what is imported, so that a test sees that torch is not."""
    return {name.split(".")[0] for name in sys.modules if sys.modules[name] is not None}
