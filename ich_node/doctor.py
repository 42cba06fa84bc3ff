"""Look at everything the node depends on, and say what is wrong with it."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ich_node.alert_channels import channel_places
from ich_node.association import Patience
from ich_node.config import Config
from ich_node.database import open_database, prepare_database
from ich_node.deliver import echo
from ich_node.durable import write_durably
from ich_node.errors import IchNodeError, StartError
from ich_node.pipeline import open_model
from ich_node.records import Destination
from ich_node.routing import configured_destinations
from ich_node.storage_commitment import check_commitment

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look showed."""

    what: str
    well: bool
    says: str


def examine(config: Config) -> Iterator[Finding]:
    """Look at disk, database, model, device, every destination and alert channel, one after the other."""
    yield _look("disk", lambda: _disk(config))
    yield _look("database", lambda: _database(config))
    yield _look("model", lambda: _model(config))
    for destination in configured_destinations(config):
        yield _look(f"destination {destination.name}", partial(_destination, config, destination))
        if any(one.name == destination.name and one.commitment for one in config.destination):
            yield _look(f"storage commitment of {destination.name}", partial(_commitment, config, destination))
    for name, host, port in channel_places(config):
        yield _look(f"alert channel {name}", partial(_channel, config, host, port))


def _look(what: str, see: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, see())
    except (IchNodeError, OSError) as error:
        return Finding(what, False, str(error))


def _disk(config: Config) -> str:
    state = config.state_directory
    state.mkdir(parents=True, exist_ok=True)
    probe = state / "doctor.probe"
    write_durably(probe, [b"x"])
    probe.unlink()
    free_mib = shutil.disk_usage(state).free // _MEBIBYTE
    text = f"{free_mib} MiB free in {state}, reserve {config.receiver.reserve_mib} MiB"
    if free_mib < config.receiver.reserve_mib:
        raise StartError(f"{text}: senders are answered 0xA700")
    return text


def _database(config: Config) -> str:
    database = open_database(config.database_url, config.database.busy_timeout_s)
    installation_uid = prepare_database(database, config.state_directory)
    with database.writing():
        pass
    database.close()
    return f"whole and writable, installation {installation_uid}"


def _model(config: Config) -> str:
    settings = config.model
    model = open_model(settings.directory, settings.engine, threads=settings.threads,
                       cache=config.state_directory / "cache")  # fmt: skip
    identity = model.identity
    untrained = "its findings are shown, as TEST MODEL" if settings.show_findings_of_untrained_model else "no finding"
    trained = "trained" if identity.trained else f"UNTRAINED: {untrained}"
    return (
        f"{identity.name} {identity.version} ({identity.sha256[:12]}), {trained}; "
        f"engine {model.engine.name} on {model.engine.device}"
    )


def _destination(config: Config, destination: Destination) -> str:
    echo(destination, config.node.ae_title, _patience(config))
    return f"{destination.ae_title} at {destination.host}:{destination.port} answers C-ECHO"


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
