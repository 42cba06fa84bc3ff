"""A day without the audit server: 100,000 messages wait, nothing waits for them, and all of them arrive in order."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from ich_node.audit import Outcome, Peer, Subject, Transfers, open_trail
from ich_node.audit.reading import verify
from ich_node.audit.sender import AuditSender, server_of
from ich_node.audit.stored import FOLDER, audit_files, count_unsent, read_records
from tests.ct_series import ct_slice
from tests.integration.receiving import CT, running, send
from tests.running import wait_for
from tests.syslog_server import SyslogServerProcess, needs_rsyslog

pytestmark = [needs_rsyslog, pytest.mark.slow, pytest.mark.timeout(900)]
COUNT = 100_000


def in_files(state: Path) -> dict[str, list[bytes]]:
    return {path.name: [one.message for one in read_records(path)] for path in audit_files(state / FOLDER)}


def test_a_hundred_thousand_messages_wait_for_the_server_and_block_nothing(tmp_path: Path) -> None:
    server = SyslogServerProcess(tmp_path / "rsyslog")
    with running(tmp_path / "state", audit=server.section) as node:
        stop = threading.Event()
        target = server_of(node.config)
        assert target is not None
        sender = AuditSender(node.state / FOLDER, target, settle_s=2.0)
        thread = threading.Thread(target=sender.run, args=(stop,), daemon=True)
        thread.start()
        slices = [ct_slice(number) for number in range(1, 101)]
        began = time.monotonic()
        assert set(send(node.port, *slices[:50])) == {0}
        before_s = time.monotonic() - began

        trail = open_trail(node.config, "receive")
        transfers, peer = Transfers(trail, incoming=True), Peer("SCANNER1", "10.1.2.3")
        began = time.monotonic()
        for number in range(COUNT):
            subject = Subject(f"PID{number}", f"2.25.{number}")
            transfers.count(number, peer, subject, CT, outcome=Outcome.SUCCESS)
            transfers.end(number)
        recorded_s = time.monotonic() - began
        unsent = count_unsent(node.state / FOLDER)
        assert unsent >= COUNT

        server.start()
        began = time.monotonic()
        wait_for(server.received, "the server has some of it", 60)
        images_began = time.monotonic()
        assert set(send(node.port, *slices[50:])) == {0}
        meanwhile_s = time.monotonic() - images_began
        assert count_unsent(node.state / FOLDER) > 0, "they were stored while it was being sent"
        wait_for(lambda: not count_unsent(node.state / FOLDER), "the server has it all", 600)
        sent_s = time.monotonic() - began
        trail.close()
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
        server.stop()
        stored = in_files(node.state)
    received = server.received()
    memory_mib = psutil.Process().memory_info().rss // 2**20
    sys.stdout.write(
        f"\n{unsent} messages recorded in {recorded_s:.1f} s, sent in {sent_s:.1f} s, {len(received)} received; "
        f"50 images took {before_s:.2f} s before and {meanwhile_s:.2f} s meanwhile; {memory_mib} MiB in all\n"
    )
    everything = {message for messages in stored.values() for message in messages}
    assert len(everything) >= COUNT
    assert set(received) == everything, "none is lost"
    assert len(received) == len(everything), "and none came twice, since no connection broke"
    place = {message: number for number, message in enumerate(received)}
    for messages in stored.values():
        places = [place[message] for message in messages]
        assert places == sorted(places), "in the order of each file"
    assert verify(tmp_path / "state" / FOLDER)[1:] == ([], [])
