"""Connections that misbehave below DICOM, and what is left for the others."""

from __future__ import annotations

import queue
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.sop_class import CTImageStorage, Verification

from ich_node.config import parse_config
from ich_node.database import open_database, prepare_database
from ich_node.receive import Receiver, admission, transport
from ich_node.receive.admission import Admission, Lobby
from ich_node.receive.negotiation import Negotiation
from ich_node.receive.transport import connection, whole_reads
from ich_node.receive.transport.whole_reads import WholeReads
from tests.running import leaks_a_socket, settings, wait_for

ASSOCIATE_RQ, ASSOCIATE_AC, P_DATA = 1, 2, 4
MIB = 1024 * 1024
REJECTED_FOR_NOW = struct.pack(">BBLBBBB", 3, 0, 4, 0, 2, 3, 2)
MOST = 4


@contextmanager
def receiving(folder: Path, idle_timeout_s: float = 60.0, **changes: Any) -> Iterator[Receiver]:
    limits = {"allow_any": True, "reserve_mib": 0, "idle_timeout_s": idle_timeout_s, "maximum_associations": MOST}
    limits["maximum_associations_per_address"] = MOST
    config = parse_config(settings(folder, folder, receiver=limits | changes))
    database = open_database(config.database_url)
    prepare_database(database, folder)
    receiver = Receiver(config, database)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop(drain_s=0.0)
        database.close()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path) as running:
        yield running


@pytest.fixture
def hasty_receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path, idle_timeout_s=0.3) as running:
        yield running


def connect(receiver: Receiver, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", receiver.port), 60, (source, 0))


def associate(receiver: Receiver, *classes: str) -> Association:
    entity = AE("SCANNER1")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    for uid in classes:
        entity.add_requested_context(uid)
    return entity.associate("127.0.0.1", receiver.port, ae_title="ICH_NODE")


def echo(receiver: Receiver) -> int | None:
    """Give the status of a C-ECHO; None where there was no association."""
    association = associate(receiver, Verification)
    if not association.is_established:
        return None
    status = association.send_c_echo().get("Status")
    association.release()
    return None if status is None else int(status)


def is_closed(peer: socket.socket) -> bool:
    try:
        return peer.recv(1024) == b""
    except ConnectionResetError:
        return True


HALF_A_REQUEST = struct.pack(">BBL", ASSOCIATE_RQ, 0, 200) + bytes(100)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HALF_A_REQUEST,
        struct.pack(">BBL", P_DATA, 0, 10) + bytes(10),
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">BBL", ASSOCIATE_RQ, 0, 400 * 1024 * 1024),
        struct.pack(">BBL", ASSOCIATE_RQ, 0, transport.LONGEST_REQUEST + 1),
    ],
    ids=["nothing", "half", "another PDU", "no PDU", "far too long", "too long"],
)
def test_who_does_not_ask_properly_is_cut(hasty_receiver: Receiver, sent: bytes) -> None:
    with connect(hasty_receiver) as peer:
        peer.sendall(sent)
        assert is_closed(peer)
    assert echo(hasty_receiver) == 0x0000


def test_bytes_that_trickle_do_not_move_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.5)
    with receiving(tmp_path) as receiver, connect(receiver) as peer:
        peer.sendall(struct.pack(">BBL", ASSOCIATE_RQ, 0, 60_000))
        assert is_cut_while_bytes_trickle(peer)


@leaks_a_socket
def test_a_message_whose_bytes_trickle_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_reads, "PDU_S", 3.0)  # nothing is silent for that long
    with receiving(tmp_path) as receiver, connect(receiver) as peer:
        peer.sendall(whole_request())
        assert peer.recv(4096)[0] == ASSOCIATE_AC
        peer.sendall(struct.pack(">BBL", P_DATA, 0, 60_000))
        assert is_cut_while_bytes_trickle(peer)


def is_cut_while_bytes_trickle(peer: socket.socket) -> bool:
    closed = threading.Event()
    threading.Thread(target=lambda: is_closed(peer) and closed.set(), daemon=True).start()
    for _ in range(200):  # many seconds, if nobody cut it
        if closed.wait(0.1):
            break
        try:
            peer.sendall(b"\0")
        except OSError:
            closed.set()
    return closed.is_set()


