"""Objects and transfers that are hostile or broken, sent to a real receiver process: nothing of them is kept."""

from __future__ import annotations

import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from tests.corruption import KINDS, corrupted, objects
from tests.ct_series import ct_slice, encoded
from tests.fuzz.dimse_fuzzer import files_open
from tests.fuzz.wire import (
    COMMAND,
    CT,
    IMPLICIT,
    LAST,
    Peer,
    associate_rq,
    echo,
    p_data,
    store_command,
    store_pdus,
    value,
)
from tests.hostile_objects import STRUCTURES, element, inserted, named_elsewhere
from tests.integration.receiving import files_in
from tests.provoked import Provoked, Watch, tell
from tests.running import NodeProcesses, settings, wait_for

SUCCESS, NOT_UNDERSTOOD, NO_MATCH = 0x0000, 0xC000, 0xA900
EXPLICIT = str(ExplicitVRLittleEndian)
MOST_MIB = 256.0
UID = str(ct_slice(1).SOPInstanceUID).encode()
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcesses]:
    folder = tmp_path_factory.mktemp("node")
    receiver = {"allow_any": True, "reserve_mib": 0, "maximum_object_mib": 64, "maximum_associations": 32}
    with NodeProcesses(folder, settings(folder / "state", folder, receiver=receiver), roles=("receive",)) as running:
        yield running


@pytest.fixture(autouse=True)
def it_goes_on(node: NodeProcesses) -> Iterator[None]:
    """After whatever was sent: an echo is answered, nothing half-written is left, and every line of the log is one."""
    before, log = files_in(state(node)), node.log("receive")
    begin = log.stat().st_size
    yield
    assert echo(node.port) == SUCCESS
    assert files_in(state(node)) == before
    for line in log.read_bytes()[begin:].splitlines():
        json.loads(line)
    assert resident_mib(node) < MOST_MIB


def state(node: NodeProcesses) -> Path:
    return node.folder / "state"


def resident_mib(node: NodeProcesses) -> float:
    return psutil.Process(node.processes["receive"].pid).memory_info().rss / MIB


def cpu_s(node: NodeProcesses) -> float:
    times = psutil.Process(node.processes["receive"].pid).cpu_times()
    return times.user + times.system


def store(node: NodeProcesses, content: bytes, syntax: str = EXPLICIT) -> int | None:
    peer = Peer.associated(node.port, "127.0.0.1", (CT, syntax))
    try:
        for one in store_pdus(content, UID):
            peer.send(one)
        return peer.status()
    finally:
        peer.close()


# -------------------------------------------------------------------------------- objects that are not whole


def check_corrupted(request: pytest.FixtureRequest, node: NodeProcesses, seed: int, count: int) -> int:
    """Send them; return how many were of kinds that everybody accepts."""
    with Watch.over(node) as watch:
        sent, answers = send_corrupted(node, seed, count)
    assert len(sent) == len(KINDS)
    number = sum(sent.values())
    what = f"objects damaged in {len(KINDS)} ways"
    tell(request, Provoked(what, number, 0, in_words(answers), watch.longest_s, watch.peak_mib))
    return number


def in_words(answers: Counter[int | None]) -> str:
    return ", ".join(f"{'A-ABORT' if one is None else f'0x{one:04X}'} ({n})" for one, n in answers.most_common())


def send_corrupted(node: NodeProcesses, seed: int, count: int) -> tuple[Counter[str], Counter[int | None]]:
    sent: Counter[str] = Counter()
    answers: Counter[int | None] = Counter()
    syntaxes = sorted({*objects(), IMPLICIT})
    peer = None
    for one in corrupted(seed, count):
        if one.syntax not in syntaxes:  # big endian is not accepted by everybody, and looked at elsewhere
            continue
        sent[one.kind] += 1
        if peer is None:
            peer = Peer.associated(node.port, "127.0.0.1", *((CT, syntax) for syntax in syntaxes))
        for piece in store_pdus(one.content, UID, context=2 * syntaxes.index(one.syntax) + 1):
            peer.send(piece)
        status = peer.status()
        answers[status] += 1
        assert status != SUCCESS, one
        if status is None:
            peer.close()
            peer = None
    assert peer is not None
    peer.close()
    return sent, answers


def test_a_sample_of_corrupted_objects_is_never_answered_success(
    request: pytest.FixtureRequest, node: NodeProcesses
) -> None:
    assert check_corrupted(request, node, seed=1, count=200) >= 150


@pytest.mark.slow
def test_two_thousand_corrupted_objects_are_never_answered_success(
    request: pytest.FixtureRequest, node: NodeProcesses
) -> None:
    assert check_corrupted(request, node, seed=7, count=2400) >= 2000


def test_whole_objects_of_every_syntax_are_answered_success(tmp_path: Path) -> None:
    """The control: it is not the test that is refused."""
    with NodeProcesses(tmp_path, settings(tmp_path / "state", tmp_path), roles=("receive",)) as node:
        assert [store(node, content, syntax) for syntax, content in objects().items()] == [SUCCESS] * len(objects())


