"""Records of TLS that carry nothing of DICOM: a new key may come at any time (RFC 8446 4.6.3)."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ich_node.receive.transport import whole_reads
from tests.certificates import Authority, Issued
from tests.fuzz.wire import (
    COMMAND,
    IMPLICIT,
    LAST,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    associate_rq,
    echo_command,
    p_data,
    pdu,
)
from tests.integration.receiving import running
from tests.integration.test_tls import OPENSSL, needs_openssl, tls_section
from tests.running import wait_for

ACCEPTED = struct.pack(">HH16s", 1, 0, b"ICH_NODE".ljust(16))
"""Of an A-ASSOCIATE-AC: version, and who was called (PS3.8 9.3.3)."""
SUCCESS = struct.pack("<HHLH", 0, 0x0900, 2, 0)
"""The element Status (0000,0900)."""


@dataclass
class Session:
    """An ``openssl s_client``: what it is told goes by TLS, but for a line that begins with a letter of its own."""

    process: subprocess.Popen[bytes]
    heard: bytearray = field(default_factory=bytearray)

    def say(self, content: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(content)
        self.process.stdin.flush()

    def wait_to_hear(self, what: bytes) -> None:
        wait_for(lambda: what in self._listen(), f"{what!r} in what s_client prints", 30)

    def _listen(self) -> bytearray:
        assert self.process.stdout is not None
        while piece := self.process.stdout.read(65536):
            self.heard += piece
        return self.heard


@contextmanager
def s_client(port: int, authority: Authority, shows: Issued) -> Iterator[Session]:
    command = [str(OPENSSL), "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3",
               "-cert", shows.pair[0], "-key", shows.pair[1], "-CAfile", str(authority.file)]  # fmt: skip
    with subprocess.Popen(
        command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        try:
            yield Session(process)
        finally:
            process.kill()


@needs_openssl
def test_a_new_key_between_two_pdus_is_not_taken_for_the_begin_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_reads, "PDU_S", 0.5)
    authority = Authority(tmp_path / "authority")
    section = tls_section(authority, authority.issue("node"))
    with (
        running(tmp_path / "state", tls=section) as receiving,
        s_client(receiving.port, authority, authority.issue("ct1")) as session,
    ):
        session.say(associate_rq((VERIFICATION, IMPLICIT)))
        session.wait_to_hear(ACCEPTED)
        session.say(b"K\n")
        session.wait_to_hear(b"KEYUPDATE")
        time.sleep(whole_reads.PDU_S + 2 * whole_reads.LOOK_S)
        assert session.process.poll() is None, "the connection stands"
        session.say(p_data((1, COMMAND | LAST, echo_command())))
        session.wait_to_hear(SUCCESS)
        session.say(pdu(RELEASE_RQ, bytes(4)))
        session.wait_to_hear(pdu(RELEASE_RP, bytes(4)))
