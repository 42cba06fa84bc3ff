"""Send PDUs and messages that are almost right to a real receiver process, and look what it does to the others.

No case holds an object that is whole, so that one answer of Success is a failure by itself.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
from pydicom.uid import ExplicitVRLittleEndian

from tests.corruption import corrupted
from tests.ct_series import ct_slice, encoded
from tests.fuzz.wire import (
    ABORT,
    COMMAND,
    CT,
    IMPLICIT,
    LAST,
    RELEASE_RQ,
    VERIFICATION,
    Peer,
    associate_rq,
    command_set,
    echo,
    echo_command,
    p_data,
    pdu,
    store_command,
    store_pdus,
    us,
    value,
)
from tests.integration.receiving import files_in
from tests.running import NodeProcesses

UID: Final = str(ct_slice(1).SOPInstanceUID).encode()
EXPLICIT: Final = str(ExplicitVRLittleEndian)
HANG_S: Final = 20.0
"""After our end of a connection was closed; a PDU has 8 s."""
MIB: Final = 1024 * 1024
UNEXPECTED: Final = "ended by an error nobody expected"


@dataclass
class Outcome:
    """What was seen."""

    cases: Counter[str] = field(default_factory=Counter)
    hangs: list[str] = field(default_factory=list)
    successes: list[str] = field(default_factory=list)
    crashes: int = 0
    unexpected: int = 0
    left_behind: int = 0
    longest_echo_s: float = 0.0
    failed_echoes: int = 0
    echoes: int = 0
    peak_mib: float = 0.0
    threads: tuple[int, int] = (0, 0)
    files: tuple[int, int] = (0, 0)
    descriptors: tuple[int, int] = (0, 0)
    """With those of the database's pool."""

    @property
    def is_good(self) -> bool:
        bad = self.hangs or self.successes or self.crashes or self.unexpected or self.left_behind or self.failed_echoes
        grown = self.files[1] > self.files[0] or self.threads[1] > self.threads[0]
        return not bad and self.peak_mib <= 256 and not grown and self._keeps_few()

    def _keeps_few(self) -> bool:
        """The pool may have grown, by a few connections with three files each."""
        return self.descriptors[1] <= self.descriptors[0] + 24


Case = Callable[[random.Random], tuple[bool, list[bytes]]]
"""Gives whether an association comes first, and what is sent."""


def fuzz(node: NodeProcesses, seed: int, seconds: float = float("inf"), cases: int = 10**9) -> Outcome:
    """Send cases one after the other until the time or the number is over; another address watches."""
    outcome = Outcome()
    process = psutil.Process(node.processes["receive"].pid)
    over, stop = time.monotonic() + seconds, threading.Event()
    threads, files, everything = process.num_threads(), files_open(process), process.num_fds()
    watcher = threading.Thread(target=_watch, args=(node, process, outcome, stop), daemon=True)
    watcher.start()
    chance = random.Random(seed)
    names = list(CASES)
    while time.monotonic() < over and sum(outcome.cases.values()) < cases and process.is_running():
        number = sum(outcome.cases.values())
        name = names[number % len(names)]
        outcome.cases[name] += 1
        _send(node.port, f"127.0.0.{2 + number % 16}", f"{name} {seed}/{number}", CASES[name](chance), outcome)
    stop.set()
    watcher.join()
    _settle(process, threads, files)
    outcome.crashes += node.processes["receive"].poll() is not None
    outcome.unexpected = node.log("receive").read_text(errors="replace").count(UNEXPECTED)
    outcome.left_behind = len(files_in(node.folder / "state"))
    outcome.descriptors = (everything, process.num_fds())
    outcome.threads, outcome.files = (threads, process.num_threads()), (files, files_open(process))
    return outcome


def files_open(process: psutil.Process) -> int:
    """Count the descriptors, but for the database's: its pool keeps a few connections."""
    count = 0
    for one in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(OSError):
            count += "ich-node.sqlite" not in str(one.readlink())
    return count


def _settle(process: psutil.Process, threads: int, files: int) -> None:
    for _ in range(300):
        if process.num_threads() <= threads and files_open(process) <= files:
            return
        time.sleep(0.1)


