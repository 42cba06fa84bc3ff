"""``ich-node web``: the pages, served until a signal says stop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from ich_node.accounts import SessionRules
from ich_node.alert_links import AlertLinks, open_links
from ich_node.audit import AuditTrail, open_trail
from ich_node.config import Config
from ich_node.database import ChangeWatch, Database, open_database, prepare_database
from ich_node.decode import DecoderPool
from ich_node.decoding_rules import decline_by, decode_limits
from ich_node.errors import ConfigError, StorageFailed
from ich_node.log import EventLog
from ich_node.role_lock import holding_role
from ich_node.service import SystemdNotifier, listen, stop_on_signals
from ich_node.stored_files import stored_files
from ich_node.timekeeping import keep_time
from ich_node.web.app import make_app
from ich_node.web.audit import PageAudit
from ich_node.web.certificate import check_certificate
from ich_node.web.folder_sizes import FolderSizes
from ich_node.web.gate import Gate
from ich_node.web.live import LiveFeed, live_state
from ich_node.web.pages import Pages
from ich_node.web.patients import Patients
from ich_node.web.site import Site
from ich_node.web.slices import SliceReader

_LONGEST_WAIT_S = 5.0
"""For a locked database: a person waits before the page."""
_MOST_CONNECTIONS = 400
_DECODING = 2
"""Children that decode for the viewers."""
_GRACE_S = 5
_LOOK_S = 1.0

log = EventLog("web")


def run_web(config: Config) -> None:
    """Serve until a signal says stop.

    Raises:
        ConfigError: the pages are not switched on, or the certificate cannot be used.
        StartError: the node cannot run here: port, state folder, database.
    """
    links = open_links(config)
    if links is None:
        raise ConfigError("configuration", ["web.enabled = False: there are no pages to serve"])
    certificate_files = check_certificate(config)
    database = open_database(config.database_url, min(config.database.busy_timeout_s, _LONGEST_WAIT_S))
    notifier = SystemdNotifier()
    with (
        stop_on_signals() as stop,
        holding_role(config.host_directory, "web"),
        DecoderPool(decode_limits(config), decline_by(config), _DECODING) as decoder,
    ):
        prepare_database(database, config.state_directory, host_directory=config.host_directory)
        keep_time(config, database)
        trail = open_trail(config, "web")
        site = _site(config, database, links, trail, decoder)
        server = uvicorn.Server(_settings(make_app(site), certificate_files))
        with (
            listen(config.web.bind, config.web.port, "web.port and web.bind") as listening,
            _looking(site, stop),
        ):
            trail.started(config)
            log.info("web ready", bind=config.web.bind, port=config.web.port)
            notifier.ready(f"serving pages at port {config.web.port}")
            _serve(server, listening, database, stop, notifier)
        trail.stopped()
        if database.failed:
            raise StorageFailed("the disk or the database failed; see `ich-node rebuild`")
    database.close()


def _site(config: Config, database: Database, links: AlertLinks, trail: AuditTrail, decoder: DecoderPool) -> Site:
    files = stored_files(config)
    rules = SessionRules(idle_s=60 * config.web.session_idle_min, longest_s=3600 * config.web.session_h)
    return Site(
        config=config,
        database=database,
        links=links,
        audit=PageAudit(trail, files),
        gate=Gate(database, rules, config.web.trusts_proxy),
        pages=Pages(config.node.ae_title),
        patients=Patients(files),
        live=LiveFeed(partial(live_state, database), partial(ChangeWatch, database)),
        slices=SliceReader(files, decoder),
        sizes=FolderSizes(files),
    )


@contextmanager
def _looking(site: Site, stop: threading.Event) -> Iterator[None]:
    """Look for what browsers are to be told, in a thread, until the block ends."""
    thread = threading.Thread(target=site.live.run, args=(stop,), name="live")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _serve(
    server: uvicorn.Server,
    listening: socket.socket,
    database: Database,
    stop: threading.Event,
    notifier: SystemdNotifier,
) -> None:
    """Serve in a thread: signals, and the supervisor's end, are watched for here as in every role."""
    thread = threading.Thread(target=server.run, args=([listening],), name="web")
    thread.start()
    while thread.is_alive() and not database.failed and not stop.wait(_LOOK_S):
        notifier.alive()
    notifier.stopping()
    server.should_exit = True
    thread.join()


def _settings(app: FastAPI, certificate_files: tuple[Path, Path] | None) -> uvicorn.Config:
    certificate, key = certificate_files or (None, None)
    return uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # its lines would hold the tokens
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
