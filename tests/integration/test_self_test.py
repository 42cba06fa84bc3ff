"""The node's own test: the real way from C-STORE to report, and nothing is left of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from sqlalchemy import update

from ich_node.config import SelfTestSettings
from ich_node.database import AlertRow, DeliveryRow, FileToDeleteRow, SelfTestRow, SeriesRow, StudyRow
from ich_node.decode import DecoderPool
from ich_node.errors import DestinationUnavailable
from ich_node.job_queue import requeue, resend
from ich_node.job_queue.alert_entries import AlertPlan, enter_alerts
from ich_node.job_queue.cleaning import quiet_studies
from ich_node.job_queue.conditions import WatchRules, find_conditions
from ich_node.job_queue.counts import series_to_ask
from ich_node.job_queue.history_questions import studies_to_ask_about
from ich_node.job_queue.self_tests import ask_self_test, next_self_test
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.pipeline import Model
from ich_node.queries import list_series, measure_node, node_operation, what_waits, worklist, worklist_line
from ich_node.queries.happenings import Mark, happenings_since
from ich_node.queries.worklist import WorklistQuery
from ich_node.receive import Receiver
from ich_node.receive.scp import entrance
from ich_node.records.self_tests import SELF_TEST_AE_TITLE, SELF_TEST_PRIORITY, SelfTestToRun
from ich_node.routing import destinations_for
from ich_node.self_test import order, run
from ich_node.self_test.order import SendingOrder, sending_order
from ich_node.self_test.run import Sent, Stopped, send_phantom
from ich_node.self_test.sending import draw, send
from ich_node.viewable import viewable_series
from tests.integration.receiving import association
from tests.running import PartsOfANode, leaks_a_socket, parts_of_a_node, settings, wait_for
from tests.self_testing import a_tester, files_of, rows_of_every_table, run_test, working
from tests.unit.queueing import rows

FAR = 1e9
RULES = WatchRules(FAR, FAR, FAR, self_test_silence_s=FAR)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The phantom is drawn small: that takes a tenth of the time."""
    monkeypatch.setattr(order, "ROWS", 64)


