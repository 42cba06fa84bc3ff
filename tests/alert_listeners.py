"""Listeners that tests run as processes: ``python -m tests.alert_listeners mllp|web|smtp PORT FILE BEHAVIOUR...``.

What one hears is a JSON line each in FILE. Imports little, so that it starts at once.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import hl7


def _note(path: str, heard: dict[str, Any]) -> None:
    with Path(path).open("a") as file:
        file.write(json.dumps(heard | {"at": time.time()}) + "\n")


def _mllp(port: int, path: str, behaviours: list[str]) -> None:
    todo = chain(behaviours[:-1], repeat(behaviours[-1]))
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                _mllp_message(connection, path, todo)


def _mllp_message(connection: socket.socket, path: str, todo: Iterator[str]) -> None:
    received = b""
    while not received.endswith(b"\x1c\r"):
        part = connection.recv(4096)
        if not part:
            return
        received += part
    behaviour = next(todo)
    text = received[1:-2].decode("utf-8")
    message = hl7.parse(text)  # the stock parser reads it
    identifier = str(message.segment("MSH")(10))
    _note(path, {"identifier": identifier, "text": text, "behaviour": behaviour})
    if behaviour == "hang":
        time.sleep(3600)
    if behaviour == "drop":
        connection.sendall(b"\x0bMSH|^~\\&|")
        return
    of = "somebody else's" if behaviour == "other" else identifier
    code, of_our_own, text = ("AA" if behaviour == "other" else behaviour).partition(":")
    text = text if of_our_own else "as asked"
    now = f"{datetime.now().astimezone():%Y%m%d%H%M%S}"
    answer = f"MSH|^~\\&|RIS||ICH_NODE||{now}||ACK^R01|{identifier}|P|2.5.1\rMSA|{code}|{of}|{text}\r"
    connection.sendall(b"\x0b" + answer.encode() + b"\x1c\r")


def _web(port: int, path: str, behaviours: list[str]) -> None:
    todo = chain(behaviours[:-1], repeat(behaviours[-1]))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            behaviour = next(todo)
            _note(path, {"body": body, "headers": dict(self.headers.items()), "behaviour": behaviour})
            if behaviour == "hang":
                time.sleep(3600)
            self.send_response(int(behaviour))
            self.send_header("Location", f"http://127.0.0.1:{port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Keep quiet."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def _smtp(port: int, path: str, behaviours: list[str]) -> None:
    todo = chain(behaviours[:-1], repeat(behaviours[-1]))
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            connection, _ = server.accept()
            with suppress(ConnectionError), connection, connection.makefile("rwb") as lines:  # who speaks may be killed
                _smtp_session(lines, path, todo)


def _smtp_session(lines: Any, path: str, todo: Iterator[str]) -> None:
    """As little of RFC 5321 as smtplib speaks."""

    def say(text: str) -> None:
        lines.write(f"{text}\r\n".encode())
        lines.flush()

    say("220 ready")
    while line := lines.readline():
        word = line[:4].upper().strip()
        if word == b"DATA":
            say("354 go on")
            text = b"".join(iter(lines.readline, b".\r\n")).decode()
            behaviour = next(todo)
            identifier = text.partition("Message-ID: <")[2].partition("@")[0]
            _note(path, {"text": text, "identifier": identifier, "behaviour": behaviour})
            if behaviour == "hang":
                time.sleep(3600)
            say(f"{behaviour} as asked")
        elif word == b"QUIT":
            say("221 bye")
            return
        else:
            say("250 fine")


if __name__ == "__main__":
    {"mllp": _mllp, "web": _web, "smtp": _smtp}[sys.argv[1]](int(sys.argv[2]), sys.argv[3], sys.argv[4:])
