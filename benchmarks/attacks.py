"""What peers that misbehave below DICOM do to the others: the node beside pynetdicom, dcmtk's storescp and Orthanc.

While some addresses hold a receiver up, another sends it a C-ECHO twice a second.
"""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification

from benchmarks import hostile_objects
from benchmarks.processes import MemoryWatch, free_port, running, wait_for_port
from benchmarks.raw_sender import association_request
from benchmarks.receive import ORTHANC, STORESCP, Receiving, run_node, run_orthanc, run_storescp
from benchmarks.tables import MISSED, at_most, print_table
from benchmarks.tls_receivers import make_certificates, tls_receivers

CONNECTIONS = 64
SECONDS = 12.0
TARGET_ECHO_S = 1.0
TARGET_GONE_S = 10.0
TARGET_REFUSED_S = 1.0
MOST, MOST_OF_ONE = 32, 24
"""Associations that the node serves by default, in all and of one address."""
REFUSALS = 10
TARGET_MIB = 256.0
_ECHO_EVERY_S = 0.5
_ECHO_TIMEOUT_S = 4.0
_BYSTANDER = "127.0.0.200"
_ACCEPTED = b"\x02"
_REFUSED_FOR_NOW = struct.pack(">BBLBBBB", 0x03, 0, 4, 0, 2, 3, 2)
_PLAIN = """\
import sys
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification
def keep(event):
    event.dataset.PixelData  # as a handler does that looks at what it keeps
    return 0x0000
entity = AE("ICH_NODE")
for uid in (CTImageStorage, Verification):
    entity.add_supported_context(uid)
entity.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=[(evt.EVT_C_STORE, keep)])
"""

Attack = Callable[[socket.socket], Iterator[bytes]]
"""Gives what an attacker sends, one piece a second; it may read from the connection too."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attack did."""

    echoes: int
    failed: int
    refused: int
    """Of as many associations to store images."""
    longest_s: float
    gone_s: float | None
    """Until the receiver had closed all connections of the attacker; None: it had not."""
    peak_mib: float


def measure() -> int:
    """Attack every receiver in every way and print the tables: the node from 1 and 16 addresses, the others from one.

    It takes twelve minutes.

    Returns:
        The number of targets that were missed.
    """
    receivers = {"ich-node": run_node, "pynetdicom": _plain}
    receivers |= {"storescp --fork": run_storescp} if Path(STORESCP).exists() else {}
    receivers |= {"Orthanc": run_orthanc} if Path(ORTHANC).exists() else {}
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name:
        certificates = make_certificates(Path(name))
        for what, attack in ATTACKS.items():
            rows += _rows(what, attack, receivers, Path(name) / "run")
        for what, attack in TLS_ATTACKS.items():
            rows += _rows(what, attack, tls_receivers(certificates), Path(name) / "run", certificates.for_callers())
    missed = print_table(
        f"{CONNECTIONS} connections that misbehave, for {SECONDS:g} s; another address sends C-ECHO and images",
        ("Attack", "From", "Receiver", "Echoes", "Failed", "Images refused", "Longest", "Target", "Gone", "Target",
         "Peak MiB", "Target"),
        rows,
    )  # fmt: skip
    return missed + _measure_refusals() + hostile_objects.measure(receivers)