@pytest.fixture
def node(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> Iterator[PartsOfANode]:
    with SmallPacs(tmp_path / "pacs") as pacs:
        values = settings(
            tmp_path / "state", Path("unused"), destinations=[("pacs", pacs.port)], self_test={"limit_s": 60.0}
        )
        with parts_of_a_node(values, tiny_model, decoder) as one:
            yield one


@pytest.fixture
def sent_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The phantom is drawn and sent in this process: another one takes seconds to start."""

    def send_at_once(what: SendingOrder, *_: object) -> Sent:
        return Sent(time.monotonic(), _sent(what))

    monkeypatch.setattr(run, "send_phantom", send_at_once)


def _sent(what: SendingOrder) -> str:
    try:
        return send(what, draw(what))
    except DestinationUnavailable as error:
        return f"the receiver does not take it: {error}"


@pytest.fixture
def reserved(node: PartsOfANode) -> SelfTestToRun:
    """A test that has begun, and of which nothing was sent yet."""
    ask_self_test(node.database, "tests")
    test = next_self_test(node.database)
    assert test is not None
    return test


def send_all(node: PartsOfANode, test: SelfTestToRun) -> str:
    """Send as the child process does; give what went wrong."""
    what = sending_order(node.config, test)
    return send(what, draw(what))


def of_a_patient(node: PartsOfANode, folder: Path) -> str:
    """Have a study of a patient analysed; give its UID."""
    uid = str(generate_uid())
    head = PhantomSettings(slices=12, rows=64, slice_spacing_mm=11.0, study_instance_uid=uid)
    send_study(write_series(folder / uid, head), "127.0.0.1", node.receiver.port, "ICH_NODE")
    node.settle()
    return uid


def last(node: PartsOfANode) -> Any:
    return rows(node.database, SelfTestRow)[-1]


# ------------------------------------------------------------------------------------------ a test


def test_a_test_passes_and_nothing_is_left_of_it(node: PartsOfANode, tmp_path: Path) -> None:
    of_a_patient(node, tmp_path)
    before = rows_of_every_table(node.database), files_of(node)

    verdict = run_test(node)

    assert verdict is not None
    assert verdict.passed, verdict.fault
    assert verdict.seconds is not None
    assert verdict.seconds > 0
    assert {"first slice received", "report saved"} <= set(verdict.steps or {})
    assert (rows_of_every_table(node.database), files_of(node)) == before
    assert last(node).cleaned
    assert 0 <= last(node).probability <= 1
    assert len(last(node).model_sha256) == 64


def test_the_same_phantom_scores_the_same_and_another_score_is_a_fault_until_it_is_accepted(
    node: PartsOfANode,
    sent_here: None,
) -> None:
    first, second = run_test(node), run_test(node)
    assert first is not None
    assert second is not None
    assert second.passed, second.fault
    assert second.probability == pytest.approx(first.probability, abs=1e-4)
    with node.database.writing() as connection:
        connection.execute(update(SelfTestRow).values(probability=SelfTestRow.probability - 0.03))

    third = run_test(node)
    assert third is not None
    assert not third.passed
    assert third.fault.startswith("the same phantom got another score")
    assert find_conditions(node.database, RULES)["self-test"].startswith("the self-test failed: the same phantom")

    for options in ({"accepts_score": True}, {}):
        verdict = run_test(node, **options)
        assert verdict is not None
        assert verdict.passed, verdict.fault
    assert find_conditions(node.database, RULES) == {}


def test_a_worker_that_does_not_work_is_found_and_what_follows_ends_the_condition(
    node: PartsOfANode, sent_here: None
) -> None:
    before = rows_of_every_table(node.database), files_of(node)
    soon = node.config.model_copy(update={"self_test": SelfTestSettings(limit_s=1.0)})
    ask_self_test(node.database, "tests")

    verdict = a_tester(node, soon).step(threading.Event())

    assert verdict is not None
    assert (verdict.passed, verdict.fault) == (False, "no report within 1 s")
    assert list(find_conditions(node.database, RULES)) == ["self-test"]
    assert (rows_of_every_table(node.database), files_of(node)) == before, "a failed test leaves nothing either"

    assert run_test(node)
    assert find_conditions(node.database, RULES) == {}


@leaks_a_socket
def test_a_receiver_that_is_away_is_found(node: PartsOfANode, sent_here: None) -> None:
    node.receiver.stop(drain_s=0.1)
    verdict = run_test(node)
    assert verdict is not None
    assert not verdict.passed
    assert "the receiver does not take it: no association with 127.0.0.1" in verdict.fault


def test_a_test_that_is_stopped_says_nothing_and_leaves_nothing(node: PartsOfANode, sent_here: None) -> None:
    before = rows_of_every_table(node.database), files_of(node)
    ask_self_test(node.database, "tests")
    stop = threading.Event()
    thread = threading.Thread(target=a_tester(node).run, args=(stop,))
    thread.start()
    wait_for(lambda: rows(node.database, SeriesRow), "slices have come")
    stop.set()
    thread.join()
    assert rows(node.database, SelfTestRow) == []
    assert (rows_of_every_table(node.database), files_of(node)) == before


def test_who_draws_and_sends_ends_when_the_node_does(node: PartsOfANode, reserved: SelfTestToRun) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        send_phantom(sending_order(node.config, reserved), FAR, stop)
    assert rows(node.database, StudyRow) == []


def test_a_test_whose_process_died_has_failed_and_is_cleared_up_by_the_next(
    node: PartsOfANode, reserved: SelfTestToRun
) -> None:
    before = rows_of_every_table(node.database), files_of(node)
    assert send_all(node, reserved) == ""
    assert rows_of_every_table(node.database) != before[0]

    a_tester(node).step(threading.Event())

    assert (last(node).passed, last(node).fault) == (False, "the process that ran it ended")
    assert last(node).cleaned
    assert (rows_of_every_table(node.database), files_of(node)) == before


def test_what_a_kill_left_of_the_clearing_up_is_done_by_the_next(
    node: PartsOfANode, reserved: SelfTestToRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    before = rows_of_every_table(node.database), files_of(node)
    assert send_all(node, reserved) == ""
    with monkeypatch.context() as patch:
        patch.setattr("ich_node.self_test.tester.unlink_forgotten", killed)
        with pytest.raises(KeyboardInterrupt):
            a_tester(node).step(threading.Event())
    assert len(rows(node.database, FileToDeleteRow)) == 14
    assert not last(node).cleaned

    a_tester(node).step(threading.Event())
    assert last(node).cleaned
    assert (rows_of_every_table(node.database), files_of(node)) == before


def test_it_is_time_after_an_interval_and_not_before(node: PartsOfANode, monkeypatch: pytest.MonkeyPatch) -> None:
    tester, now = a_tester(node), time.monotonic()
    assert tester.step(threading.Event()) is None
    assert rows(node.database, SelfTestRow) == []
    monkeypatch.setattr("ich_node.self_test.tester.time.monotonic", lambda: now + 16 * 60)
    monkeypatch.setattr("ich_node.self_test.tester.run_self_test", lambda *_: pytest.fail("it begins"))
    with pytest.raises(pytest.fail.Exception, match="it begins"):
        tester.step(threading.Event())
    assert last(node).asked_by == ""


# -------------------------------------------------------------------------------------- who may send


def test_a_study_that_nobody_has_reserved_is_refused_under_the_reserved_ae_title(
    node: PartsOfANode, reserved: SelfTestToRun, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = replace(reserved, study_instance_uid=str(generate_uid()))
    assert send_all(node, stranger) == "the receiver answered slice 1 with 0x0110"
    assert "object refused" in caplog.text
    assert files_of(node) == set()
    assert rows(node.database, StudyRow) == []


def test_a_test_that_has_ended_takes_nothing_more(node: PartsOfANode, reserved: SelfTestToRun) -> None:
    assert send_all(node, reserved) == ""
    with node.database.writing() as connection:
        connection.execute(update(SelfTestRow).values(finished_at=time.time(), passed=False))
    assert send_all(node, reserved) == "the receiver answered slice 1 with 0x0110", "not even what is held already"


def test_nobody_else_sends_into_the_study_of_a_test(node: PartsOfANode, reserved: SelfTestToRun) -> None:
    assert send_all(node, reserved) == ""
    files = files_of(node)
    intruder = draw(sending_order(node.config, reserved))[0]
    with association(node.receiver.port, calling="CT1") as to:
        assert to.send_c_store(intruder).Status == 0x0110
    assert files_of(node) == files


def test_a_study_of_a_patient_never_becomes_a_test(node: PartsOfANode, reserved: SelfTestToRun) -> None:
    first, second = draw(sending_order(node.config, reserved))[:2]
    with association(node.receiver.port, calling="CT1") as to:
        assert to.send_c_store(first).Status == 0x0000
    with association(node.receiver.port, calling=SELF_TEST_AE_TITLE) as to:
        assert to.send_c_store(second).Status == 0x0110
    (study,) = rows(node.database, StudyRow)
    assert not study.self_test


@leaks_a_socket
def test_another_machine_gets_no_association_under_the_reserved_ae_title(
    node: PartsOfANode, reserved: SelfTestToRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(entrance.Negotiation, "admits", _as_from(entrance.Negotiation.admits, "10.1.2.3"))
    with association(node.receiver.port, calling=SELF_TEST_AE_TITLE) as to:
        assert to.is_rejected
    assert "association refused: the node's own AE title" in caplog.text


def _as_from(admits: Any, address: str) -> Any:
    """No test has a second machine: the receiver is told another address than the one it sees."""
    return lambda self, title, _, certificate=None: admits(self, title, address, certificate)


# ------------------------------------------------------------------------------- it counts nowhere


def test_a_test_is_neither_shown_nor_counted_nor_asked_about_nor_told_of_while_it_runs(
    node: PartsOfANode, tmp_path: Path, reserved: SelfTestToRun
) -> None:
    uid = of_a_patient(node, tmp_path)
    seen = seen_of(node)
    mark = happenings_since(node.database, Mark()).mark
    assert send_all(node, reserved) == ""
    series = rows(node.database, SeriesRow)[-1]
    assert (series.priority, series.old, series.calling_ae_title) == (SELF_TEST_PRIORITY, False, SELF_TEST_AE_TITLE)
    with node.database.writing() as connection:
        connection.execute(update(SeriesRow).values(last_received_at=1.0, patient_mark="somebody"))
    assert quiet_studies(node.database, 600.0) == []
    assert series_to_ask(node.database, 10) == []
    assert studies_to_ask_about(node.database, 10) == []
    assert seen_of(node) == seen, "while it arrives"

    with working(node):
        wait_for(lambda: rows(node.database, StudyRow)[-1].revision, "its report is saved")

    assert seen_of(node) == seen, "while it has a report"
    assert rows(node.database, StudyRow)[-1].self_test
    assert worklist_line(node.database, reserved.study_instance_uid) is None
    assert viewable_series(node.database, reserved.study_instance_uid) == ()
    assert not happenings_since(node.database, mark).counts.total()
    resend(node.database, lambda sent: destinations_for(node.config, sent))
    assert {row.study_id for row in rows(node.database, DeliveryRow)} == {1}, "nothing of it leaves the node"
    told = enter_alerts(node.database, lambda _: AlertPlan())
    assert [one.study_id for one in told] in ([], [1])
    assert rows(node.database, AlertRow) == []
    assert [one.study_instance_uid for one in node.status().studies] == [uid]


def seen_of(node: PartsOfANode) -> tuple[Any, ...]:
    """What people and programs see of the node, without times."""
    operation, measures = node_operation(node.database, ("pacs",)), measure_node(node.database)
    return (
        [one.status.study_instance_uid for one in worklist(node.database, WorklistQuery()).studies],
        what_waits(node.database), node.status().series, node.status().instances, node.status().oldest_open_s,
        operation.queue, operation.heard, measures.answers, measures.reasons, measures.series,
        measures.slices_waiting, measures.oldest_waiting_s["series"],
        list_series(node.database, ("RECEIVING", "COMPLETE")).rows,
    )  # fmt: skip


def test_a_study_that_comes_after_a_test_is_counted_though_it_has_the_number_of_that(
    node: PartsOfANode, tmp_path: Path
) -> None:
    of_a_patient(node, tmp_path)
    ask_self_test(node.database, "tests")
    test = next_self_test(node.database)
    assert test is not None
    assert send_all(node, test) == ""
    during = happenings_since(node.database, Mark())
    a_tester(node).step(threading.Event())  # which clears up

    of_a_patient(node, tmp_path)

    assert len(rows(node.database, StudyRow)) == 2
    after = happenings_since(node.database, during.mark)
    assert (during.counts["studies",], after.counts["studies",]) == (1, 1)
    assert (during.counts["instances", "ct"], after.counts["instances", "ct"]) == (12, 12)
    assert sum(count for name, count in after.counts.items() if name[0] == "reports") == 1
    assert after.counts["self-tests", "failed"] == 1


def test_the_receiver_adopts_nothing_of_a_test_that_has_ended(node: PartsOfANode, reserved: SelfTestToRun) -> None:
    assert send_all(node, reserved) == ""
    (path, *_) = sorted(files_of(node))
    content = path.read_bytes()
    a_tester(node).step(threading.Event())
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)

    Receiver(node.config, node.database).prepare()

    assert files_of(node) == set()
    assert rows(node.database, StudyRow) == []


def test_queueing_everything_again_leaves_a_test_alone_in_the_end(node: PartsOfANode, reserved: SelfTestToRun) -> None:
    before = rows_of_every_table(node.database)
    assert send_all(node, reserved) == ""
    requeue(node.database)
    a_tester(node).step(threading.Event())
    assert rows_of_every_table(node.database) == before


def test_the_phantom_says_that_it_is_nobody(node: PartsOfANode, reserved: SelfTestToRun) -> None:
    assert send_all(node, reserved) == ""
    header = dcmread(min(files_of(node)), stop_before_pixels=True)
    assert str(header.PatientName) == "ICH-NODE^SELF-TEST"
    assert (header.PatientID, header.IssuerOfPatientID) == ("ICH-NODE-SELF-TEST", "ICH-NODE-SELF-TEST")
    assert "NO PATIENT" in header.StudyDescription