# ------------------------------------------------------------------------------------------ bombs of structure


@pytest.mark.parametrize("what", STRUCTURES)
def test_structures_without_measure_are_refused_soon_and_in_little_memory(
    request: pytest.FixtureRequest, node: NodeProcesses, what: str
) -> None:
    content = STRUCTURES[what]()
    before = cpu_s(node)
    with Watch.over(node) as watch:
        assert store(node, content) == NOT_UNDERSTOOD
    tell(request, Provoked(what, 1, 0, "0xC000", watch.longest_s, watch.peak_mib))
    assert cpu_s(node) - before < 20, (
        "22 s it would take pydicom for a million items, on a machine with nothing else to do"
    )
    assert resident_mib(node) < MOST_MIB


def test_64k_private_tags_cost_little(tmp_path: Path) -> None:
    content = inserted(b"".join(element(0x0043, n, b"LO", b"ab") for n in range(65536)))
    with NodeProcesses(tmp_path, settings(tmp_path / "state", tmp_path), roles=("receive",)) as node:
        before = cpu_s(node)
        assert store(node, content) == SUCCESS, "they are legal"
        assert cpu_s(node) - before < 10
        assert resident_mib(node) < MOST_MIB


# ------------------------------------------------------------------------------------- names that lead elsewhere


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
def test_five_hundred_names_that_lead_elsewhere_are_refused_in_one_line_each(
    request: pytest.FixtureRequest, node: NodeProcesses
) -> None:
    outside = sorted(path for path in node.folder.rglob("*") if "spool" not in path.parts)
    log = node.log("receive")
    begin = log.stat().st_size
    answers: Counter[int | None] = Counter()
    with Watch.over(node) as watch:
        peer = Peer.associated(node.port)
        for place, name, content, uid in named_elsewhere(500):
            for one in store_pdus(content, uid):
                peer.send(one)
            status = peer.status()
            answers[status] += 1
            assert status != SUCCESS, (place, name)
            if status is None:  # a command that cannot be read: the association is aborted
                peer.close()
                peer = Peer.associated(node.port)
        peer.close()
    tell(request, Provoked("names that lead elsewhere", 500, 0, in_words(answers), watch.longest_s, watch.peak_mib))
    assert sorted(path for path in node.folder.rglob("*") if "spool" not in path.parts) == outside
    wait_for(lambda: echo(node.port) == SUCCESS, "it answers")
    lines = log.read_bytes()[begin:].splitlines()
    assert len(lines) == 500, "one line for each"
    for line in lines:
        assert len(line) <= 4096
        assert not any(byte < 0x20 or byte > 0x7E for byte in line)
        json.loads(line)


# --------------------------------------------------------------------------------------- memory of the receiver


def test_a_command_set_without_end_is_cut(node: NodeProcesses) -> None:
    peer = Peer.associated(node.port)
    sent = until_cut(peer, lambda: p_data((1, COMMAND, bytes(16000))), 64 * MIB)
    assert sent < 8 * MIB


def test_fragments_of_commands_between_those_of_an_object_do_not_make_it_endless(node: NodeProcesses) -> None:
    peer = Peer.associated(node.port)
    peer.send(p_data((1, COMMAND | LAST, store_command(UID))))
    sent = until_cut(peer, lambda: p_data((1, 0, bytes(120_000)), (1, COMMAND, b"")), 200 * MIB)
    assert sent <= 80 * MIB, "64 MiB is the longest object here"
    assert resident_mib(node) < MOST_MIB


def until_cut(peer: Peer, make: object, most: int) -> int:
    sent = 0
    try:
        while sent < most:
            one = make()  # type: ignore[operator]
            peer.send(one)
            sent += len(one)
    except OSError:
        pass
    finally:
        peer.close()
    return sent


def test_unfinished_objects_of_all_associations_do_not_fill_the_memory(
    request: pytest.FixtureRequest, node: NodeProcesses
) -> None:
    before = open_files(node)
    with ExitStack() as stack:
        watch = stack.enter_context(Watch.over(node))
        peers = [Peer.associated(node.port, f"127.0.0.{2 + number}") for number in range(24)]
        for one in peers:
            stack.callback(one.close)
            one.send(p_data((1, COMMAND | LAST, store_command(UID))))
        piece = p_data((1, 0, bytes(125_000)))
        for _ in range(120):  # 15 MB of each, 360 MB in all
            for one in peers:
                one.send(piece)
        wait_for(lambda: echo(node.port) == SUCCESS, "others are served")
        assert resident_mib(node) < MOST_MIB
        assert not [path for path in files_in(state(node)) if path.suffix != ".dcm"]
    what = "unfinished objects, 15 MB each, at once"
    tell(request, Provoked(what, len(peers), 0, "no answer", watch.longest_s, watch.peak_mib))
    # the pool keeps five connections to the database, with three files each, and the audit trail opened its own
    wait_for(lambda: open_files(node) <= before + 16, "what was kept is let go")


