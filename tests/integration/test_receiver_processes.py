"""A receiver of several processes: one limit for all, and what happens when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.sop_class import Verification

from ich_node.config import parse_config
from ich_node.database import InstanceRow, open_database, prepare_database
from ich_node.receive.processes import MOST_BY_ITSELF, number_of_processes
from ich_node.receive.spool import file_head
from tests.ct_series import ct_slice
from tests.fuzz.wire import ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RP, RELEASE_RQ, associate_rq, pdu
from tests.integration.receiving import CT, association, encoded, store_bytes
from tests.running import NodeProcesses, settings, wait_for
from tests.unit.queueing import rows

PROCESSES, MOST = 3, 32
REQUEST = associate_rq((CT, str(ExplicitVRLittleEndian)), calling=b"SCANNER1")
REJECTED_FOR_NOW = pdu(ASSOCIATE_RJ, bytes([0, 2, 3, 2]))
HALF_A_MESSAGE = pdu(P_DATA, bytes(1000), 16_000)


def receiver_in(folder: Path, **changes: object) -> NodeProcesses:
    limits = {"processes": PROCESSES, "maximum_associations": MOST, "maximum_associations_per_address": MOST}
    limits |= changes
    return NodeProcesses(folder, settings(folder / "state", folder, receiver=limits), roles=("receive",))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcesses]:
    with receiver_in(tmp_path_factory.mktemp("node")) as node:
        yield node


def children(node: NodeProcesses) -> list[psutil.Process]:
    return psutil.Process(node.processes["receive"].pid).children()


def events(node: NodeProcesses, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in node.log("receive").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def ask(node: NodeProcesses, address: str = "127.0.0.1") -> tuple[socket.socket, bytes]:
    """Ask for an association; give the connection and the answer."""
    peer = socket.create_connection(("127.0.0.1", node.port), 60, (address, 0))
    peer.sendall(REQUEST)
    return peer, peer.recv(4096)


def hold(node: NodeProcesses, stack: ExitStack, number: int, address: str = "127.0.0.1") -> list[socket.socket]:
    """Hold so many associations; each has to be accepted."""
    held = []
    for _ in range(number):
        peer, answer = ask(node, address)
        stack.enter_context(peer)
        assert answer[0] == ASSOCIATE_AC
        held.append(peer)
    return held


def is_served(node: NodeProcesses) -> bool:
    peer, answer = ask(node)
    peer.close()
    return answer[:1] == bytes([ASSOCIATE_AC])


def is_released(peer: socket.socket) -> bool:
    """Release an association; say whether somebody answered."""
    try:
        peer.sendall(pdu(RELEASE_RQ, bytes(4)))
        return peer.recv(1024)[:1] == bytes([RELEASE_RP])
    except OSError:
        return False


def serves(process: psutil.Process, node: NodeProcesses) -> int:
    connections = process.net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == node.port for one in connections)


def echo(node: NodeProcesses) -> int | None:
    with association(node.port, (Verification, ["1.2.840.10008.1.2"])) as to:
        return to.send_c_echo().get("Status") if to.is_established else None


def all_are_free(node: NodeProcesses) -> None:
    wait_for(lambda: not sum(serves(one, node) for one in children(node)), "nobody is served any more")


def test_the_limit_is_one_for_all_processes_and_each_does_its_part(node: NodeProcesses) -> None:
    with ExitStack() as stack:
        held = hold(node, stack, MOST)
        assert min(serves(one, node) for one in children(node)) >= MOST // PROCESSES - 3
        for _ in range(3):
            peer, answer = ask(node)
            stack.enter_context(peer)
            assert answer == REJECTED_FOR_NOW
        assert echo(node) == 0x0000, "a full node still says that it is there"
        assert all(is_released(one) for one in held)
        wait_for(lambda: is_served(node), "there are places again")
    all_are_free(node)


def test_one_address_gets_three_quarters_of_the_places_and_others_the_rest(tmp_path: Path) -> None:
    most, refused = MOST * 3 // 4, "association refused: its address has all it may have"
    with receiver_in(tmp_path, maximum_associations_per_address=0) as node, ExitStack() as stack:
        held = hold(node, stack, most)
        peer, answer = ask(node)
        stack.enter_context(peer)
        assert answer == REJECTED_FOR_NOW
        assert [line["address"] for line in events(node, refused)] == ["127.0.0.1"]
        assert echo(node) == 0x0000, "who proposes Verification alone is let in"
        hold(node, stack, MOST - most, "127.0.0.2")
        assert is_released(held[0])
        stack.enter_context(wait_for(lambda: served_again(node), "it has a place again"))


def test_a_process_that_is_killed_takes_only_its_own_and_gives_its_places_back(node: NodeProcesses) -> None:
    with ExitStack() as stack:
        held = hold(node, stack, MOST)
        victim = children(node)[0]
        lost = serves(victim, node)
        others = {one.pid for one in children(node)} - {victim.pid}
        victim.kill()
        wait_for(lambda: len({one.pid for one in children(node)} - others - {victim.pid}) == 1, "it is started again")
        again = [wait_for(lambda: served_again(node), "its places are free") for _ in range(lost)]
        for peer in again:
            stack.enter_context(peer)
        peer, answer = ask(node)
        stack.enter_context(peer)
        assert answer == REJECTED_FOR_NOW, "no place is there twice"
        assert sum(is_released(one) for one in held) == MOST - lost
    assert {one.pid for one in children(node)} > others
    assert [line["status"] for line in events(node, "process of the receiver ended by itself, will be started again")]
    all_are_free(node)


def served_again(node: NodeProcesses) -> socket.socket | None:
    peer, answer = ask(node)
    if answer[:1] == bytes([ASSOCIATE_AC]):
        return peer
    peer.close()
    return None


def test_who_stopped_in_a_message_makes_room_whichever_process_serves_him(node: NodeProcesses) -> None:
    with ExitStack() as stack:
        for peer in hold(node, stack, MOST):
            peer.sendall(HALF_A_MESSAGE)
        wait_for(lambda: is_served(node), "there is room")
    all_are_free(node)


def test_images_of_several_associations_are_all_there(node: NodeProcesses) -> None:
    slices = [ct_slice(number) for number in range(1, 7)]
    with ExitStack() as stack:
        open_ones = [stack.enter_context(association(node.port)) for _ in range(3)]
        for number, ds in enumerate(slices):
            assert store_bytes(open_ones[number % 3], encoded(ds), instance_uid=ds.SOPInstanceUID) == 0x0000
    database = open_database(node.config.database_url)
    kept = {row.sop_instance_uid for row in rows(database, InstanceRow)}
    database.close()
    assert {str(ds.SOPInstanceUID) for ds in slices} <= kept


def test_what_a_crash_left_is_adopted_once_and_a_stop_lets_open_associations_finish(tmp_path: Path) -> None:
    node = receiver_in(tmp_path)
    before = open_database(node.config.database_url)
    prepare_database(before, node.config.state_directory)
    before.close()
    ds = ct_slice(1)
    (folder := tmp_path / "state" / "spool" / "ab").mkdir(parents=True)
    syntax = "1.2.840.10008.1.2.1"
    left = file_head(CT, str(ds.SOPInstanceUID), syntax, "SCANNER1") + encoded(ds)
    (folder / ("ab" + "0" * 30 + ".dcm")).write_bytes(left)
    with node:
        assert len(events(node, "file without a row adopted")) == 1
        (ready,) = events(node, "receiver ready")
        assert ready["processes"] == PROCESSES == len(children(node))
        served = children(node)
        second = ct_slice(2)
        with association(node.port) as to:
            assert to.is_established
            node.processes["receive"].send_signal(signal.SIGTERM)
            wait_for(lambda: not can_connect(node), "nobody else is let in")
            assert store_bytes(to, encoded(second), instance_uid=second.SOPInstanceUID) == 0x0000
        assert node.processes["receive"].wait(60) == 0
        assert not any(one.is_running() for one in served)
    database = open_database(node.config.database_url)
    assert len(rows(database, InstanceRow)) == 2
    database.close()


def can_connect(node: NodeProcesses) -> bool:
    try:
        socket.create_connection(("127.0.0.1", node.port), 5).close()
    except OSError:
        return False
    return True


def test_when_the_first_process_is_killed_the_others_free_the_port(tmp_path: Path) -> None:
    with receiver_in(tmp_path) as node:
        served = children(node)
        node.kill("receive")
        wait_for(lambda: not any(one.is_running() for one in served), "they are gone, too")
        node.restart("receive")
        assert echo(node) == 0x0000


@pytest.mark.slow  # it takes SILENT_S
def test_a_process_that_hangs_is_killed_and_the_watchdog_waits_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with receiver_in(tmp_path) as node:
            while b"WATCHDOG=1" not in told.recv(1024):
                pass
            victim = children(node)[0]
            victim.suspend()
            time.sleep(6.0)  # two beats, and the messages on their way
            told.setblocking(False)
            while read_now(told):
                pass
            time.sleep(3.0)
            assert not read_now(told), "the watchdog is not told that all is well"
            assert echo(node) == 0x0000
            wait_for(lambda: not victim.is_running(), "it is killed")
            told.settimeout(60)
            assert b"WATCHDOG=1" in told.recv(1024)
            assert events(node, "process of the receiver gives no sign of life and is killed")


def read_now(told: socket.socket) -> bytes:
    try:
        return told.recv(1024)
    except BlockingIOError:
        return b""


def test_the_number_of_processes_is_that_of_the_cores_where_the_site_does_not_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def with_cores(cores: int, processes: int = 0) -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        return number_of_processes(parse_config(settings(tmp_path, tmp_path, receiver={"processes": processes})))

    assert [with_cores(cores) for cores in (1, 2, 64)] == [1, 2, MOST_BY_ITSELF]
    assert with_cores(64, processes=1) == 1
    assert with_cores(1, processes=7) == 7
