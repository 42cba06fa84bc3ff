"""Places and loads that processes share."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from ich_node.receive import admission, waiting
from ich_node.receive.admission import Admission
from ich_node.receive.places import Loads, Places
from ich_node.receive.waiting import Alarm, Messages, wait_instead_of_looking


@contextmanager
def another_process(does: Callable[[], object]) -> Iterator[int]:
    """Do something in a fork of this process, which then waits to be killed; gives its number once it is done."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            does()
            os.write(done, b".")
            signal.pause()
        finally:
            os._exit(1)
    os.close(done)
    try:
        assert os.read(ready, 1) == b"."
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_place_is_taken_once_and_those_of_a_killed_process_are_free_again() -> None:
    places = Places(3)
    first = places.take()
    assert first is not None
    with another_process(lambda: (places.take(), places.take())):
        assert places.take() is None
        places.give_back(first)
        assert places.take() == first
    assert {places.take(), places.take()} == {0, 1, 2} - {first}
    assert places.take() is None


def test_an_address_has_no_more_places_than_it_may_in_all_processes_that_live() -> None:
    places = Places(4)
    places.limit_each_address(3)
    with another_process(lambda: [places.take("one") for _ in range(2)]):
        assert places.take("one") is not None
        assert places.take("one") is None
        assert places.has_all_it_may("one")
        last = places.take("another")
        assert last is not None
        places.give_back(last)
        assert places.take("one") is None, "what it was refused is no place of its"
    assert not places.has_all_it_may("one"), "who was killed has none"
    assert None not in [places.take("one") for _ in range(2)]
    assert places.take("one") is None
    assert places.take("another") is not None


def test_who_stalls_in_another_process_is_known_and_asked_to_leave() -> None:
    places = Places(2)

    def stall() -> None:
        places.note_overdue(places.take() or 0, 100.0)

    with another_process(stall):
        seconds, place = places.longest_overdue_elsewhere()
        assert seconds >= 100.0
        places.ask_to_leave(place)
        assert places.is_asked_for(place)
        mine = places.take()
        assert mine is not None
        assert not places.is_asked_for(mine), "nobody asked this one"


class Stalled:
    def __init__(self) -> None:
        self.was_cut = False

    def is_alive(self) -> bool:
        return not self.was_cut

    def stalled_s(self) -> float:
        return admission.STALLED_S + 1

    def idle_s(self) -> float:
        return 0.0

    def cut(self) -> None:
        self.was_cut = True


def test_an_admission_cuts_who_stalls_only_when_another_process_asks_for_his_place() -> None:
    places, stalled = Places(1), Stalled()
    counting = Admission(1, places=places)
    assert counting.admit(lambda: stalled, echo_alone=False, known=True)
    counting.forget_ended()
    assert not stalled.was_cut
    places.ask_to_leave(0)
    counting.forget_ended()
    assert stalled.was_cut
    assert places.take() == 0


def test_an_address_that_has_all_it_may_gets_only_its_own_cut() -> None:
    counting = Admission(3)
    counting.limit_each_address(1)
    own, of_another = Stalled(), Stalled()
    assert counting.admit(lambda: of_another, echo_alone=False, known=True, address="another")
    assert counting.admit(lambda: own, echo_alone=False, known=True, address="one")
    assert not counting.admit(Stalled, echo_alone=False, known=False, address="one"), "two of three are in use"
    assert counting.admit(Stalled, echo_alone=True, known=False, address="one"), "an echo has a place of its own"
    assert not own.was_cut
    assert counting.admit(Stalled, echo_alone=False, known=True, address="one")
    assert (own.was_cut, of_another.was_cut) == (True, False)


def test_who_gets_no_thread_keeps_no_place() -> None:
    def no_thread() -> Stalled:
        raise RuntimeError("can't start new thread")

    counting = Admission(1)
    for _ in range(2):
        try:
            counting.admit(no_thread, echo_alone=False, known=True)
        except RuntimeError:
            continue
    assert counting.admit(Stalled, echo_alone=False, known=True)


def test_the_process_with_the_fewest_connections_goes_first() -> None:
    loads = Loads(2)
    loads.note(0, 2)
    loads.note(1, 1)
    assert loads.another_has_fewer(0)
    assert not loads.another_has_fewer(1)
    loads.leave(1)
    assert not loads.another_has_fewer(0), "who is gone is not waited for"


@pytest.mark.timeout(20)
def test_a_message_and_what_is_to_be_sent_wake_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_S", 30.0)
    association = Association(AE("ANY"), "acceptor")
    alarm = wait_instead_of_looking(association, Messages())
    there, here = os.pipe()
    try:
        threading.Timer(0.01, association.dul.to_provider_queue.put, ("primitive",)).start()
        assert not alarm.wait_for(there), "it rings"
        assert not association.dul.to_provider_queue.empty()
        os.write(here, b".")
        assert alarm.wait_for(there)
        association.dul.to_user_queue.put("release")
        messages = association.dimse.msg_queue
        assert isinstance(messages, Messages)
        assert messages._woken, "the thread that waits for messages looks for a release, too"
        with pytest.raises(queue.Empty):
            messages.get(block=False)
    finally:
        alarm.close()
        alarm.close()
        alarm.ring()
        os.close(there)
        os.close(here)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_an_alarm_gives_its_descriptor_back() -> None:
    before = descriptors()
    alarms = [Alarm() for _ in range(5)]
    assert descriptors() == before + 5
    for alarm in alarms:
        alarm.close()
    assert descriptors() == before