def _measure_refusals() -> int:
    """Ask for one association more than the node serves, in all and from one address."""
    rows: list[tuple[object, ...]] = []
    for of_each in (MOST // 4, MOST_OF_ONE):
        with (
            tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name,
            contextmanager(run_node)(Path(name)) as receiving,
            ExitStack() as stack,
        ):
            sources = [
                f"127.0.0.{2 + number // of_each}" for number in range(MOST if of_each < MOST_OF_ONE else of_each)
            ]
            served = [_ask(receiving.port, source, stack)[0] for source in sources].count(_ACCEPTED)
            answers = [_ask(receiving.port, sources[0], stack) for _ in range(REFUSALS)]
        refused = sum(answer == _REFUSED_FOR_NOW for answer, _ in answers)
        whole = f"{refused} of {REFUSALS}" + ("" if refused == REFUSALS else f" {MISSED}")
        served_of = f"{served} of {len(sources)}" + ("" if served == len(sources) else f" {MISSED}")
        longest_s = max(seconds for _, seconds in answers)
        from_ = len(set(sources))
        rows.append((from_, served_of, whole, f"{longest_s:.2f} s", at_most(longest_s, TARGET_REFUSED_S, "s")))
    head = ("From", "Served", "Refused as transient", "Longest", "Target")
    return print_table("One association more than the node serves, in all and from one address", head, rows)


def _ask(port: int, source: str, stack: ExitStack) -> tuple[bytes, float]:
    """Ask for an association and keep it; give the head of the answer, and the seconds that it took."""
    began = time.monotonic()
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), _ECHO_TIMEOUT_S, (source, 0)))
    connection.sendall(_request())
    answer = connection.recv(4096)
    return (answer[:10] if answer[:1] == b"\x03" else answer[:1]), time.monotonic() - began


def _rows(
    what: str,
    attack: Attack,
    receivers: Mapping[str, Callable[[Path], Iterator[Receiving]]],
    folder: Path,
    tls: ssl.SSLContext | None = None,
) -> Iterator[tuple[object, ...]]:
    for receiver, start in receivers.items():
        for addresses in (1, 16) if receiver.startswith("ich-node") else (1,):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            with contextmanager(start)(folder) as receiving:
                yield _row(what, addresses, receiver, _attacked(receiving, attack, addresses, tls))


def _row(what: str, addresses: int, receiver: str, one: Outcome) -> tuple[object, ...]:
    ours = receiver == "ich-node"
    gone = "no" if one.gone_s is None else f"{one.gone_s:.1f} s"
    longest = at_most(one.longest_s if not one.failed else float("inf"), TARGET_ECHO_S, "s")
    in_time = at_most(one.gone_s or 0.0, TARGET_GONE_S, "s") if one.gone_s is not None else MISSED
    mib = at_most(one.peak_mib, TARGET_MIB, "")
    targets = (longest, in_time, mib) if ours else ("", "", "")
    return (
        what, addresses, receiver, one.echoes, one.failed, one.refused, f"{one.longest_s:.2f} s", targets[0],
        gone, targets[1], f"{one.peak_mib:.0f}", targets[2],
    )  # fmt: skip


def _attacked(receiving: Receiving, attack: Attack, addresses: int, tls: ssl.SSLContext | None) -> Outcome:
    over = time.monotonic() + SECONDS
    closed_after: list[float | None] = []
    attackers = [
        threading.Thread(target=_hold, args=(receiving.port, source, attack, over, closed_after))
        for source in (f"127.0.0.{2 + number % addresses}" for number in range(CONNECTIONS))
    ]
    for one in attackers:
        one.start()
    times: list[float | None] = []
    storing: list[float | None] = []
    with MemoryWatch(receiving.pid) as watch:
        while time.monotonic() < over:
            times.append(_echo_s(receiving.port, tls, Verification))
            storing.append(_echo_s(receiving.port, tls, Verification, CTImageStorage))
            time.sleep(_ECHO_EVERY_S)
    for one in attackers:
        one.join()
    answered = [one for one in times if one is not None]
    gone = None if None in closed_after else max((one for one in closed_after if one is not None), default=0.0)
    failed = len(times) - len(answered)
    longest = max(answered, default=_ECHO_TIMEOUT_S)
    refused = storing.count(None)
    return Outcome(len(times), failed, refused, longest, gone, watch.peak_mib())