def _watch(node: NodeProcesses, process: psutil.Process, outcome: Outcome, stop: threading.Event) -> None:
    while not stop.wait(0.25):
        began = time.monotonic()
        answered = echo(node.port, "127.0.0.200", 10.0) == 0
        outcome.echoes += 1
        outcome.failed_echoes += not answered
        outcome.longest_echo_s = max(outcome.longest_echo_s, time.monotonic() - began)
        with suppress(psutil.Error):
            outcome.peak_mib = max(outcome.peak_mib, process.memory_info().rss / MIB)


def _send(port: int, address: str, name: str, case: tuple[bool, list[bytes]], outcome: Outcome) -> None:
    associated, pieces = case
    peer = None
    try:
        peer = _associated(port, address) if associated else Peer.connect(port, address, HANG_S)
        peer.connection.settimeout(HANG_S)
        with suppress(OSError):  # it may be closed by then
            for one in pieces:
                peer.send(one)
            peer.connection.shutdown(socket.SHUT_WR)
        for kind, status in _answers(peer):
            if kind == _C_STORE_RSP and status == 0:
                outcome.successes.append(name)
    except (TimeoutError, AssertionError):
        outcome.hangs.append(name)
    except OSError:
        return
    finally:
        if peer is not None:
            peer.close()


def _associated(port: int, address: str) -> Peer:
    return Peer.associated(port, address, (CT, EXPLICIT), (CT, IMPLICIT), (VERIFICATION, IMPLICIT))


_C_STORE_RSP: Final = 0x8001


def _answers(peer: Peer) -> Iterator[tuple[int, int]]:
    """Command field and status of each response, until the receiver has closed the connection."""
    while True:
        kind, content = peer.receive()
        if not kind:
            return
        field_at, status_at = (content.find(struct.pack("<HHL", 0, number, 2)) for number in (0x0100, 0x0900))
        if kind == 4 and field_at >= 0 and status_at >= 0:
            yield (
                struct.unpack_from("<H", content, field_at + 8)[0],
                struct.unpack_from("<H", content, status_at + 8)[0],
            )


# --------------------------------------------------------------------------------------------------- cases


def _flipped(content: bytes, chance: random.Random, most: int = 8) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randrange(1, most)):
        changed[chance.randrange(len(changed))] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
    return bytes(changed)


def _not_whole() -> bytes:
    return encoded(ct_slice(1))[:-2]


def _request_flipped(chance: random.Random) -> tuple[bool, list[bytes]]:
    whole = associate_rq((CT, EXPLICIT), (VERIFICATION, IMPLICIT))
    return False, [whole[:6] + _flipped(whole[6:], chance)]


def _request_cut(chance: random.Random) -> tuple[bool, list[bytes]]:
    whole = associate_rq((CT, EXPLICIT), (VERIFICATION, IMPLICIT))
    return False, [whole[: chance.randrange(len(whole))]]


def _request_of_items(chance: random.Random) -> tuple[bool, list[bytes]]:
    contexts = [(CT, EXPLICIT)] * chance.choice([0, 1, 127, 128, 129, 500])
    return False, [
        associate_rq(*contexts, calling=chance.randbytes(16), called=chance.choice([b"ICH_NODE", b"\n\x1b[2J"]))
    ]


def _no_dicom(chance: random.Random) -> tuple[bool, list[bytes]]:
    known = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x0bMSH|^~\\&|",
        b"SSH-2.0-x\r\n",
    ]
    return False, [chance.choice([*known, chance.randbytes(300)])]


def _pdu_of_a_kind(chance: random.Random) -> tuple[bool, list[bytes]]:
    return True, [
        pdu(chance.randrange(256), chance.randbytes(chance.randrange(80))) for _ in range(chance.randrange(1, 4))
    ]


def _length_that_lies(chance: random.Random) -> tuple[bool, list[bytes]]:
    length = chance.choice([0, 1, 2, 5, 2**31, 2**32 - 1, 1024 * 1024 + 1025, 200_000])
    return True, [pdu(4, value(1, COMMAND | LAST, store_command(UID)), length), chance.randbytes(50)]


def _value_that_lies(chance: random.Random) -> tuple[bool, list[bytes]]:
    length = chance.choice([0, 1, 2, 2**32 - 1, 2**31, chance.randrange(400)])
    fragment = store_command(UID)
    return True, [pdu(4, struct.pack(">LBB", length, chance.randrange(256), chance.randrange(8)) + fragment)]