@leaks_a_socket
@pytest.mark.parametrize("kind", [ASSOCIATE_RQ, P_DATA], ids=["a request", "a message"])
def test_400_mib_that_are_announced_and_sent_are_cut_within_3_mib(receiver: Receiver, kind: int) -> None:
    with connect(receiver) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)  # or what was never taken would count
        if kind == P_DATA:
            peer.sendall(whole_request())
            assert peer.recv(4096)[0] == ASSOCIATE_AC
        peer.sendall(struct.pack(">BBL", kind, 0, 400 * MIB))
        assert taken_until_cut(peer, 400 * MIB) <= 3 * MIB


def taken_until_cut(peer: socket.socket, most: int) -> int:
    taken = 0
    with suppress(ConnectionError):
        while taken < most:
            taken += peer.send(bytes(64 * 1024))
    return taken


@pytest.mark.parametrize("announced", [120_000, 400 * 1024 * 1024])
@leaks_a_socket
def test_an_association_that_stops_in_a_message_or_announces_too_much_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announced: int
) -> None:
    monkeypatch.setattr(whole_reads, "PDU_S", 0.3)
    with receiving(tmp_path) as receiver:
        association = associate(receiver, CTImageStorage)
        assert association.is_established
        association.dul.socket.socket.sendall(struct.pack(">BBL", P_DATA, 0, announced) + bytes(1000))
        wait_for(lambda: not association.is_alive(), "it is cut", 20)
        wait_for(lambda: not receiver._servers[0].active_associations, "nothing of it is left", 20)


@contextmanager
def full(receiver: Receiver, after: Callable[[Association], object] = lambda _: None) -> Iterator[list[Association]]:
    """A node with all associations in use, each of which has done something."""
    with ExitStack() as stack:
        others = [associate(receiver, CTImageStorage) for _ in range(MOST)]
        for one in others:
            stack.callback(one.abort)
            assert one.is_established
            after(one)
        yield others


@leaks_a_socket
def test_a_full_node_refuses_for_now_and_still_answers_echoes(receiver: Receiver) -> None:
    with full(receiver) as others:
        refused = associate(receiver, CTImageStorage)
        assert refused.is_rejected
        answer = refused.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        assert [echo(receiver) for _ in range(3)] == [0x0000] * 3
        with_more = associate(receiver, Verification, CTImageStorage)
        assert with_more.is_rejected, "only an echo alone gets one of the places kept for it"
        others[0].release()
        wait_for(lambda: associate(receiver, CTImageStorage).is_established, "a place is free again", 20)


def test_the_rejection_is_a_whole_pdu(receiver: Receiver) -> None:
    with full(receiver) as others, connect(receiver) as peer:
        request = A_ASSOCIATE_RQ()
        request.from_primitive(others[0].requestor.primitive)
        peer.sendall(request.encode())
        assert peer.recv(1024) == REJECTED_FOR_NOW
        assert is_closed(peer)


