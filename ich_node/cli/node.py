"""Commands that run the node."""

from __future__ import annotations

import argparse
import gc
import os
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_node.config import Config, find_config, load_config
from ich_node.errors import ConfigError, SecretFileError
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
        parser.set_defaults(run=run, imports_more=name != "check-config")  # roles go on in `_start`


def with_config(parser: argparse.ArgumentParser) -> None:
    """Give a command the option that names the configuration."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration (default: config/ich-node.toml, then /etc/ich-node)"
    )


def read_config(options: argparse.Namespace) -> Config:
    """Read the configuration that a command was given."""
    return load_config(find_config(options.config))


def open_queue(config: Config) -> Database:
    """Open the database of a configuration, migrated; what is made with it is ours alone."""
    from ich_node.database import open_database, prepare_database

    os.umask(0o077)
    database = open_database(config.database_url, config.database.busy_timeout_s)
    prepare_database(database, config.state_directory, host_directory=config.host_directory)
    return database


def audit_command(config: Config, command: str, uid: str | None = None, **details: str) -> None:
    """Record in the audit trail that this command changed what the node does, and who gave it."""
    from ich_node.audit import open_trail

    trail = open_trail(config, command)
    trail.commanded(command, [uid] if uid else [], **details)
    trail.close()


def _start(config: Config, role: str) -> None:
    """Begin a role, whose modules are all imported by now."""
    from ich_node.service import keep_to_ourselves, let_interned_strings_settle, share_memory_among_threads

    let_interned_strings_settle(with_torch=role == "work")
    gc.freeze()
    gc.enable()
    keep_to_ourselves()
    share_memory_among_threads()
    start_logging(config.node.log_level, role)


def _serve(options: argparse.Namespace) -> int:
    from ich_node.supervisor import roles_of, serve

    config = read_config(options)
    _start(config, "serve")
    return serve(config, find_config(options.config).resolve(), roles_of(config))


def _receive(options: argparse.Namespace) -> int:
    _leave_out("gdcm", "openjpeg", "jpeg_ls", "PIL", "requests", "tqdm")
    from ich_node.receive import run_receiver

    config = read_config(options)
    _start(config, "receive")
    run_receiver(config)
    return 0


def _work(options: argparse.Namespace) -> int:
    from ich_node.worker import run_worker

    config = read_config(options)
    _start(config, "work")
    run_worker(config)
    return 0


def _deliver(options: argparse.Namespace) -> int:
    _leave_out("gdcm")
    from ich_node.deliverer import run_deliverer

    config = read_config(options)
    _start(config, "deliver")
    run_deliverer(config)
    return 0


def _web(options: argparse.Namespace) -> int:
    from ich_node.web.server import run_web

    config = read_config(options)
    _start(config, "web")
    run_web(config)
    return 0


def _leave_out(*modules: str) -> None:
    """Keep decoders out of roles that decode no pixel: pydicom loads whatever is installed. GDCM takes 30 MiB, the
    others, and what it downloads its examples with, take ten."""
    for name in modules:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's own way to say "not to be imported"
    import pydicom  # noqa: F401 - first of all: reading its dictionary takes another 30 MiB for a moment


def _check_config(options: argparse.Namespace) -> int:
    from ich_node.alert_channels import channel_places, make_channels, without_credentials
    from ich_node.audit.sender import check_server
    from ich_node.credentials import is_credential
    from ich_node.web.certificate import check_certificate, key_is_credential

    path = find_config(options.config)
    config = load_config(path)
    if path.stat().st_mode & stat.S_IWOTH:
        raise ConfigError(path, ["everybody can change it: chmod 644"])
    channels = channel_places(config)
    looked_at = make_channels(without_credentials(config), path)
    if not key_is_credential(config):
        check_certificate(config, path)
    for warning in _check_tls(config, path):
        sys.stdout.write(f"{path}: warning: {warning}\n")
    if not is_credential(config.audit.client_key):
        check_server(config, path)
    later = len(channels) - len(looked_at) + key_is_credential(config) + is_credential(config.audit.client_key)
    later += _leaves_storage(config, path)
    sys.stdout.write(
        f"{path}: no faults; {config.node.ae_title} on {_ports(config)}, {len(config.peer)} peers, "
        f"{len(config.destination)} destinations, {len(channels)} alert channels\n"
        + (f"{later} with credentials of a unit, which are looked at when it starts\n" if later else "")
    )
    return 0


def _leaves_storage(config: Config, path: Path) -> bool:
    """Check the files of [storage]; True where its secret is a credential, which only the units have.

    Raises:
        ConfigError: they cannot be used.
    """
    from ich_node.credentials import is_credential
    from ich_node.stored_files import stored_files

    if is_credential(config.storage.secret_key_file):
        return True
    try:
        stored_files(config)
    except SecretFileError as error:
        raise ConfigError(path, [f"storage.secret_key_file = {error}"]) from error
    return False


def _check_tls(config: Config, path: Path) -> list[str]:
    """Check the files of [tls]; return what others will refuse our certificate for.

    A certificate that has expired is no fault: the units check before they start, and analysis needs none.

    Raises:
        ConfigError: every fault of the files.
    """
    from ich_node.certificates import faults_of, read_own_certificate
    from ich_node.routing import calls_by_tls

    files = config.tls.files
    if files is None:
        return []
    if config.tls.is_elsewhere:
        return ["[tls]: its files are credentials of the units that systemd starts; not looked at here"]
    if faults := faults_of(files):
        raise ConfigError(path, faults)
    own = read_own_certificate(files)
    now = datetime.now(UTC)
    said = [*own.refusals(now, serves=bool(config.tls.port), calls=calls_by_tls(config)), own.reminder(now)]
    return [f"tls.certificate = {files.certificate}: {one}" for one in said if one]


def _ports(config: Config) -> str:
    tls = [f"TLS port {config.tls.port}"] if config.tls.files_of_the_receiver else []
    return " and ".join(([f"port {config.node.port}"] if config.tls.plain_is_open else []) + tls)