def _echo_s(port: int, tls: ssl.SSLContext | None, *classes: str) -> float | None:
    """Seconds that a C-ECHO took, association and all; None where it failed.

    ``classes``: Verification alone, or with a storage class, as who sends images asks.
    """
    entity = AE("BYSTANDER")
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _ECHO_TIMEOUT_S
    for uid in classes:
        entity.add_requested_context(uid)
    began = time.monotonic()
    by_tls = None if tls is None else (tls, "127.0.0.1")
    place = ("127.0.0.1", port)
    association = entity.associate(*place, ae_title="ICH_NODE", bind_address=(_BYSTANDER, 0), tls_args=by_tls)
    if not association.is_established:
        return None
    status = association.send_c_echo().get("Status")
    association.release()
    return time.monotonic() - began if status == 0x0000 else None


def _hold(port: int, address: str, attack: Attack, over: float, closed_after: list[float | None]) -> None:
    """Attack with one connection; note after how long the receiver closed it."""
    began = time.monotonic()
    closed = False
    try:
        with socket.create_connection(("127.0.0.1", port), 5, (address, 0)) as connection:
            pieces = attack(connection)
            while time.monotonic() < over and not closed:
                piece = next(pieces, b"")
                connection.settimeout(max(over - time.monotonic(), 0.1))
                connection.sendall(piece)
                closed = _is_closed(connection, 1.0)
    except TimeoutError:  # it only stopped reading
        closed = False
    except OSError:
        closed = True
    closed_after.append(time.monotonic() - began if closed else None)


def _is_closed(connection: socket.socket, wait_s: float) -> bool:
    if not select.select([connection], [], [], wait_s)[0]:
        return False
    with suppress(OSError):
        return connection.recv(4096) == b""
    return True


# ----------------------------------------------------------------------------------------- attacks


def _request() -> bytes:
    return association_request(CTImageStorage)


def _silent(_: socket.socket) -> Iterator[bytes]:
    yield b""


def _half_a_request(_: socket.socket) -> Iterator[bytes]:
    yield _request()[:100]


def _a_byte_a_second(_: socket.socket) -> Iterator[bytes]:
    for byte in _request():
        yield bytes([byte])


def _half_a_message(connection: socket.socket) -> Iterator[bytes]:
    connection.settimeout(5)
    connection.sendall(_request())
    connection.recv(4096)
    yield struct.pack(">BBL", 0x04, 0, 16000) + bytes(1000)


def _a_byte_of_a_message_a_second(connection: socket.socket) -> Iterator[bytes]:
    yield from _half_a_message(connection)
    while True:
        yield b"\0"


def _no_request(_: socket.socket) -> Iterator[bytes]:
    yield struct.pack(">BBL", 0x01, 0, 200) + bytes(200)


def _far_too_long(_: socket.socket) -> Iterator[bytes]:
    yield struct.pack(">BBL", 0x01, 0, 400 * 1024 * 1024)
    while True:
        yield bytes(1024 * 1024)


def _half_a_hello(_: socket.socket) -> Iterator[bytes]:
    yield b"\x16\x03\x01\x02\x00\x01"


def _a_byte_of_tls_a_second(_: socket.socket) -> Iterator[bytes]:
    for byte in b"\x16\x03\x01\x02\x00\x01" + bytes(500):
        yield bytes([byte])


ATTACKS: dict[str, Attack] = {
    "silent": _silent,
    "half a request": _half_a_request,
    "a byte a second": _a_byte_a_second,
    "half a message": _half_a_message,
    "a byte of a message a second": _a_byte_of_a_message_a_second,
    "a request that is none": _no_request,
    "400 MiB announced": _far_too_long,
}
TLS_ATTACKS: dict[str, Attack] = {
    "TLS: silent": _silent,
    "TLS: half a ClientHello": _half_a_hello,
    "TLS: a byte a second": _a_byte_of_tls_a_second,
}
"""On a port that takes TLS alone; the bystander uses it too."""


def _plain(folder: Path) -> Iterator[Receiving]:
    """Run a receiver as pynetdicom makes it, with its own limits."""
    port = free_port()
    with running([sys.executable, "-c", _PLAIN, str(port)], folder / "pynetdicom.log") as pid:
        wait_for_port(port)
        yield Receiving(pid, port, folder)
