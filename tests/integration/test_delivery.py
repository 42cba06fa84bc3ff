"""The outbox against real peers: what each answer leads to, and that nothing saved is ever lost."""

import errno
import hashlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import evt
from sqlalchemy import update

from ich_node.database import DeliveryRow, ResultRow
from ich_node.job_queue import free_leases_of_the_dead, resend
from ich_node.pacs import SmallPacs
from ich_node.records import Destination, Triage
from ich_node.routing import configured_destinations
from tests.outbox import outbox, peer
from tests.running import free_port, leaks_a_socket, wait_for

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"


def test_a_report_arrives_with_the_bytes_that_were_saved(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs, outbox(tmp_path / "state", pacs.port) as box:
        uid = box.add_study()

        (delivery,) = box.deliver_until_state("DELIVERED")

        stored = pacs.path_of(delivery.sop_instance_uid or "")
        assert stored is not None
        assert stored.parent.name == uid
        saved = dcmread(box.config.state_directory / str(delivery.report_file))
        assert dcmread(stored) == saved
        assert saved.SOPClassUID == COMPREHENSIVE_3D_SR
        assert delivery.attempts == 1
        assert not delivery.error


def test_the_same_report_sent_again_is_the_same_object(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs, outbox(tmp_path / "state", pacs.port) as box:
        uid = box.add_study()
        (first,) = box.deliver_until_state("DELIVERED")

        assert resend(box.database, lambda _: configured_destinations(box.config), study_instance_uid=uid) == 1
        (second,) = box.deliver_until_state("DELIVERED")

        assert first.sop_instance_uid == second.sop_instance_uid
        assert pacs.received == {first.sop_instance_uid: 2}


def test_what_is_positive_goes_first_and_with_high_priority(tmp_path: Path) -> None:
    taken: list[tuple[str, int]] = []

    def take(event: evt.Event) -> int:
        taken.append((event.dataset.StudyInstanceUID, event.request.Priority))
        return 0x0000

    with peer(take) as port, outbox(tmp_path / "state", port) as box:
        negative = box.add_study(triage=Triage.NEGATIVE)
        without_result = box.add_study(triage=None)
        positive = box.add_study(triage=Triage.POSITIVE)
        box.deliver_until_state("DELIVERED")
    medium, high = 0, 1
    assert taken == [(positive, high), (negative, medium), (without_result, medium)]


def test_a_warning_counts_as_delivered_and_is_shown(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs", store_status=0xB007) as pacs, outbox(tmp_path / "state", pacs.port) as box:
        box.add_study()

        (delivery,) = box.deliver_until_state("DELIVERED")

        assert delivery.attempts == 1
        assert delivery.error == "warning 0xB007"


@pytest.mark.parametrize("status", [0xA700, 0x0110])
def test_a_failure_that_may_pass_is_tried_until_it_has(tmp_path: Path, status: int) -> None:
    answers = iter([status] * 3)
    with (
        SmallPacs(tmp_path / "pacs", store_status=lambda _: next(answers, 0x0000)) as pacs,
        outbox(tmp_path / "state", pacs.port, delivery={"first_retry_s": 0.01, "longest_retry_s": 0.02}) as box,
    ):
        box.add_study()
        box.deliver_until(lambda: box.deliveries()[0].attempts == 1, "one attempt")
        assert box.deliveries()[0].error == f"status 0x{status:04X}"
        assert box.deliveries()[0].state == "PENDING"

        (delivery,) = box.deliver_until_state("DELIVERED")

        assert delivery.attempts == 4
        assert not delivery.error
        assert len(pacs.received) == 1


def test_the_pause_between_tries_grows(tmp_path: Path) -> None:
    pauses = []
    with (
        SmallPacs(tmp_path / "pacs", store_status=0xA700) as pacs,
        outbox(tmp_path / "state", pacs.port, delivery={"first_retry_s": 100, "longest_retry_s": 400}) as box,
    ):
        box.add_study()
        for _ in range(4):
            assert box.deliverer.step()
            pauses.append(box.deliveries()[0].next_attempt_at - time.time())
            assert not box.deliverer.step(), "nothing is due before the pause is over"
            _make_due(box)

    assert [
        round(pause / 100) in allowed for pause, allowed in zip(pauses, ((1,), (2,), (3, 4, 5), (3, 4, 5)), strict=True)
    ]
    assert pauses[0] < pauses[1] < pauses[2]
    assert pauses[3] <= 400 * 1.2


@leaks_a_socket
def test_a_pacs_that_is_down_gets_the_report_when_it_is_back(tmp_path: Path) -> None:
    port = free_port()
    with outbox(tmp_path / "state", port) as box:
        box.add_study()
        box.deliver_until(lambda: box.deliveries()[0].attempts >= 2, "two attempts")
        assert box.deliveries()[0].error == f"no association with 127.0.0.1:{port}"
        assert not box.status().paused_destinations

        with SmallPacs(tmp_path / "pacs", port=port) as pacs:
            (delivery,) = box.deliver_until_state("DELIVERED")
            assert pacs.received == {delivery.sop_instance_uid: 1}


@leaks_a_socket
def test_an_abort_is_tried_again(tmp_path: Path) -> None:
    calls = []

    def abort_the_first(event) -> int:
        calls.append(event.request.AffectedSOPInstanceUID)
        if len(calls) == 1:
            event.assoc.abort()
        return 0x0000

    with peer(abort_the_first) as port, outbox(tmp_path / "state", port) as box:
        box.add_study()
        (delivery,) = box.deliver_until_state("DELIVERED")

    assert delivery.attempts == 2
    assert calls == [delivery.sop_instance_uid] * 2


@leaks_a_socket
def test_a_pacs_that_hangs_is_given_up_and_tried_again(tmp_path: Path) -> None:
    calls = []

    def hang_at_first(event) -> int:
        calls.append(event.request.AffectedSOPInstanceUID)
        if len(calls) == 1:
            time.sleep(1.5)
        return 0x0000

    with (
        peer(hang_at_first) as port,
        outbox(tmp_path / "state", port, delivery={"response_timeout_s": 0.5}) as box,
    ):
        box.add_study()
        box.deliver_until(lambda: box.deliveries()[0].error, "a time-out")
        assert box.deliveries()[0].error == "the destination aborted or did not answer the C-STORE in time"
        (delivery,) = box.deliver_until_state("DELIVERED")

    assert delivery.attempts >= 2
    assert set(calls) == {delivery.sop_instance_uid}


@pytest.mark.parametrize("status", [0xA900, 0x0122, 0xC123])
def test_a_refusal_is_dead_after_five_tries_and_can_be_revived(tmp_path: Path, status: int) -> None:
    tries = []
    rules = {"first_retry_s": 0.01, "longest_retry_s": 0.02}
    with (
        SmallPacs(tmp_path / "pacs", store_status=lambda one: tries.append(one) or status) as pacs,
        outbox(tmp_path / "state", pacs.port, delivery=rules) as box,
    ):
        uid = box.add_study()
        (dead,) = box.deliver_until_state("DEAD")
        assert dead.error == f"status 0x{status:04X}"
        assert len(tries) == dead.attempts == 5
        assert not box.deliverer.step(), "a dead delivery is left alone"

        pacs.store_status = 0x0000
        assert resend(box.database, lambda _: [], dead_only=True) == 1
        (delivery,) = box.deliver_until_state("DELIVERED")

        assert delivery.attempts == 1
        assert [path.stem for path in (tmp_path / "pacs" / uid).glob("*.dcm")] == [delivery.sop_instance_uid]


def test_failures_that_may_pass_do_not_count_as_refusals(tmp_path: Path) -> None:
    answers = iter([0xA700] * 6 + [0xC000] * 4)
    rules = {"first_retry_s": 0.01, "longest_retry_s": 0.02}
    with (
        SmallPacs(tmp_path / "pacs", store_status=lambda _: next(answers, 0x0000)) as pacs,
        outbox(tmp_path / "state", pacs.port, delivery=rules) as box,
    ):
        box.add_study()
        (delivery,) = box.deliver_until_state("DELIVERED")
        assert delivery.attempts == 11


@leaks_a_socket
def test_a_report_nobody_took_for_a_week_is_dead(tmp_path: Path) -> None:
    with outbox(tmp_path / "state", free_port()) as box:
        box.add_study()
        box.deliver_until(lambda: box.deliveries()[0].attempts >= 1, "one attempt")
        assert box.deliveries()[0].state == "PENDING"
        box.age(days=6.9)
        box.deliver_until(lambda: box.deliveries()[0].attempts >= 2, "another attempt")
        assert box.deliveries()[0].state == "PENDING"

        box.age(days=7.1)
        (delivery,) = box.deliver_until_state("DEAD")
        assert delivery.error.startswith("no association")


@leaks_a_socket
def test_a_rejected_association_pauses_the_destination_until_it_answers(tmp_path: Path) -> None:
    port = free_port()
    with outbox(tmp_path / "state", port, delivery={"paused_retry_s": 3.0}) as box:
        box.add_study()
        box.add_study()
        with peer(lambda _: 0x0000, called_must_be="SOMEBODY"):
            pass
        with peer(lambda _: 0x0000, called_must_be="SOMEBODY", port=port):
            box.deliver_until(lambda: box.status().paused_destinations, "the destination is paused")
            assert "the association was rejected" in box.status().paused_destinations["pacs-0"]
            assert "ecogni" in box.status().paused_destinations["pacs-0"], "the peer's reason is told"
            assert {one.state for one in box.deliveries()} == {"PENDING"}
            box.add_study()
            assert not box.deliverer.step(), "a paused destination is left alone, new reports included"

        with SmallPacs(tmp_path / "pacs", port=port) as pacs:
            box.deliver_until_state("DELIVERED")
            assert len(pacs.received) == 3
            assert not box.status().paused_destinations


def test_a_destination_that_accepts_no_report_class_is_paused_until_it_does(tmp_path: Path) -> None:
    with (
        SmallPacs(tmp_path / "pacs", accepted_sop_classes=()) as pacs,
        outbox(tmp_path / "state", pacs.port) as box,
    ):
        box.add_study()
        box.deliver_until(lambda: box.status().paused_destinations, "the destination is paused")
        assert box.status().paused_destinations == {"pacs-0": "the destination accepted no presentation context"}

        pacs.accepted_sop_classes = None
        box.deliver_until_state("DELIVERED")
        assert not box.status().paused_destinations


def test_a_destination_that_answers_again_is_not_paused_even_if_it_refuses_the_report(tmp_path: Path) -> None:
    with (
        SmallPacs(tmp_path / "pacs", accepted_sop_classes=()) as pacs,
        outbox(tmp_path / "state", pacs.port, delivery={"refused_tries": 1}) as box,
    ):
        box.add_study()
        box.deliver_until(lambda: box.status().paused_destinations, "the destination is paused")

        pacs.accepted_sop_classes, pacs.store_status = None, 0xC000
        box.deliver_until_state("DEAD")

        assert not box.status().paused_destinations


@pytest.mark.parametrize(
    ("accepted", "sent"),
    [
        ((COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, ENHANCED_SR), COMPREHENSIVE_3D_SR),
        ((COMPREHENSIVE_SR, ENHANCED_SR), COMPREHENSIVE_SR),
        ((ENHANCED_SR,), ENHANCED_SR),
    ],
)
def test_the_best_class_that_the_destination_accepts_is_sent(
    tmp_path: Path, accepted: tuple[str, ...], sent: str
) -> None:
    with (
        SmallPacs(tmp_path / "pacs", accepted_sop_classes=accepted) as pacs,
        outbox(tmp_path / "state", pacs.port) as box,
    ):
        box.add_study()
        saved = [dcmread(path) for path in (tmp_path / "state" / "results").glob("*.dcm")]
        assert {one.SOPClassUID for one in saved} == {COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, ENHANCED_SR}
        assert len({one.SOPInstanceUID for one in saved}) == 3

        (delivery,) = box.deliver_until_state("DELIVERED")

        (stored,) = (tmp_path / "pacs").glob("*/*.dcm")
        assert dcmread(stored).SOPClassUID == sent
        (expected,) = [one.SOPInstanceUID for one in saved if one.SOPClassUID == sent]
        assert delivery.sop_instance_uid == stored.stem == expected


@leaks_a_socket
def test_every_destination_gets_its_copy_whatever_the_others_do(tmp_path: Path) -> None:
    with (
        SmallPacs(tmp_path / "a") as first,
        SmallPacs(tmp_path / "b", store_status=0xC000) as refusing,
        SmallPacs(tmp_path / "c", accepted_sop_classes=(ENHANCED_SR,)) as old,
        outbox(tmp_path / "state", first.port, refusing.port, free_port(), old.port) as box,
    ):
        box.add_study()
        box.deliver_until(lambda: len(first.received) == len(old.received) == 1, "two have it")
        box.deliver_until(lambda: box.deliveries()[1].attempts and box.deliveries()[2].attempts, "two were tried")

        assert [one.state for one in box.deliveries()] == ["DELIVERED", "PENDING", "PENDING", "DELIVERED"]
        assert not set(first.received) & set(old.received), "another encoding is another object"


@leaks_a_socket
def test_a_destination_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    release, stop = threading.Event(), threading.Event()

    def hang(_event) -> int:
        release.wait(60)
        return 0x0000

    with (
        peer(hang) as hanging,
        SmallPacs(tmp_path / "pacs") as pacs,
        outbox(tmp_path / "state", hanging, pacs.port, delivery={"response_timeout_s": 60}) as box,
    ):
        box.add_study()
        loop = threading.Thread(target=box.deliverer.run, args=(stop,))
        loop.start()
        try:
            wait_for(lambda: box.status().deliveries == {"SENDING": 1, "DELIVERED": 1}, "one has it, one hangs")
            box.add_study()
            wait_for(lambda: len(pacs.received) == 2, "the next study arrives too")
            hangs = sorted(one.state for one in box.deliveries() if one.destination == "pacs-0")
            assert hangs == ["PENDING", "SENDING"], "one association at a time with each"
        finally:
            release.set()
            wait_for(lambda: box.status().deliveries == {"DELIVERED": 4}, "all is delivered")
            stop.set()
            loop.join(30)
        assert not loop.is_alive()


def test_a_newer_revision_takes_the_place_of_one_that_was_not_received(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs, outbox(tmp_path / "state", pacs.port) as box:
        uid = box.add_study()
        box.add_study(uid, revision=2)

        box.deliver_until(lambda: pacs.received, "the report arrives")

        assert [(one.revision, one.state) for one in box.deliveries()] == [(1, "SUPERSEDED"), (2, "DELIVERED")]
        assert len(pacs.received) == 1


def test_revisions_are_different_objects(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs, outbox(tmp_path / "state", pacs.port) as box:
        uid = box.add_study()
        box.deliver_until_state("DELIVERED")
        box.add_study(uid, revision=2)
        box.deliver_until_state("DELIVERED")

        assert sorted(pacs.received.values()) == [1, 1]


def test_a_delivery_whose_deliverer_died_is_sent_by_the_next(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs, outbox(tmp_path / "state", pacs.port) as box:
        box.add_study()
        with box.database.writing() as connection:
            leased = {"state": "SENDING", "lease_owner": _dead_owner(), "lease_expires_at": time.time() + 900}
            connection.execute(update(DeliveryRow).values(leased))
        assert not box.deliverer.step(), "as long as the lease holds, nobody else sends it"

        assert free_leases_of_the_dead(box.database) == 1
        box.deliver_until_state("DELIVERED")


def test_a_report_whose_file_is_gone_is_dead_and_says_so(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs, outbox(tmp_path / "state", pacs.port) as box:
        box.add_study()
        for path in (tmp_path / "state" / "results").glob("*.dcm"):
            path.unlink()
        uid = box.add_study()
        box.deliver_until(lambda: not box.deliverer.step(), "nothing is due")

        lost, other = box.deliveries()
        assert (lost.state, lost.error) == ("DEAD", "the report's file is gone; ich-node requeue makes a new report")
        assert other.state == "DELIVERED", "and it stops no other"
        assert [path.parent.name for path in (tmp_path / "pacs").glob("*/*.dcm")] == [uid]


@pytest.mark.parametrize("damage", ["a bit", "cut", "empty"])
def test_a_report_whose_file_is_damaged_is_never_sent_and_stops_no_other(tmp_path: Path, damage: str) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs, outbox(tmp_path / "state", pacs.port) as box:
        box.add_study()
        for path in (tmp_path / "state" / "results").glob("*.dcm"):
            content = bytearray(path.read_bytes())
            content[-3] ^= 1
            path.write_bytes({"a bit": content, "cut": content[:-40], "empty": b""}[damage])
        uid = box.add_study()
        box.deliver_until(lambda: not box.deliverer.step(), "nothing is due")

        lost, other = box.deliveries()
        assert lost.state == "DEAD"
        assert lost.error == "the report's file is not what was saved; ich-node requeue makes a new report"
        assert other.state == "DELIVERED"
        assert [path.parent.name for path in (tmp_path / "pacs").glob("*/*.dcm")] == [uid]


def test_a_report_that_cannot_be_read_now_is_sent_when_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad: set[str] = set()
    digest_of = hashlib.file_digest

    def fails(file: Any, name: str) -> Any:
        if file.name in bad:
            raise OSError(errno.EIO, "Input/output error")
        return digest_of(file, name)

    with SmallPacs(tmp_path / "pacs") as pacs, outbox(tmp_path / "state", pacs.port) as box:
        box.add_study()
        bad |= {str(path) for path in (tmp_path / "state" / "results").glob("*.dcm")}
        box.add_study()
        with monkeypatch.context() as patch:
            patch.setattr(hashlib, "file_digest", fails)
            assert box.deliverer.step()
        waiting, other = box.deliveries()
        assert (waiting.state, waiting.error) == ("PENDING", "a report cannot be read: Input/output error")
        assert other.state == "DELIVERED", "one that cannot be read holds up no other"
        box.deliver_until(lambda: {one.state for one in box.deliveries()} == {"DELIVERED"}, "it is sent, too")


def test_a_report_that_was_deleted_after_its_days_cannot_be_sent_again(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs, outbox(tmp_path / "state", pacs.port) as box:
        box.add_study()
        box.deliver_until_state("DELIVERED")
        with box.database.writing() as connection:
            connection.execute(update(ResultRow).values(path=None))

        assert resend(box.database, lambda _: [], destination="pacs-0") == 0
        assert {one.state for one in box.deliveries()} == {"DELIVERED"}


def test_a_delivery_whose_report_is_gone_is_dead_at_once(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs, outbox(tmp_path / "state", pacs.port) as box:
        box.add_study()
        with box.database.writing() as connection:
            connection.execute(update(ResultRow).values(path=None))

        (delivery,) = box.deliver_until_state("DEAD")

        assert delivery.error == "the report's file is gone; ich-node requeue makes a new report"
        assert not box.status().paused_destinations


def test_resend_reaches_a_destination_that_was_added_since(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "a") as old, SmallPacs(tmp_path / "b") as new, outbox(tmp_path / "s", old.port) as box:
        uid = box.add_study()
        box.deliver_until_state("DELIVERED")

        added = Destination("new", "PACS", "127.0.0.1", new.port)
        assert resend(box.database, lambda _: [added], study_instance_uid=uid, destination="new") == 1
        box.deliver_until_state("DELIVERED")

        assert list(old.received.values()) == list(new.received.values()) == [1]


def test_a_study_without_a_destination_keeps_its_report_in_the_state_folder(tmp_path: Path) -> None:
    with outbox(tmp_path / "state") as box:
        box.add_study()
        assert not box.deliverer.step()
        assert not box.deliveries()
        assert len(list((tmp_path / "state" / "results").glob("*.dcm"))) == 3


def _make_due(box) -> None:
    with box.database.writing() as connection:
        connection.execute(update(DeliveryRow).values(next_attempt_at=0.0))


def _dead_owner() -> str:
    return f"{socket.gethostname()}:4194303:0.00"
