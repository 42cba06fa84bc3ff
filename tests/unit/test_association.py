"""Associations of ours with a real peer."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.timer import Timer

from ich_node.association import Patience, associate, measure_by_no_clock
from ich_node.errors import DestinationRefuses
from ich_node.pacs import SmallPacs
from ich_node.phantom import PhantomSettings, write_series
from ich_node.records import Destination
from ich_node.storage_commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from tests.commitment_peers import Answer, CommitmentPeer
from tests.outbox import peer
from tests.running import wait_for

SMALL = PhantomSettings(slices=20, rows=32)


@contextmanager
def somebody_takes_what_comes(association: Association) -> Iterator[None]:
    """Do what pynetdicom's reactor does when it has not paused: look for a message without waiting."""
    stop = threading.Event()

    def take() -> None:
        while not stop.is_set():
            association.dimse.get_msg(block=False)

    thief = threading.Thread(target=take, daemon=True)
    thief.start()
    try:
        yield
    finally:
        stop.set()
        thief.join()


def answers(association: Association, files: list[Path]) -> list[bool]:
    """Send files while somebody else takes what comes; tell which were answered."""
    sent = []
    with somebody_takes_what_comes(association):
        for path in files:
            if not association.is_established:
                break
            sent.append("Status" in association.send_c_store(path))
    return sent


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "sent", replace(SMALL, uid_seed="association test"))


def test_an_answer_reaches_who_asked_though_the_reactor_looks_for_messages(tmp_path: Path, files: list[Path]) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs:
        place = Destination("pacs", "PACS", "127.0.0.1", pacs.port)
        with associate(place, "TEST", [CTImageStorage], Patience()) as association:
            assert answers(association, files) == [True] * len(files)


def test_without_that_answers_are_lost(tmp_path: Path, files: list[Path]) -> None:
    """Else the guard guards against nothing, and can go."""
    with SmallPacs(tmp_path / "pacs") as pacs:
        entity = AE(ae_title="TEST")
        entity.dimse_timeout = 0.5
        entity.add_requested_context(CTImageStorage)
        association = entity.associate("127.0.0.1", pacs.port, ae_title="PACS")
        assert association.is_established
        lost = not all(answers(association, files))
        association.abort()
    assert lost


def test_an_answer_reaches_who_asked_where_the_peer_may_ask_too() -> None:
    with CommitmentPeer().running() as pacs:
        place = Destination("pacs", "PACS", "127.0.0.1", pacs.port)
        heard: list[evt.Event] = []
        handlers = [(evt.EVT_N_EVENT_REPORT, lambda event: (heard.append(event), (0x0000, None))[1])]
        with associate(place, "TEST", [STORAGE_COMMITMENT], Patience(), handlers) as association:
            asked = Answer("1.2.3", (("1.2", "1.2.4"),)).data_set()
            one = (asked, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
            with somebody_takes_what_comes(association):
                answered = [association.send_n_action(*one)[0].get("Status") for _ in range(20)]
            assert answered == [0x0000] * 20

            pacs.answers_at_once = lambda true: true
            association.send_n_action(*one)
            wait_for(lambda: pacs.statuses, "the peer has its answer", 30)
    assert (len(heard), pacs.statuses) == (1, [0x0000])


def abort(event: evt.Event) -> int:
    event.assoc.abort()
    return 0x0000


@pytest.mark.timeout(30)
def test_an_abort_is_noticed_long_before_the_time_out(files: list[Path]) -> None:
    with peer(abort, classes=(CTImageStorage,)) as port:
        place = Destination("pacs", "PACS", "127.0.0.1", port)
        with associate(place, "TEST", [CTImageStorage], Patience(response_s=60.0)) as association:
            assert "Status" not in association.send_c_store(files[0])


def test_the_toolkits_timers_do_not_run_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set forward by hours would end every open association."""
    measure_by_no_clock()
    timer = Timer(60.0)
    timer.start()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200.0)
    assert not timer.expired
    assert 0.0 < timer.remaining <= 60.0


def test_a_rejection_is_told_though_the_peer_closed_before_we_looked(tmp_path: Path) -> None:
    def look_late(_: Event) -> None:
        time.sleep(0.5)  # the connection is made, rejected and closed meanwhile

    with peer(lambda _: 0x0000, called_must_be="PACS") as port:
        place = Destination("pacs", "WRONG", "127.0.0.1", port)
        with (
            pytest.raises(DestinationRefuses, match="rejected: Called AE title not recognised"),
            associate(place, "TEST", [CTImageStorage], Patience(), [(evt.EVT_REQUESTED, look_late)]),
        ):
            pass
