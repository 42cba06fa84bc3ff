"""A sample of what the DIMSE fuzzer sends, `make fuzz` sends more; and what it found, each by itself."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.ct_series import ct_slice, encoded
from tests.fuzz.dimse_fuzzer import CASES, HANG_S, UNEXPECTED, fuzz, node_to_fuzz
from tests.fuzz.wire import (
    ABORT,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    C_STORE_RQ,
    COMMAND,
    CT,
    LAST,
    RELEASE_RP,
    RELEASE_RQ,
    Peer,
    associate_rq,
    command_set,
    echo,
    item,
    p_data,
    pdu,
    ui,
    us,
)
from tests.integration.receiving import files_in
from tests.provoked import Provoked, tell
from tests.running import NodeProcesses, wait_for

OUT_OF_ORDER, UNREADABLE = "association cut: what it sent is out of order", "its message cannot be read"


def test_messages_that_are_almost_right_cost_the_others_nothing(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with node_to_fuzz(tmp_path) as node:
        outcome = fuzz(node, seed=1, cases=6 * len(CASES))
    assert set(outcome.cases) == set(CASES)
    assert outcome.is_good, outcome
    what, times = f"DIMSE that is almost right, {len(CASES)} kinds", sum(outcome.cases.values())
    tell(request, Provoked(what, times, 0, "no Success", outcome.longest_echo_s, outcome.peak_mib))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcesses]:
    """A receiver process; in the end it answers an echo, keeps no file and no thread, and met no error of its own."""
    with node_to_fuzz(tmp_path) as running:
        process = psutil.Process(running.processes["receive"].pid)
        threads = process.num_threads()
        assert echo(running.port) == 0
        yield running
        assert echo(running.port) == 0
        wait_for(lambda: process.num_threads() <= threads, "no thread is left", HANG_S)
        said = running.log("receive").read_text()
        assert UNEXPECTED not in said
        assert "Traceback" not in said
        assert files_in(tmp_path / "state") == []


def kinds_of_what_comes_back(node: NodeProcesses, *sent: bytes) -> list[int]:
    """Send over an association, in one piece; give the PDUs that come back until the receiver ends the connection."""
    peer = Peer.associated(node.port)
    peer.connection.settimeout(HANG_S)
    kinds = []
    try:
        peer.send(b"".join(sent))
        while kind := peer.receive()[0]:
            kinds.append(kind)
    except ConnectionError:
        pass
    finally:
        peer.close()
    return kinds


def test_a_request_in_the_middle_of_a_release_ends_the_association(node: NodeProcesses) -> None:
    """pynetdicom answers the release after it has aborted, which its state machine has no transition for."""
    for _ in range(20):
        kinds = kinds_of_what_comes_back(node, pdu(RELEASE_RQ, bytes(4)), associate_rq((CT, "1.2.840.10008.1.2")))
        assert set(kinds) <= {ABORT, RELEASE_RP}
    assert OUT_OF_ORDER in node.log("receive").read_text()


@pytest.mark.parametrize("abstract_syntax", [CT, "1.2.3.4"])
def test_a_presentation_context_without_a_transfer_syntax_is_no_request(
    node: NodeProcesses, abstract_syntax: str
) -> None:
    """pynetdicom rejects what it does not support in the first of them."""
    whole = associate_rq((abstract_syntax, "1.2.840.10008.1.2"))
    named = item(0x40, b"1.2.840.10008.1.2")
    at, context_at = whole.index(named), whole.index(b"\x20\x00", 74)
    without = whole[:at] + whole[at + len(named) :]
    length = struct.unpack_from(">H", whole, context_at + 2)[0] - len(named)
    without = without[: context_at + 2] + struct.pack(">H", length) + without[context_at + 4 :]
    peer = Peer.connect(node.port)
    peer.connection.settimeout(HANG_S)
    peer.send(pdu(ASSOCIATE_RQ, without[6:]))
    assert peer.receive()[0] in (0, ABORT, ASSOCIATE_RJ)
    peer.close()


def test_a_c_store_that_names_no_instance_aborts_the_association(node: NodeProcesses) -> None:
    """pynetdicom passes over it in silence, and the peer would wait."""
    command = command_set(
        (0x0002, ui(CT.encode())), (0x0100, us(C_STORE_RQ)), (0x0110, us(1)), (0x0700, us(2)), (0x0800, us(1))
    )
    sent = p_data((1, COMMAND | LAST, command)), p_data((1, LAST, encoded(ct_slice(1))[:10000]))
    assert kinds_of_what_comes_back(node, *sent) == [ABORT]
    assert UNREADABLE in node.log("receive").read_text()
