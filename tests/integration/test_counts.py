"""What the PACS says of the size of a series: whom the node asks, when, and what the answer changes."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ich_node.config import parse_config
from ich_node.database import Database, SeriesRow
from ich_node.deliverer import start_asking
from ich_node.job_queue.counts import note_asked, note_count, series_to_ask
from ich_node.pacs import SmallPacs, send_study
from ich_node.pacs_askers import CountAsker
from ich_node.phantom import PhantomSettings, write_series
from ich_node.records import Destination, SeriesState
from tests.running import free_port, leaks_a_socket, settings, wait_for
from tests.unit.queueing import open_queue, receive, received, rows


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Database]:
    database = open_queue(tmp_path)
    yield database
    database.close()


def the_series(queue: Database, series_id: int = 1) -> Any:
    (row,) = rows(queue, SeriesRow, id=series_id)
    return row


def set_series(queue: Database, series_id: int = 1, **values: Any) -> None:
    with queue.writing() as connection:
        connection.execute(update(SeriesRow).where(SeriesRow.id == series_id).values(values))


def asked(queue: Database, limit: int = 10) -> list[int]:
    return [one.series_id for one in series_to_ask(queue, limit)]


def quiet_series(queue: Database, slices: int = 12, **changes: Any) -> None:
    """A series of which the last slice came a second ago."""
    receive(queue, *(received(number, **changes) for number in range(1, slices + 1)))
    set_series(queue, last_received_at=time.time() - 1.0)


# --------------------------------------------------------------------------------------- whom, and when


def test_a_series_is_asked_about_when_no_slice_has_come_for_half_a_second(queue: Database) -> None:
    receive(queue, received(1))
    assert asked(queue) == []
    set_series(queue, last_received_at=time.time() - 1.0)
    (question,) = series_to_ask(queue, 10)
    assert (question.study_instance_uid, question.series_instance_uid) == ("1.2.1", "1.2.1.1")


def test_a_series_is_asked_about_once_until_another_slice_comes(queue: Database) -> None:
    quiet_series(queue)
    note_asked(queue, 1)
    assert asked(queue) == []
    set_series(queue, asked_at=time.time() - 60)
    assert asked(queue) == [1]


@pytest.mark.parametrize(("count", "again"), [(15, True), (12, False), (None, False)])
def test_a_series_that_lacked_slices_is_asked_about_again_after_two_seconds(
    queue: Database, count: int | None, again: bool
) -> None:
    quiet_series(queue)
    note_count(queue, 1, note_asked(queue, 1), count)
    assert asked(queue) == []
    now = time.time()
    set_series(queue, last_received_at=now - 10, asked_at=now - 3)
    assert asked(queue) == ([1] if again else [])


def test_only_open_ct_series_are_asked_about(queue: Database) -> None:
    for number, state in enumerate(SeriesState, start=1):
        receive(queue, received(1, series=number))
        set_series(queue, number, state=state)
    receive(queue, received(1, series=50, modality="MR"))
    with queue.writing() as connection:
        connection.execute(update(SeriesRow).values(last_received_at=time.time() - 1.0))
    states = {the_series(queue, series_id).state for series_id in asked(queue)}
    assert states == {SeriesState.RECEIVING, SeriesState.COMPLETE}
    assert {the_series(queue, series_id).modality for series_id in asked(queue)} == {"CT"}


def test_urgent_series_are_asked_about_first_and_no_more_than_the_limit(queue: Database) -> None:
    for number in (1, 2, 3):
        receive(queue, received(1, series=number))
        set_series(queue, number, last_received_at=time.time() - 1.0, priority=[0, 10, -5][number - 1])
    assert asked(queue) == [2, 1, 3]
    assert asked(queue, limit=2) == [2, 1]


# -------------------------------------------------------------------------------- what the answer changes


def test_a_series_that_is_all_here_is_due_now(queue: Database) -> None:
    quiet_series(queue)
    asked_at = note_asked(queue, 1)
    note_count(queue, 1, asked_at, 12)
    series = the_series(queue)
    assert (series.expected_instances, series.counted_at, series.asked_at) == (12, asked_at, asked_at)
    assert series.due_at <= time.time()


def test_a_series_that_is_due_already_stays_so(queue: Database) -> None:
    quiet_series(queue)
    set_series(queue, due_at=1000.0)
    note_count(queue, 1, note_asked(queue, 1), 12)
    assert the_series(queue).due_at == 1000.0


def test_an_answer_with_more_slices_is_kept_and_moves_no_time(queue: Database) -> None:
    quiet_series(queue)
    due_at = the_series(queue).due_at
    note_count(queue, 1, note_asked(queue, 1), 15)
    assert (the_series(queue).expected_instances, the_series(queue).due_at) == (15, due_at)


def test_a_slice_that_came_after_the_question_keeps_the_series_open(queue: Database) -> None:
    quiet_series(queue, slices=11)
    asked_at = note_asked(queue, 1)
    receive(queue, received(12))
    note_count(queue, 1, asked_at, 12)
    assert the_series(queue).expected_instances == 12
    assert the_series(queue).due_at > time.time()
    assert the_series(queue).state == SeriesState.RECEIVING


@pytest.mark.parametrize("count", [None, 0])
def test_no_count_changes_nothing(queue: Database, count: int | None) -> None:
    quiet_series(queue)
    set_series(queue, expected_instances=15, counted_at=5.0)
    before = the_series(queue)
    asked_at = note_asked(queue, 1)
    note_count(queue, 1, asked_at, count)
    after = the_series(queue)
    assert after.asked_at == asked_at
    assert (after.expected_instances, after.counted_at, after.due_at) == (15, 5.0, before.due_at)


# ---------------------------------------------------------------------------------------- over the network


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[SmallPacs]:
    with SmallPacs(tmp_path / "pacs") as running:
        yield running


def fill(pacs: SmallPacs, folder: Path, slices: int) -> None:
    """Give the PACS a series of the UIDs that ``received`` has."""
    settings_ = PhantomSettings(slices=slices, rows=32, study_instance_uid="1.2.1", series_instance_uid="1.2.1.1")
    assert send_study(write_series(folder, settings_), "127.0.0.1", pacs.port, "PACS") == slices


def asker(queue: Database, port: int, folder: Path) -> CountAsker:
    config = parse_config(settings(folder, Path("no-model")))
    return CountAsker(config, queue, Destination("query", "PACS", "127.0.0.1", port))


@pytest.mark.parametrize("counts_instances", [True, False])
def test_a_series_is_due_when_the_pacs_holds_no_more_than_came_here(
    queue: Database, pacs: SmallPacs, tmp_path: Path, counts_instances: bool
) -> None:
    pacs.counts_instances = counts_instances
    fill(pacs, tmp_path / "series", 12)
    quiet_series(queue)
    assert asker(queue, pacs.port, tmp_path).step()
    assert the_series(queue).expected_instances == 12
    assert the_series(queue).due_at <= time.time()


def test_a_pacs_with_more_slices_says_how_many_are_expected(queue: Database, pacs: SmallPacs, tmp_path: Path) -> None:
    fill(pacs, tmp_path / "series", 15)
    quiet_series(queue)
    assert asker(queue, pacs.port, tmp_path).step()
    assert the_series(queue).expected_instances == 15
    assert the_series(queue).due_at > time.time()


@leaks_a_socket
def test_a_pacs_that_is_gone_is_told_of_once_until_it_answers_again(
    queue: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ich_node.deliver")
    port = free_port()
    asking = asker(queue, port, tmp_path)

    def ask() -> list[str]:
        set_series(queue, asked_at=None)
        assert asking.step()
        return [record.message for record in caplog.records if record.name == "ich_node.deliver"]

    quiet_series(queue)
    due_at = the_series(queue).due_at
    ask()
    assert ask() == ["the PACS does not say how many images a series has"]
    assert (the_series(queue).expected_instances, the_series(queue).due_at) == (None, due_at)
    assert the_series(queue).asked_at is not None
    with SmallPacs(tmp_path / "pacs", port=port):
        ask()
        assert ask()[1:] == ["the PACS answers again how many images a series has"]
    assert len(ask()) == 3
    assert [one.levelno for one in caplog.records if "does not say" in one.message] == [logging.WARNING] * 2


@leaks_a_socket
def test_a_pacs_that_hangs_holds_up_nothing(queue: Database, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        query = {"ae_title": "PACS", "host": "127.0.0.1", "port": deaf.getsockname()[1]}
        config = parse_config(settings(tmp_path, Path("no-model"), query=query, delivery={"response_timeout_s": 2.0}))
        quiet_series(queue)
        stop = threading.Event()
        start_asking(config, queue, stop)
        wait_for(lambda: the_series(queue).asked_at is not None, "the PACS is being asked")
        receive(queue, received(13))
        stop.set()
        (thread,) = [one for one in threading.enumerate() if one.name == "ask"]
        assert thread.daemon, "the process does not wait for it"
        thread.join(60)
        assert not thread.is_alive()


def test_without_a_pacs_to_ask_nobody_asks(queue: Database, tmp_path: Path) -> None:
    start_asking(parse_config(settings(tmp_path, Path("no-model"))), queue, threading.Event())
    assert "ask" not in {thread.name for thread in threading.enumerate()}
