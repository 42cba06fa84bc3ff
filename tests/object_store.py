"""A real S3 server in a process of its own (moto's), and a door in front of it that can be slow, or say 503."""

from __future__ import annotations

import base64
import hashlib
import http.client
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.running import free_port, listens, wait_for

BUCKET = "images"
ACCESS_KEY, SECRET_KEY = "AKIAEXAMPLE", "a secret of nobody"  # the server looks at neither, unless it is told to
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass
class ObjectStore:
    """A server that keeps its objects in memory."""

    folder: Path
    port: int = field(default_factory=free_port)
    certificate: tuple[Path, Path] | None = None
    """Certificate and key."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        tls = [] if self.certificate is None else ["-c", str(self.certificate[0]), "-k", str(self.certificate[1])]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port), *tls]
        with (self.folder / "moto.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: listens(self.port), "the object store listens", 60)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and says nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def client(self, **options: Any) -> Any:
        """Give a client that is not the node's own."""
        import boto3

        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY} | options
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)

    def make_bucket(self, name: str = BUCKET) -> None:
        self.client().create_bucket(Bucket=name)

    def objects(self, begin: str = "", bucket: str = BUCKET) -> dict[str, bytes]:
        """Give everything in a bucket whose key begins so."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=begin)
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def empty(self, bucket: str = BUCKET) -> None:
        client = self.client()
        for key in self.objects(bucket=bucket):
            client.delete_object(Bucket=bucket, Key=key)

    def check_credentials(self, policy: str) -> tuple[str, str]:
        """Have it look at keys and policies from now on; give the keys of a user whom the policy allows something."""
        import boto3

        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        people = boto3.client("iam", endpoint_url=self.url, region_name="us-east-1", **keys)
        people.create_user(UserName="node")
        people.put_user_policy(UserName="node", PolicyName="may", PolicyDocument=policy)
        made = people.create_access_key(UserName="node")["AccessKey"]
        self.reset_authorization("0")
        return made["AccessKeyId"], made["SecretAccessKey"]

    def reset_authorization(self, requests_before: str) -> None:
        plain = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", requests_before.encode(), plain)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200


@contextmanager
def object_store(folder: Path, **options: Any) -> Iterator[ObjectStore]:
    """Run a server with an empty bucket; skipped where the packages are absent."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    folder.mkdir(parents=True, exist_ok=True)
    store = ObjectStore(folder, **options)
    store.start()
    try:
        if store.certificate is None:
            store.make_bucket()
        yield store
    finally:
        store.kill()


def storage(folder: Path, endpoint: str, **changes: Any) -> dict[str, Any]:
    """The section [storage] of a configuration."""
    secret = folder / "s3.secret"
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text(changes.pop("secret", SECRET_KEY) + "\n")
    secret.chmod(0o600)
    return {
        "url": f"s3://{BUCKET}/node", "endpoint": endpoint, "tls": False, "access_key": ACCESS_KEY,
        "secret_key_file": str(secret), "request_timeout_s": 10.0, "give_up_s": 15.0,
    } | changes  # fmt: skip


class Door:
    """Stands before an object store. It looks at what it lets through: every PUT must say the digest of its body."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.refuse = 0
        """So many requests are answered 503."""
        self.delay_s = 0.0
        self.let_through: list[tuple[str, str]] = []
        """Method and path."""
        self.refused = 0
        self.without_digest: list[str] = []
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:  # the client has given up
                    self.close_connection = True

            def do_GET(self) -> None:
                door.pass_on(self)

            def do_PUT(self) -> None:
                door.pass_on(self)

            def do_POST(self) -> None:
                door.pass_on(self)

            def do_DELETE(self) -> None:
                door.pass_on(self)

            def do_HEAD(self) -> None:
                door.pass_on(self)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Door:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str, part: str = "") -> int:
        return sum(one == method and part in path for one, path in self.let_through)

    def pass_on(self, asked: BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers.get("Content-Length") or 0))
        time.sleep(self.delay_s)
        with self._lock:
            refused, self.refuse = self.refuse > 0, max(0, self.refuse - 1)
            self.refused += refused
            if not refused:
                self.let_through.append((asked.command, asked.path))
        if body and asked.command == "PUT":
            digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            if asked.headers.get("Content-MD5") != digest:
                self.without_digest.append(asked.path)
        if refused:
            self._answer(asked, 503, [("Content-Type", "application/xml")], _SLOW_DOWN)
            return
        onward = http.client.HTTPConnection("127.0.0.1", self._store.port, timeout=30)
        try:
            onward.request(asked.command, asked.path, body, dict(asked.headers))
            answer = onward.getresponse()
            content = answer.read()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OURS]
            length = answer.getheader("Content-Length") if asked.command == "HEAD" else None
            self._answer(asked, answer.status, kept, content, length)
        finally:
            onward.close()

    @staticmethod
    def _answer(
        asked: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        length: str | None = None,
    ) -> None:
        asked.send_response(status)
        for name, value in [*headers, ("Content-Length", length or str(len(content)))]:
            asked.send_header(name, value)
        asked.end_headers()
        asked.wfile.write(content)


_OURS = ("content-length", "connection", "server", "date", "transfer-encoding")


def copies_of(state: Path) -> list[Path]:
    """The copies on this machine of what lies in a bucket."""
    return sorted(path for path in (state / "cache/objects").rglob("*") if path.is_file())


def delete_copies(state: Path) -> int:
    copies = copies_of(state)
    for path in copies:
        path.unlink()
    return len(copies)