def _command_flipped(chance: random.Random) -> tuple[bool, list[bytes]]:
    return True, [p_data((1, COMMAND | LAST, _flipped(store_command(UID), chance))), p_data((1, LAST, _not_whole()))]


def _command_of_elements(chance: random.Random) -> tuple[bool, list[bytes]]:
    numbers = [0x0002, 0x0003, 0x0100, 0x0110, 0x0120, 0x0600, 0x0700, 0x0800, 0x0900, 0x1000, 0x1002, 0x1030]
    contents = [
        us(chance.choice([1, 2, 0x30, 0x100, 0x0FFF, 0x8001, 0x0101, 0xFFFF])),
        UID,
        CT.encode(),
        b"",
        b"\xff" * 70,
    ]
    elements = [(chance.choice(numbers), chance.choice(contents)) for _ in range(chance.randrange(10))]
    return True, [
        p_data((chance.choice([1, 3, 5, 7]), COMMAND | LAST, command_set(*elements))),
        p_data((1, LAST, _not_whole())),
    ]


def _order_wrong(chance: random.Random) -> tuple[bool, list[bytes]]:
    command, *data = store_pdus(_not_whole(), UID, 300)
    pieces = [command, *data, pdu(RELEASE_RQ, bytes(4)), pdu(ABORT, bytes(4)), associate_rq((CT, EXPLICIT)), echo_pdu()]
    chance.shuffle(pieces)
    return True, pieces


def echo_pdu() -> bytes:
    return p_data((5, COMMAND | LAST, echo_command()))


def _fragments_mixed(chance: random.Random) -> tuple[bool, list[bytes]]:
    command, data = store_command(UID), _not_whole()
    values = []
    while command or data:
        length = chance.randrange(1, 200)
        context = chance.choice([1, 1, 1, 3, 5])
        if command and (chance.random() < 0.6 or not data):
            values.append((context, COMMAND | (LAST if len(command) <= length else 0), command[:length]))
            command = command[length:]
        else:
            values.append((context, LAST if len(data) <= length else 0, data[:length]))
            data = data[length:]
    return True, [p_data(*values)] if chance.random() < 0.5 else [p_data(one) for one in values]


def _many_at_once(chance: random.Random) -> tuple[bool, list[bytes]]:
    one = b"".join(store_pdus(_not_whole(), UID))
    return True, [one * chance.randrange(2, 12), echo_pdu() * chance.randrange(3)]


def _object_corrupted(chance: random.Random) -> tuple[bool, list[bytes]]:
    for one in corrupted(chance.randrange(2**31), 30):
        if one.syntax in (EXPLICIT, IMPLICIT) and chance.random() < 0.2:
            return True, store_pdus(
                one.content, UID, chance.choice([100, 400, 16000]), 1 if one.syntax == EXPLICIT else 3
            )
    return True, store_pdus(_not_whole(), UID)


def _object_flipped(chance: random.Random) -> tuple[bool, list[bytes]]:
    """Its last bytes are missing, too: what is flipped may be a pixel."""
    return True, store_pdus(_flipped(_not_whole(), chance, 20), UID, 500)


def _stream_cut(chance: random.Random) -> tuple[bool, list[bytes]]:
    whole = b"".join(store_pdus(_not_whole(), UID, 300))
    return True, [whole[: chance.randrange(len(whole))]]


CASES: Final[dict[str, Case]] = {
    "request flipped": _request_flipped,
    "request cut": _request_cut,
    "request of many items": _request_of_items,
    "no DICOM": _no_dicom,
    "PDU of any kind": _pdu_of_a_kind,
    "PDU length that lies": _length_that_lies,
    "value length that lies": _value_that_lies,
    "command set flipped": _command_flipped,
    "command set of any elements": _command_of_elements,
    "PDUs in a wrong order": _order_wrong,
    "fragments mixed": _fragments_mixed,
    "many messages at once": _many_at_once,
    "object corrupted": _object_corrupted,
    "object flipped": _object_flipped,
    "stream cut": _stream_cut,
}


def node_to_fuzz(folder: Path) -> NodeProcesses:
    """A receiver of its own process that takes from everybody."""
    from tests.running import settings

    receiver = {"allow_any": True, "reserve_mib": 0, "maximum_associations": 32}
    return NodeProcesses(folder, settings(folder / "state", folder, receiver=receiver), roles=("receive",))
