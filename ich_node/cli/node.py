"""Commands that run the node."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_node.config import Config, find_config, load_config
from ich_node.log import start_logging

if TYPE_CHECKING:
    from ich_node.database import Database

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = Any


def add_commands(commands: Commands) -> None:
    """Add serve, the single roles, and check-config."""
    roles = {
        "serve": (_serve, "run the whole node on this machine"),
        "receive": (_receive, "run the DICOM receiver only"),
        "work": (_work, "run the worker only: decode, score, conclude"),
        "deliver": (_deliver, "run the delivery of results and the housekeeping only"),
        "web": (_web, "run the web pages only: alerts are acknowledged there"),
        "check-config": (_check_config, "check the configuration and name every fault"),
    }
    for name, (run, text) in roles.items():
        parser = commands.add_parser(name, help=text, description=text)
        with_config(parser)
        parser.set_defaults(run=run)


def with_config(parser: argparse.ArgumentParser) -> None:
    """Give a command the option that names the configuration."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration (default: config/ich-node.toml, then /etc/ich-node)"
    )


def read_config(options: argparse.Namespace) -> Config:
    """Read the configuration that a command was given."""
    return load_config(find_config(options.config))


def open_queue(config: Config) -> Database:
    """Open the database of a configuration, migrated."""
    from ich_node.database import open_database, prepare_database

    database = open_database(config.database_url, config.database.busy_timeout_s)
    prepare_database(database, config.state_directory)
    return database


def audit_command(config: Config, command: str, uid: str | None = None, **details: str) -> None:
    """Record in the audit trail that this command changed what the node does, and who gave it."""
    from ich_node.audit import open_trail

    trail = open_trail(config, command)
    trail.commanded(command, [uid] if uid else [], **details)
    trail.close()


def _serve(options: argparse.Namespace) -> int:
    from ich_node.supervisor import roles_of, serve

    config = read_config(options)
    start_logging(config.node.log_level, "serve")
    return serve(config, find_config(options.config).resolve(), roles_of(config))


def _receive(options: argparse.Namespace) -> int:
    _decode_nothing()
    from ich_node.receive import run_receiver

    config = read_config(options)
    start_logging(config.node.log_level, "receive")
    run_receiver(config)
    return 0


def _work(options: argparse.Namespace) -> int:
    from ich_node.worker import run_worker

    config = read_config(options)
    start_logging(config.node.log_level, "work")
    run_worker(config)
    return 0


def _deliver(options: argparse.Namespace) -> int:
    _decode_nothing()
    from ich_node.deliverer import run_deliverer

    config = read_config(options)
    start_logging(config.node.log_level, "deliver")
    run_deliverer(config)
    return 0


def _web(options: argparse.Namespace) -> int:
    _decode_nothing()
    from ich_node.web.server import run_web

    config = read_config(options)
    start_logging(config.node.log_level, "web")
    run_web(config)
    return 0


def _decode_nothing() -> None:
    """Keep GDCM out of roles that decode no pixel: pydicom loads it wherever it is installed, and it takes 30 MiB."""
    sys.modules["gdcm"] = None  # type: ignore[assignment]  # Python's own way to say "not to be imported"
    import pydicom  # noqa: F401 - first of all: reading its dictionary takes another 30 MiB for a moment


def _check_config(options: argparse.Namespace) -> int:
    from ich_node.alert_channels import make_channels
    from ich_node.audit.sender import check_server
    from ich_node.web.certificate import check_certificate

    path = find_config(options.config)
    config = load_config(path)
    channels = make_channels(config, path)
    check_certificate(config, path)
    check_server(config, path)
    sys.stdout.write(
        f"{path}: no faults; {config.node.ae_title} on port {config.node.port}, {len(config.peer)} peers, "
        f"{len(config.destination)} destinations, {len(channels)} alert channels\n"
    )
    return 0
