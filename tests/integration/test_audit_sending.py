"""The audit trail reaches a syslog server over TLS, whole and in order, however long that is away."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from ich_node.audit import AuditTrail, open_trail
from ich_node.audit.sender import AuditSender, check_server, server_of
from ich_node.audit.stored import FOLDER, count_unsent
from ich_node.audit.syslog import SyslogServer
from ich_node.config import Config, parse_config
from ich_node.doctor import Finding, examine
from ich_node.errors import ConfigError
from tests.auditing import messages_in, parse, xml_of_syslog
from tests.ct_series import ct_slice
from tests.integration.receiving import running, send
from tests.running import settings, wait_for
from tests.syslog_server import SyslogServerProcess, needs_rsyslog

pytestmark = needs_rsyslog
SETTLE_S = 1.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SyslogServerProcess]:
    server = SyslogServerProcess(tmp_path / "rsyslog")
    yield server
    server.stop()


def config_of(server: SyslogServerProcess, state: Path, **section: object) -> Config:
    return parse_config(settings(state, Path("no-model"), audit=server.section | section))


def recording(config: Config, role: str, count: int, start: int = 0) -> AuditTrail:
    """Record messages that can be told apart."""
    trail = open_trail(config, role)
    for number in range(start, start + count):
        trail.commanded("test", ["2.25.1"], Number=str(number))
    return trail


@contextmanager
def sending(config: Config, settle_s: float = SETTLE_S) -> Iterator[threading.Thread]:
    """The sender, as the deliverer runs it."""
    server, stop = server_of(config), threading.Event()
    assert server is not None
    sender = AuditSender(config.state_directory / FOLDER, server, settle_s)
    thread = threading.Thread(target=sender.run, args=(stop,))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def fill(config: Config, role: str, count: int) -> None:
    """Record without an fsync for each."""
    trail = open_trail(config, role)
    for number in range(count):
        trail.refused("10.0.0.1", f"number {number}")
        trail._refusals.left()
    trail.close()


def in_order(received: list[bytes], recorded: list[bytes]) -> bool:
    """Every message came, and first came in the order of its process."""
    firsts = list(dict.fromkeys(received))
    by_process: dict[bytes, list[bytes]] = {}
    for message in firsts:
        by_process.setdefault(message.split(b" ", 5)[4], []).append(message)
    wanted: dict[bytes, list[bytes]] = {}
    for message in recorded:
        wanted.setdefault(message.split(b" ", 5)[4], []).append(message)
    return by_process == wanted


def test_messages_arrive_whole_over_mutual_tls(server: SyslogServerProcess, tmp_path: Path) -> None:
    config = config_of(server, tmp_path / "state")
    recording(config, "receive", 3).close()
    with server, sending(config):
        wait_for(lambda: len(server.received()) == 3, "they are there", 60)
        trail = recording(config, "receive", 1, start=3)
        wait_for(lambda: len(server.received()) == 4, "and what is recorded now", 60)
        trail.close()
    assert server.received() == messages_in(config.state_directory)
    said = [parse(xml_of_syslog(message)) for message in server.received()]
    assert [one.details["Number"] for one in said] == ["0", "1", "2", "3"]
    assert count_unsent(config.state_directory / FOLDER) == 0, "the end of the connection was answered"


def test_two_thousand_messages_wait_for_a_server_that_is_away(server: SyslogServerProcess, tmp_path: Path) -> None:
    config = config_of(server, tmp_path / "state")
    with sending(config):
        for role in ("receive", "work"):
            fill(config, role, 1000)
        assert count_unsent(config.state_directory / FOLDER) == 2000
        server.start()
        wait_for(lambda: len(server.received()) >= 2000, "all of them came", 90)
        wait_for(lambda: not count_unsent(config.state_directory / FOLDER), "and count as sent", 60)
    recorded = messages_in(config.state_directory)
    assert len(recorded) == 2000
    assert in_order(server.received(), recorded)


@pytest.mark.parametrize("how", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_server_that_goes_in_the_middle_misses_nothing(server: SyslogServerProcess, tmp_path: Path, how: int) -> None:
    config = config_of(server, tmp_path / "state")
    stop = threading.Event()

    def record() -> None:
        trail, number = open_trail(config, "receive"), 0
        while not stop.wait(0.002):
            trail.refused("10.0.0.1", f"number {number}")
            trail._refusals.left()
            number += 1
        trail.close()

    recorder = threading.Thread(target=record, daemon=True)
    with sending(config, settle_s=5.0):
        server.start()
        recorder.start()
        try:
            for _ in range(2):
                before = len(server.received())
                wait_for(lambda before=before: len(server.received()) > before + 100, "messages come", 60)
                server.stop(how)
                server.start()
        finally:
            stop.set()
            recorder.join(60)
        assert not recorder.is_alive()
        recorded = messages_in(config.state_directory)
        wait_for(lambda: set(recorded) <= set(server.received()), "all of them came", 90)
    unknown = set(server.received()) - set(recorded)
    pieces = {line for line in unknown if any(one.startswith(line) for one in recorded)}
    assert not unknown - pieces
    assert len(pieces) <= 2, "a message that kill -9 cut, one of each"


def test_a_sender_that_ends_and_starts_again_sends_what_is_left(server: SyslogServerProcess, tmp_path: Path) -> None:
    config = config_of(server, tmp_path / "state")
    with server:
        for _ in range(3):
            fill(config, "receive", 50)
            with sending(config):
                time.sleep(0.5)
        with sending(config):
            wait_for(lambda: len(set(server.received())) == 150, "all of them came", 60)
    assert in_order(server.received(), messages_in(config.state_directory))
    assert len(server.received()) == 150, "an orderly end makes no repeats"


def test_a_server_of_another_authority_or_name_gets_nothing(
    server: SyslogServerProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with server:
        for number, section in enumerate(({"ca_file": str(other)}, {"host": "127.0.0.1"})):
            config = config_of(server, tmp_path / f"state-{number}", **section)
            fill(config, "receive", 5)
            caplog.clear()
            with sending(config):
                wait_for(lambda: "takes no messages" in caplog.text, "it is told", 30)
            assert count_unsent(config.state_directory / FOLDER) == 5
        assert server.received() == []


def test_without_our_certificate_the_server_takes_nothing_and_nothing_counts_as_sent(
    server: SyslogServerProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(server, tmp_path / "state", client_certificate="", client_key="")
    fill(config, "receive", 5)
    with server, sending(config):
        wait_for(lambda: "takes no messages" in caplog.text, "it is told", 30)
        time.sleep(3 * SETTLE_S)
        assert server.received() == []
        assert count_unsent(config.state_directory / FOLDER) == 5


def test_receiving_goes_on_while_the_server_hangs(tmp_path: Path) -> None:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        section = {"host": "localhost", "port": port}
        with running(tmp_path / "state", audit=section) as node:
            stop = threading.Event()
            sender = AuditSender(node.state / FOLDER, SyslogServer("localhost", port))
            thread = threading.Thread(target=sender.run, args=(stop,), daemon=True)
            thread.start()
            try:
                assert send(node.port, *(ct_slice(number) for number in range(1, 11))) == [0] * 10
                wait_for(lambda: len(messages_in(node.state)) == 2, "begin and end are recorded", 30)
            finally:
                stop.set()
        silent.close()
        thread.join(30)
        assert not thread.is_alive()


def test_doctor_looks_at_the_server(server: SyslogServerProcess, tmp_path: Path) -> None:
    def look() -> Finding:
        (found,) = [one for one in examine(config) if one.what == "audit server"]
        return found

    config = config_of(server, tmp_path / "state")
    fill(config, "receive", 2)
    assert not look().well
    with server:
        found = look()
    assert found.well
    assert "2 messages" in found.says


def test_certificates_that_cannot_be_used_are_named_at_the_start(server: SyslogServerProcess, tmp_path: Path) -> None:
    config = config_of(server, tmp_path / "state", ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match=r"audit\.ca_file"):
        check_server(config)
