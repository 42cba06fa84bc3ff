"""Look at what the node depends on, but for its model, and say what is wrong with it."""

from __future__ import annotations

import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ich_node.alert_channels import channel_places
from ich_node.association import Patience
from ich_node.audit.sender import server_of
from ich_node.audit.stored import FOLDER, count_unsent
from ich_node.audit.syslog import SyslogConnection, SyslogServer
from ich_node.certificates import faults_of, read_own_certificate
from ich_node.config import Config
from ich_node.credentials import is_credential
from ich_node.database import open_database, prepare_database
from ich_node.deliver import echo
from ich_node.durable import write_durably
from ich_node.errors import ConfigError, IchNodeError, StartError
from ich_node.job_queue.shared_clock import NOTICED_S
from ich_node.queries import last_self_test
from ich_node.records import Destination, TlsFiles
from ich_node.routing import calls_by_tls, configured_destinations, pacs_to_ask
from ich_node.secret_files import check_private
from ich_node.state_folder import make_state_folder
from ich_node.storage_commitment import check_commitment
from ich_node.stored_files import stored_files

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look showed."""

    what: str
    well: bool
    says: str


def examine_node(config: Config) -> Iterator[Finding]:
    """Look at disk, secrets, object store and database, and how the last self-test went."""
    yield look("disk", lambda: _disk(config))
    yield look("state folder", lambda: _state_folder(config))
    yield look("secrets", lambda: _secrets(config))
    if config.storage.place is not None:
        yield look("object store", lambda: stored_files(config).check())
    database = look("database", lambda: _database(config))
    yield database
    if database.well:
        yield look("self-test", lambda: _self_test(config))
    else:
        yield Finding("self-test", False, "not looked at: the database comes first")


def examine_peers(config: Config) -> Iterator[Finding]:
    """Look at the certificate, every destination and alert channel, one after the other."""
    if (files := config.tls.files) is not None:
        yield look("certificate", lambda: _certificate(config, files))
    for destination in configured_destinations(config):
        yield examine_destination(config, destination)
        if any(one.name == destination.name and one.commitment for one in config.destination):
            yield look(f"storage commitment of {destination.name}", partial(_commitment, config, destination))
    if (pacs := pacs_to_ask(config)) is not None and pacs.tls is not None:
        yield look("the PACS of [query]", partial(_destination, config, pacs))
    for name, host, port in channel_places(config):
        yield look(f"alert channel {name}", partial(_channel, config, host, port))
    if (server := server_of(config)) is not None:
        yield look("audit server", partial(_audit, config, server))


def examine_destination(config: Config, destination: Destination) -> Finding:
    """Ask a destination by C-ECHO."""
    return look(f"destination {destination.name}", partial(_destination, config, destination))


def look(what: str, see: Callable[[], str]) -> Finding:
    """Look once; what cannot be seen is not well."""
    try:
        return Finding(what, True, see())
    except (IchNodeError, OSError) as error:
        return Finding(what, False, str(error))


def _disk(config: Config) -> str:
    state = config.state_directory
    make_state_folder(state)
    probe = state / "doctor.probe"
    write_durably(probe, [b"x"])
    probe.unlink()
    free_mib = shutil.disk_usage(state).free // _MEBIBYTE
    text = f"{free_mib} MiB free in {state}, reserve {config.receiver.reserve_mib} MiB"
    if free_mib < config.receiver.reserve_mib:
        raise StartError(f"{text}: senders are answered 0xA700")
    return text


def _state_folder(config: Config) -> str:
    """Look for what others could read, were the folder itself ever opened."""
    state = config.state_directory
    places = [state, *(state / name for name in ("spool", "results")), config.host_directory / "cache"]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (*places, *state.glob("*.*")) if path.exists()}
    wide = sorted(str(path) for path, mode in modes.items() if mode & 0o077)
    within = f"; made before with wider rights, shielded by the folder: {', '.join(wide)}" if wide else ""
    return f"{state} is the node's alone (mode {modes[state]:04o}){within}"


def _secrets(config: Config) -> str:
    files = [one.secret_file for one in config.alert_webhook]
    files += [one.client_key for one in config.alert_webhook if one.client_key is not None]
    files += [one.password_file for one in config.alert_mail if one.password_file is not None]
    files += [Path(config.web.key)] if config.web.key else []
    files += [server.client_key] if (server := server_of(config)) is not None and server.client_key is not None else []
    files += [config.tls.files.key] if config.tls.files is not None and not config.tls.is_elsewhere else []
    files += [Path(config.storage.secret_key_file)] if config.storage.place is not None else []
    here = [one for one in files if not is_credential(one)]
    for one in here:
        check_private(one)
    text = f"{len(here)} files, read by nobody else"
    return f"{text}; {len(files) - len(here)} credentials of units" if len(files) > len(here) else text


def _database(config: Config) -> str:
    database = open_database(config.database_url, config.database.busy_timeout_s)
    installation_uid = prepare_database(database, config.state_directory, host_directory=config.host_directory)
    with database.writing():
        pass
    ahead_s = database.ahead_of_server_s() if config.has_several_hosts else 0.0
    database.close()
    if abs(ahead_s) >= NOTICED_S:
        raise StartError(f"the clock of this host is {ahead_s:+.0f} s off the database server's: set them right")
    return f"whole and writable, installation {installation_uid}"


def _self_test(config: Config) -> str:
    """Say how the last one went.

    Raises:
        StartError: it failed.
    """
    database = open_database(config.database_url, config.database.busy_timeout_s)
    try:
        last = last_self_test(database)
    finally:
        database.close()
    every = f"every {config.self_test.every_min:g} min" if config.self_test.enabled else "only when asked"
    if last is None or last.finished_at is None:
        return f"runs {every}; none has ended yet"
    text = f"runs {every}; the last, {datetime.fromtimestamp(last.finished_at).astimezone():%d %b %H:%M}, {last.says}"
    if not last.passed:
        raise StartError(text)
    return text


def _certificate(config: Config, files: TlsFiles) -> str:
    """Look at our certificate; one that others refuse is ill, one that soon expires is not yet.

    Raises:
        ConfigError: the files cannot be used.
        StartError: who checks the certificate refuses it.
    """
    if faults := faults_of(files):
        raise ConfigError("[tls]", faults)
    own = read_own_certificate(files)
    now = datetime.now(UTC)
    if refusals := own.refusals(now, serves=bool(config.tls.port), calls=calls_by_tls(config)):
        raise StartError(f"{files.certificate} {'; '.join(refusals)}")
    return f"{files.certificate} {own.reminder(now) or f'is good until {own.ends_at:%Y-%m-%d}'}"


def _destination(config: Config, destination: Destination) -> str:
    echo(destination, config.node.ae_title, _patience(config))
    by = " by TLS" if destination.tls is not None else ""
    return f"{destination.ae_title} at {destination.host}:{destination.port} answers C-ECHO{by}"


def _audit(config: Config, server: SyslogServer) -> str:
    SyslogConnection(server, config.alert.connect_timeout_s).close()
    waiting = count_unsent(config.state_directory / FOLDER)
    return (
        f"{server.host}:{server.port} takes connections over TLS; {waiting} messages are not sent yet, or not for sure"
    )


def _commitment(config: Config, destination: Destination) -> str:
    check_commitment(destination, config.node.ae_title, _patience(config))
    title = destination.ae_title
    if not config.receiver.allow_any and all(peer.ae_title != title for peer in config.peer):
        raise StartError(
            f"{title} takes requests, and is no [[peer]]: an answer on an association of its own is refused"
        )
    return f"{title} takes requests, and may answer on an association of its own"


def _patience(config: Config) -> Patience:
    return Patience(config.delivery.connect_timeout_s, config.delivery.response_timeout_s)


def _channel(config: Config, host: str, port: int) -> str:
    with socket.create_connection((host, port), config.alert.connect_timeout_s):
        return f"{host}:{port} takes connections; `ich-node alert test` says whether it takes alerts"