@leaks_a_socket
def test_who_stopped_in_a_message_makes_room_when_the_node_is_full(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_in_the_middle(one: Association) -> None:
        one.dul.socket.socket.sendall(struct.pack(">BBL", P_DATA, 0, 120_000) + bytes(1000))

    monkeypatch.setattr(admission, "STALLED_S", 0.2)
    with full(receiver, stop_in_the_middle):
        wait_for(lambda: associate(receiver, CTImageStorage).is_established, "there is room", 20)


def whole_request(calling: str = "SCANNER1", version: int = 1, more: bytes = b"") -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, "ICH_NODE"
    context = build_context(CTImageStorage)
    context.context_id = 1
    primitive.presentation_context_definition_list = [context]
    longest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    longest.maximum_length_received, implementation.implementation_class_uid = 16384, "1.2.3"
    primitive.user_information = [longest, implementation]
    request = A_ASSOCIATE_RQ()
    request.from_primitive(primitive)
    request.protocol_version = version
    body = request.encode()[6:] + more
    return struct.pack(">BBL", ASSOCIATE_RQ, 0, len(body)) + body


@pytest.mark.parametrize("kind", ["no body", "zeros", "another version", "a bomb of items", "cut short"])
def test_a_whole_request_that_is_none_takes_no_place(receiver: Receiver, kind: str) -> None:
    sent = {
        "no body": struct.pack(">BBL", ASSOCIATE_RQ, 0, 0),
        "zeros": struct.pack(">BBL", ASSOCIATE_RQ, 0, 200) + bytes(200),
        "another version": whole_request(version=2),
        "a bomb of items": whole_request(more=b"\x10\0\0\0" * 60_000),
        "cut short": whole_request(more=b"\x10\0\xff\xff"),
    }[kind]
    for _ in range(2 * MOST):
        with connect(receiver) as peer:
            peer.sendall(sent)
            assert is_closed(peer)
    association = associate(receiver, CTImageStorage)
    assert association.is_established
    association.release()


@leaks_a_socket
def test_a_stranger_gets_nobody_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "STALLED_S", 0.0)
    with receiving(tmp_path) as receiver, full(receiver) as others:
        monkeypatch.setattr(receiver._entrance, "_negotiation", Negotiation((), allow_any=False, accept="all"))
        for one in others:
            one.dul.socket.socket.sendall(struct.pack(">BBL", P_DATA, 0, 120_000) + bytes(1000))
        with connect(receiver) as stranger:
            stranger.sendall(whole_request("STRANGER"))
            assert stranger.recv(1024) == REJECTED_FOR_NOW
        assert all(one.is_alive() for one in others)


@leaks_a_socket
@pytest.mark.parametrize("fragments", ["long", "many"])
def test_an_object_without_end_is_cut(tmp_path: Path, fragments: str) -> None:
    with receiving(tmp_path, maximum_object_mib=16) as receiver:
        association = associate(receiver, CTImageStorage)
        value = struct.pack(">LBB", 100_002, 1, 0) + bytes(100_000) if fragments == "long" else b"\0\0\0\2\1\0" * 3000
        pdu = struct.pack(">BBL", P_DATA, 0, len(value)) + value
        for _ in range(400):  # 40 MB of one data set
            try:
                association.dul.socket.socket.sendall(pdu)
            except (OSError, AttributeError):
                break
        wait_for(lambda: not association.is_alive(), "it is cut", 20)


def test_who_waits_when_the_receiver_stops_is_sent_away(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        peer = connect(receiver)
        wait_for(lambda: receiver._servers and receiver._servers[0].lobby._waiting, "it waits", 20)
    with peer:
        assert is_closed(peer)


@leaks_a_socket
def test_echoes_that_hang_make_room_for_others(receiver: Receiver) -> None:
    with full(receiver):
        hanging = []
        for _ in range(admission.FOR_ECHO + 3):
            hanging.append(associate(receiver, Verification))
            assert hanging[-1].is_established
        assert echo(receiver) == 0x0000
        wait_for(lambda: sum(one.is_alive() for one in hanging) < admission.FOR_ECHO, "the oldest are cut", 20)
        for one in hanging:
            one.abort()


def test_many_that_ask_for_nothing_push_out_their_own(receiver: Receiver) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(receiver, f"127.0.0.{2 + number % 16}")) for number in range(200)]
        for number, one in enumerate(silent):
            if number % 2:
                one.sendall(HALF_A_REQUEST)
        assert [echo(receiver) for _ in range(3)] == [0x0000] * 3


def test_the_lobby_lets_the_oldest_of_the_most_go() -> None:
    pairs = [socket.socketpair() for _ in range(4)]
    try:
        lobby = Lobby(places=3)
        for (ours, _), address in zip(pairs, ("a", "b", "b", "c"), strict=True):
            lobby.enter(ours, address)
        assert pairs[1][1].recv(1) == b"", "the older of b"
        for _, theirs in (pairs[0], pairs[2], pairs[3]):
            theirs.setblocking(False)
            with pytest.raises(BlockingIOError):
                theirs.recv(1)
        lobby.leave(pairs[0][0])
        lobby.leave(pairs[0][0])
    finally:
        for pair in pairs:
            for one in pair:
                one.close()