def open_files(node: NodeProcesses) -> int:
    return psutil.Process(node.processes["receive"].pid).num_fds()


def test_who_sends_on_without_waiting_for_answers_does_not_fill_the_memory(node: NodeProcesses) -> None:
    """Whole messages pile up only so far: then nothing more is read."""
    content = inserted(element(0x0043, 0x1000, b"OB", bytes(900_000)))[:-2]  # not whole, so none is kept
    peer = Peer.associated(node.port)
    one_message = b"".join(store_pdus(content, UID, 120_000))
    peer.connection.settimeout(120)
    for _ in range(200):  # 180 MB
        peer.send(one_message)
    assert resident_mib(node) < MOST_MIB
    assert [peer.status() for _ in range(200)] == [NOT_UNDERSTOOD] * 200
    peer.close()


def test_a_long_object_is_kept_byte_for_byte(tmp_path: Path) -> None:
    content = inserted(element(0x0043, 0x1000, b"OB", bytes(range(256)) * 40_000))  # 10 MB
    with NodeProcesses(tmp_path, settings(tmp_path / "state", tmp_path), roles=("receive",)) as node:
        assert store(node, content[:-2]) == NOT_UNDERSTOOD
        assert store(node, content) == SUCCESS
        (kept,) = files_in(state(node))
        assert kept.read_bytes().endswith(content)


# --------------------------------------------------------------------------------------------- cut transfers

HOW = ("FIN", "RST")


def stream() -> tuple[bytes, bytes]:
    """A request, and the object after it in P-DATA of 500 bytes."""
    return associate_rq((CT, EXPLICIT)), b"".join(store_pdus(encoded(ct_slice(1)), UID, 500))


def cut(node: NodeProcesses, at: int, how: str) -> Peer:
    """Send the stream up to a byte and end it, or only say nothing more."""
    request, rest = stream()
    peer = Peer.connect(node.port, f"127.0.0.{2 + at % 16}")
    peer.send(request[:at])
    if at > len(request):
        peer.receive()
        peer.send(rest[: at - len(request)])
    if how == "RST":
        peer.reset()
    elif how == "FIN":
        peer.connection.shutdown(socket.SHUT_WR)
        assert SUCCESS not in peer.statuses()
        peer.close()
    return peer


def cut_at(
    request: pytest.FixtureRequest, node: NodeProcesses, places: list[tuple[int, str]], silent: Sequence[int]
) -> None:
    """Cut at places, and fall silent at others, of which many are waited for together."""
    process = psutil.Process(node.processes["receive"].pid)
    wait_for(lambda: process.num_threads() < 8, "it is quiet before")
    open_before = files_open(process)
    for at, how in places:
        cut(node, at, how)
    for begin in range(0, len(silent), 24):
        for peer in [cut(node, at, "silence") for at in silent[begin : begin + 24]]:
            with closing(peer):
                peer.connection.settimeout(90)
                assert SUCCESS not in peer.statuses()
    wait_for(lambda: process.num_threads() < 8, "no thread is left", 60)
    wait_for(lambda: files_open(process) <= open_before + 1, "no connection and no file but the trail's is left", 60)
    tell(request, Provoked("transfers cut by FIN, RST or silence", len(places) + len(silent), 0, "no Success"))


def test_a_transfer_cut_at_some_bytes_leaves_nothing(request: pytest.FixtureRequest, node: NodeProcesses) -> None:
    asking, rest = stream()
    chance = random.Random(3)
    places = [(chance.randrange(len(asking) + len(rest)), HOW[number % 2]) for number in range(40)]
    silent = (6, len(asking) - 1, len(asking) + 3, len(asking) + 60, len(asking) + len(rest) - 1)
    cut_at(request, node, places, silent)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_transfer_cut_at_every_byte_leaves_nothing(request: pytest.FixtureRequest, node: NodeProcesses) -> None:
    asking, rest = stream()
    whole = len(asking) + len(rest)
    places = [(at, HOW[at % 2]) for at in range(whole)]
    # silence between two PDUs ends with the idle time: what is cut in time are the others
    begins = [len(asking)]
    while begins[-1] < whole:
        begins.append(begins[-1] + 6 + struct.unpack_from(">L", rest, begins[-1] - len(asking) + 2)[0])
    silent = [at for at in range(1, whole, 12) if at not in begins]
    cut_at(request, node, places, silent)


def test_values_of_several_messages_in_one_pdu_are_all_answered(node: NodeProcesses) -> None:
    """PS3.8 9.3.5 allows it; pynetdicom forgets what follows the first."""
    not_whole = encoded(ct_slice(1))[:-2]
    peer = Peer.associated(node.port)
    one = value(1, COMMAND | LAST, store_command(UID)) + value(1, LAST, not_whole)
    peer.send(struct.pack(">BBL", 4, 0, 2 * len(one)) + one * 2)
    assert [peer.status(), peer.status()] == [NOT_UNDERSTOOD] * 2
    peer.close()
