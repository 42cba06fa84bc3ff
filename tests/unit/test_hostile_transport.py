"""What keeps one address from the log, and an idle association from a place that another needs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ich_node import repeats
from ich_node.receive import admission, incoming
from ich_node.repeats import MOST, OTHERS, Repeats
from tests.fuzz.wire import COMMAND, CT, LAST, Peer, p_data, store_command, value
from tests.running import leaks_a_socket, wait_for
from tests.unit.test_transport import MOST as PLACES
from tests.unit.test_transport import Admission, Pretended, receiving

EXPLICIT = "1.2.840.10008.1.2.1"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_event_of_an_address_is_told_once_a_minute_with_its_number() -> None:
    clock = Clock()
    counting = Repeats(60, clock)
    assert [counting.count("refused", "a") for _ in range(5)] == [1, 0, 0, 0, 0]
    assert counting.count("refused", "b") == 1
    assert counting.count("closed", "a") == 1
    assert counting.due() == []
    clock.now = 60
    assert counting.due() == [(("refused", "a"), 4)]
    assert counting.count("refused", "a") == 0, "it goes on"
    assert counting.count("refused", "b") == 1, "it had stopped"
    clock.now = 120
    assert counting.due() == [(("refused", "a"), 1)]
    clock.now = 180
    assert counting.due() == []
    assert counting.count("refused", "a") == 1


def test_where_nobody_asks_what_is_due_the_next_event_says_for_how_many_it_stands() -> None:
    counting = Repeats(60, clock := Clock())
    assert [counting.count("refused", "a") for _ in range(1000)] == [1] + [0] * 999
    clock.now = 60
    assert counting.count("refused", "a") == 1000
    assert counting.count("refused", "a") == 0
    assert counting.left() == [(("refused", "a"), 1)]
    assert counting.left() == []


def test_many_addresses_take_no_memory() -> None:
    counting = Repeats(60, clock := Clock())
    told = sum(counting.count("refused", str(number), "AE") for number in range(10 * MOST))
    assert told == MOST + 1
    clock.now = 60
    assert counting.due() == [(("refused", OTHERS, ""), 9 * MOST - 1)]


def test_refused_connections_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "ich_node"), receiving(tmp_path) as receiver:
        for _ in range(30):
            with_nothing = Peer.connect(receiver.port)
            with_nothing.send(b"GET / HTTP/1.1\r\n\r\n")
            with_nothing.receive()
            with_nothing.close()
        assert sum("asked for no association" in one.message for one in caplog.records) == 1
        monkeypatch.setattr(receiver._servers[0].repeats, "_every_s", 0.1)
        wait_for(lambda: any(one.message == "the same again" for one in caplog.records), "the others are counted", 30)
    (again,) = [one for one in caplog.records if one.message == "the same again"]
    assert again.fields == {"what": "connection closed", "address": "127.0.0.1", "times": 29}


def test_one_that_is_idle_makes_room_only_where_none_stalls_and_only_for_who_is_known() -> None:
    counting = Admission(2)
    idle, short = Pretended(idle_s=admission.IDLE_S + 1), Pretended(idle_s=admission.IDLE_S - 1)
    assert counting.admit(lambda: idle, echo_alone=False, known=True)
    assert counting.admit(lambda: short, echo_alone=False, known=True)
    assert not counting.admit(Pretended, echo_alone=False, known=False)
    assert not idle.was_cut
    assert counting.admit(Pretended, echo_alone=False, known=True)
    assert (idle.was_cut, short.was_cut) == (True, False)
    assert not counting.admit(Pretended, echo_alone=False, known=True)


@leaks_a_socket
def test_a_full_node_of_idle_associations_lets_a_known_peer_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "IDLE_S", 0.3)
    with receiving(tmp_path) as receiver:
        idle = [Peer.associated(receiver.port, "127.0.0.1", (CT, EXPLICIT)) for _ in range(PLACES)]
        time.sleep(0.5)
        another = Peer.associated(receiver.port, "127.0.0.2", (CT, EXPLICIT))
        for one in (*idle, another):
            one.close()


@leaks_a_socket
def test_who_waits_for_an_answer_is_not_idle(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        peer = Peer.associated(receiver.port, "127.0.0.1", (CT, EXPLICIT))
        wait_for(receiver._active_associations, "it is there", 20)
        (association,) = receiver._active_associations()
        reading = association.dul.socket
        wait_for(lambda: reading.idle_s() > 0.2, "it is idle", 20)
        reading._check_values(bytearray(value(1, COMMAND | LAST, store_command(b"1.2")) + value(1, LAST, b"x")))
        assert reading.idle_s() == 0.0, "its object is being stored"
        reading.send(p_data((1, 0, b"")))
        assert 0.0 <= reading.idle_s() < 5
        peer.close()


def test_the_limits_are_what_the_documents_say() -> None:
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    assert admission.IDLE_S == 10
    assert "sends nothing for 10 s though it is its turn" in text
    assert (incoming.LONGEST_COMMAND, repeats.MOST) == (64 * 1024, 1000)
