"""What alerts are sent to in tests: an MLLP listener and a web server as processes of their own, and a mail server."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from tests.running import free_port, listens, wait_for


@dataclass
class Peer:
    """A listener that runs, and what it has heard."""

    port: int
    heard_file: Path

    @property
    def heard(self) -> list[dict[str, Any]]:
        if not self.heard_file.exists():
            return []
        return [json.loads(line) for line in self.heard_file.read_text().splitlines()]


@contextmanager
def listener(kind: str, folder: Path, *behaviours: str, port: int | None = None) -> Iterator[Peer]:
    """Run a listener in another process; it takes one behaviour after the other, the last one for ever."""
    peer = Peer(port or free_port(), folder / f"{kind}.heard")
    words = [sys.executable, "-m", "tests.alert_listeners", kind, str(peer.port), str(peer.heard_file), *behaviours]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[1])
    try:
        wait_for(lambda: listens(peer.port), f"the {kind} listener")
        yield peer
    finally:
        process.kill()
        process.wait()


class Mailbox:
    """Takes mail."""

    def __init__(self) -> None:
        self.heard: list[dict[str, str]] = []
        self.answer = "250 taken"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:
        text, user = envelope.content.decode("utf-8", "replace"), str(session.auth_data or "")
        self.heard.append({"text": text, "user": user, "to": ",".join(envelope.rcpt_tos)})
        return self.answer


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, Mailbox]]:
    """Run a mail server; with TLS it asks for STARTTLS and for the login node, secret."""
    mailbox, port = Mailbox(), free_port()

    def login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = (data.login, data.password) == (b"node", b"secret")
        return AuthResult(success=right, handled=False, auth_data="node" if right else None)

    more: dict[str, Any] = {}
    if tls is not None:
        more = {"tls_context": tls, "require_starttls": True, "auth_required": True, "authenticator": login}
    server = Controller(mailbox, hostname="127.0.0.1", port=port, **more)
    server.start()
    try:
        yield port, mailbox
    finally:
        server.stop()


class _TakesAll(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


class _QuietServer(HTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A handshake that fails is what a test wants."""


@contextmanager
def https_server(tls: ssl.SSLContext) -> Iterator[int]:
    """Run a web server that takes everything from whom its context lets in; give its port."""
    server = _QuietServer(("127.0.0.1", 0), _TakesAll)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