class Pretended:
    def __init__(self, stalled_s: float = 0.0, idle_s: float = 0.0) -> None:
        self.alive, self.stalled, self.idle, self.was_cut = True, stalled_s, idle_s, False

    def is_alive(self) -> bool:
        return self.alive

    def idle_s(self) -> float:
        return self.idle

    def stalled_s(self) -> float:
        return self.stalled

    def cut(self) -> None:
        self.was_cut = True


def test_the_admission_counts_exactly() -> None:
    counting = Admission(2)
    first, second, third = Pretended(), Pretended(), Pretended()
    assert counting.admit(lambda: first, echo_alone=False, known=True)
    assert counting.admit(lambda: second, echo_alone=True, known=True)
    assert not counting.admit(lambda: third, echo_alone=False, known=True)
    first.alive = False
    assert counting.admit(lambda: third, echo_alone=False, known=True)
    counting.close()
    second.alive = False
    assert not counting.admit(Pretended, echo_alone=False, known=True)


def test_only_the_one_that_stalled_longest_makes_room_and_only_for_who_is_known() -> None:
    counting = Admission(2)
    slow, stalled = Pretended(admission.STALLED_S + 1), Pretended(admission.STALLED_S + 2)
    assert counting.admit(lambda: slow, echo_alone=False, known=True)
    assert counting.admit(lambda: stalled, echo_alone=False, known=True)
    assert counting.admit(Pretended, echo_alone=True, known=True), "an echo has a place of its own"
    assert not counting.admit(Pretended, echo_alone=False, known=False)
    assert (slow.was_cut, stalled.was_cut) == (False, False)
    assert counting.admit(Pretended, echo_alone=False, known=True)
    assert (slow.was_cut, stalled.was_cut) == (False, True)


def test_a_silent_tls_handshake_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 3.0)
    authority = trustme.CA()
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(ours)
    authority.configure_trust(theirs)
    with receiving(tmp_path) as receiver, ExitStack() as stack:
        receiver._servers[0].tls = lambda: ours
        silent = [stack.enter_context(connect(receiver, f"127.0.0.{2 + number}")) for number in range(16)]
        silent[0].sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
        entity = AE("SCANNER1")
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", receiver.port, ae_title="ICH_NODE", tls_args=(theirs, "127.0.0.1"))
        assert association.is_established
        assert association.send_c_echo().Status == 0x0000
        association.release()
        assert all(is_closed(one) for one in silent)


def test_the_names_of_pynetdicom_that_are_leaned_on_are_there() -> None:
    assert version("pynetdicom") == "3.0.4", "read ich_node/receive/transport again before another version is pinned"
    assert isinstance(whole_reads.AssociationSocket.ready, property)
    for name in ("_create_association", "handle"):
        assert callable(getattr(connection.RequestHandler, name))
    association = Association(AE("ANY"), "acceptor")
    assert hasattr(association.dul, "socket")
    assert not association._dul_ready.is_set()
    for name in ("to_provider_queue", "to_user_queue", "_process_recv_primitive"):
        assert hasattr(association.dul, name)
    assert hasattr(association.dimse, "msg_queue")
    assert callable(association.dimse.send_msg)
    with socket.socket() as unconnected:
        ours = whole_reads.AssociationSocket(association, unconnected)
        assert hasattr(ours, "_is_connected")
        assert hasattr(ours, "event_queue")


def test_of_two_events_at_once_the_second_does_not_wait_for_the_peer() -> None:
    """An association begins with two: that the connection is there, and its request."""
    waited: list[int | None] = []
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as peer:
        events: queue.Queue[str] = queue.Queue()
        dul = SimpleNamespace(event_queue=events, _process_recv_primitive=lambda: False)
        reading = object.__new__(WholeReads)
        reading._assoc = SimpleNamespace(dul=dul, dimse=SimpleNamespace(msg_queue=queue.Queue()))  # type: ignore[assignment]  # what is asked of it
        reading._ahead, reading._is_connected, reading.socket = bytearray(), True, peer
        reading._alarm = SimpleNamespace(wait_for=waited.append)  # type: ignore[assignment]  # counts
        events.put("Evt6")
        assert not reading.ready
        assert not waited
        events.get()
        assert not reading.ready
        assert waited == [peer.fileno()]
