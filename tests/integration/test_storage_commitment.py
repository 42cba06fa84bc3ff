"""Storage commitment against a PACS that tells the truth and one that lies: only an exact answer commits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE

from ich_node.commitment_asker import CommitmentAsker, start_asking_commitment
from ich_node.config import parse_config
from ich_node.database import CommitmentReportRow, CommitmentRow, DeliveryRow
from ich_node.doctor import examine
from ich_node.job_queue import resend
from ich_node.job_queue.commitments import claim_commitment, stop_asking
from ich_node.pacs import SmallPacs
from ich_node.records import Destination
from ich_node.routing import configured_destinations
from ich_node.storage_commitment import STORAGE_COMMITMENT
from tests.commitment_peers import Answer, CommitmentPeer, CommitmentSite, another_uid, commitment_site, report
from tests.outbox import outbox
from tests.running import leaks_a_socket, settings, wait_for
from tests.unit.queueing import change, rows

SUCCESS, NO_SUCH_INSTANCE, NO_SUCH_EVENT, INVALID_ARGUMENT = 0x0000, 0x0112, 0x0113, 0x0115
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"

LIES: dict[str, Callable[[Answer], Answer]] = {
    "another transaction": lambda true: replace(true, transaction_uid=another_uid()),
    "a changed class": lambda true: replace(true, committed=((CT_IMAGE_STORAGE, true.committed[0][1]),)),
    "a changed instance": lambda true: replace(true, committed=((true.committed[0][0], another_uid()),)),
    "one added": lambda true: replace(true, committed=(*true.committed, (true.committed[0][0], another_uid()))),
    "one named twice": lambda true: replace(true, committed=true.committed * 2),
    "one removed": lambda true: replace(true, committed=true.committed[1:]),
    "committed and failed": lambda true: replace(true, failed=true.failing().failed),
    "a failure added": lambda true: replace(true, failed=((true.committed[0][0], another_uid(), 0x0112),)),
    "all committed, with a failure": lambda true: replace(true.failing(), event_type=1),
    "failures, and none named": lambda true: replace(true, event_type=2),
}


# ------------------------------------------------------------------------------------------- the truth


def test_an_answer_on_an_association_of_the_pacs_commits(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        answer = site.deliver_and_ask()
        assert site.settle() == ["DELIVERED"]
        assert report(site.port, answer) == SUCCESS
        assert site.settle() == ["COMMITTED"]
        (row,) = rows(site.box.database, DeliveryRow)
        assert answer.committed[0][1] == row.sop_instance_uid
        assert row.committed_at >= row.finished_at


def test_an_answer_on_the_association_that_asked_commits(tmp_path: Path) -> None:
    peer = CommitmentPeer(answers_at_once=lambda true: true)
    with commitment_site(tmp_path, peer, delivery={"commitment_stay_s": 30.0}) as site:
        site.box.add_study()
        site.deliver_and_ask()
        assert site.settle() == ["COMMITTED"]
        wait_for(lambda: peer.statuses, "the PACS has its response", 30)
        assert peer.statuses == [SUCCESS]


def test_an_answer_that_overtakes_the_response_to_the_request_counts(tmp_path: Path) -> None:
    def from_another_association(true: Answer) -> None:
        assert report(ports[0], true) == SUCCESS

    ports: list[int] = []
    with commitment_site(tmp_path, CommitmentPeer(answers_at_once=from_another_association)) as site:
        ports.append(site.port)
        site.box.add_study()
        site.deliver_and_ask()
        assert site.settle() == ["COMMITTED"]


def test_a_pacs_that_does_not_negotiate_its_role_is_understood(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        assert report(site.port, site.deliver_and_ask(), with_role=False) == SUCCESS
        assert site.settle() == ["COMMITTED"]


def test_several_studies_are_asked_for_in_one_transaction(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        for _ in range(3):
            site.box.add_study()
        answer = site.deliver_and_ask()
        assert len(answer.committed) == 3
        report(site.port, replace(answer, committed=answer.committed[::-1]))
        assert site.settle() == ["COMMITTED"] * 3, "the order is the peer's own"


def test_the_same_answer_twice_is_taken_twice_and_kept_once(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        answer = site.deliver_and_ask()
        assert [report(site.port, answer) for _ in range(2)] == [SUCCESS] * 2
        site.settle()
        assert report(site.port, answer) == SUCCESS
        assert site.settle() == ["COMMITTED"]
        assert len(rows(site.box.database, CommitmentReportRow)) == 1


# -------------------------------------------------------------------------------------------- the lies


@pytest.fixture(scope="module")
def lied_to(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommitmentSite]:
    """One site for all lies; each is about two studies of its own."""
    with commitment_site(tmp_path_factory.mktemp("lied-to")) as site:
        yield site


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_is_not_exact_commits_nothing(lied_to: CommitmentSite, lie: str) -> None:
    uids = [lied_to.box.add_study() for _ in range(2)]
    true = lied_to.deliver_and_ask()
    assert len(true.committed) == 2
    assert report(lied_to.port, LIES[lie](true)) == INVALID_ARGUMENT
    lied_to.settle()
    assert [lied_to.state(uid) for uid in uids] == [["DELIVERED"]] * 2
    assert report(lied_to.port, true) == SUCCESS
    lied_to.settle()
    assert [lied_to.state(uid) for uid in uids] == [["COMMITTED"]] * 2, "the truth still counts"


def test_nor_does_it_on_the_association_that_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lies = ["another transaction", "a changed class", "one added", "one removed"]
    peer = CommitmentPeer()
    with commitment_site(tmp_path, peer, delivery={"commitment_stay_s": 30.0}) as site:
        for number, lie in enumerate(lies, start=1):
            peer.answers_at_once = LIES[lie]
            for _ in range(2):
                site.box.add_study()
            site.deliver_and_ask()
            assert site.settle() == ["DELIVERED"] * 2 * number, lie
            wait_for(lambda: len(peer.statuses) == number, "the PACS has its response", 30)  # noqa: B023
            assert caplog.text.count("answer of storage commitment refused") == number
        assert peer.statuses == [INVALID_ARGUMENT] * len(lies)


def test_an_answer_from_another_ae_title_is_none(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        true = site.deliver_and_ask()
        assert report(site.port, true, ae_title="OTHER") is None, "storage commitment is not even negotiated"
        assert site.settle() == ["DELIVERED"]
        assert rows(site.box.database, CommitmentReportRow) == []
        assert report(site.port, true) == SUCCESS
        assert site.settle() == ["COMMITTED"]


def test_an_answer_from_another_destination_is_none(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        true = site.deliver_and_ask()
        change(site.box.database, CommitmentRow, ae_title="ARCHIVE")
        assert report(site.port, true) == INVALID_ARGUMENT
        assert site.settle() == ["DELIVERED"]
        assert rows(site.box.database, CommitmentReportRow) == []


def test_an_answer_a_day_late_commits(tmp_path: Path) -> None:
    with commitment_site(tmp_path, delivery={"commitment_wait_h": 48.0}) as site:
        site.box.add_study()
        true = site.deliver_and_ask()
        site.let_pass(hours=25)
        assert site.settle() == ["DELIVERED"]
        assert report(site.port, true) == SUCCESS
        assert site.settle() == ["COMMITTED"]


def test_an_answer_to_the_first_request_commits_after_the_second_was_sent(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        first = site.deliver_and_ask()
        site.let_pass(hours=25)
        second = site.deliver_and_ask()
        assert second.transaction_uid != first.transaction_uid
        assert second.committed == first.committed
        assert report(site.port, first) == SUCCESS
        assert site.settle() == ["COMMITTED"]
        assert report(site.port, second) == SUCCESS
        assert site.settle() == ["COMMITTED"]


def test_an_answer_about_an_object_as_it_was_before_it_was_sent_again_commits_nothing(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        before = site.deliver_and_ask()
        assert resend(site.box.database, lambda _: configured_destinations(site.box.config), destination="pacs") == 1
        after = site.deliver_and_ask()
        assert report(site.port, before) == SUCCESS
        assert site.settle() == ["DELIVERED"], "the PACS may have lost it since: that is why it was sent again"
        assert report(site.port, after) == SUCCESS
        assert site.settle() == ["COMMITTED"]


def test_an_answer_to_nothing_that_was_asked_is_refused_and_leaves_no_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with commitment_site(tmp_path) as site:
        stray = Answer(another_uid(), ((CT_IMAGE_STORAGE, another_uid()),))
        assert report(site.port, stray) == INVALID_ARGUMENT
        assert rows(site.box.database, CommitmentReportRow) == []
        assert "answer of storage commitment refused" in caplog.text


def test_answers_of_another_kind_are_refused_with_their_status(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        true = site.deliver_and_ask()
        assert report(site.port, replace(true, event_type=3)) == NO_SUCH_EVENT
        assert report(site.port, true, instance=another_uid()) == NO_SUCH_INSTANCE
        assert report(site.port, replace(true, committed=())) == INVALID_ARGUMENT
        assert site.settle() == ["DELIVERED"]


def test_a_peer_that_sends_ever_other_answers_does_not_fill_the_database(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        true = site.deliver_and_ask()
        statuses = [report(site.port, LIES["one added"](true)) for _ in range(18)]
        assert statuses == [INVALID_ARGUMENT] * 16 + [0x0213] * 2
        assert len(rows(site.box.database, CommitmentReportRow)) == 16
        assert report(site.port, true) == 0x0000, "the true one counts, however many came before it"
        assert site.settle() == ["COMMITTED"]


# --------------------------------------------------------------------------------------------- failures


def test_what_is_not_committed_is_sent_again_and_asked_about_again(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        site.box.add_study()
        true = site.deliver_and_ask()
        kept, lost = true.committed
        assert report(site.port, replace(true, committed=(kept,), failed=((*lost, 0x0112),))) == SUCCESS
        assert sorted(site.settle()) == ["COMMITTED", "PENDING"]
        (waiting,) = [one for one in site.box.deliveries() if one.state == "PENDING"]
        assert waiting.error == "the destination does not commit to it: no such object instance (0112H)"

        again = site.deliver_and_ask()
        assert again.committed == (lost,)
        assert site.peer.stored.count(lost[1]) == 2
        assert report(site.port, again) == SUCCESS
        assert site.settle() == ["COMMITTED"] * 2


def test_what_is_never_committed_is_dead_in_the_end_and_can_be_sent_again(tmp_path: Path) -> None:
    with commitment_site(tmp_path, delivery={"refused_tries": 3}) as site:
        site.box.add_study()
        for _ in range(3):
            assert report(site.port, site.deliver_and_ask().failing(0x0110)) == SUCCESS
            site.settle()
        (dead,) = site.box.deliveries()
        assert (dead.state, dead.error) == ("DEAD", "the destination does not commit to it: processing failure (0110H)")
        assert len(site.peer.stored) == 3

        assert resend(site.box.database, lambda _: [], dead_only=True) == 1
        report(site.port, site.deliver_and_ask())
        assert site.settle() == ["COMMITTED"]


def test_a_failure_of_an_earlier_transaction_does_not_count(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        first = site.deliver_and_ask()
        site.let_pass(hours=25)
        second = site.deliver_and_ask()
        assert report(site.port, first.failing()) == SUCCESS
        assert site.settle() == ["DELIVERED"], "the second will tell"
        assert report(site.port, second) == SUCCESS
        assert site.settle() == ["COMMITTED"]


def test_a_revision_that_is_not_committed_and_not_current_is_not_received_again(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        uid = site.box.add_study()
        first = site.deliver_and_ask()
        site.box.add_study(uid, revision=2)
        assert report(site.port, first.failing()) == SUCCESS
        site.asker.step()
        assert site.state() == ["SUPERSEDED", "PENDING"]


# ------------------------------------------------------------------------------------------- no answer


def test_without_an_answer_it_is_asked_again_and_told_of(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        site.deliver_and_ask()
        assert site.settle() == ["DELIVERED"]
        assert len(site.peer.asked) == 1, "not before its time"
        site.let_pass(hours=24.1)
        site.settle()
        assert len(site.peer.asked) == 2
        (delivery,) = site.box.deliveries()
        assert delivery.commitment == "commitment asked 2 times"


def test_a_pacs_that_refuses_the_request_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    peer = CommitmentPeer(action_status=0x0110, comment="of Jane Doe")
    with commitment_site(tmp_path, peer) as site:
        site.box.add_study()
        site.box.deliver_until_state("DELIVERED")
        wait_for(lambda: site.asker.step() and site.box.deliveries()[0].commitment, "it was asked", 30)
        assert site.box.deliveries()[0].commitment == "storage commitment not asked: status 0x0110"
        assert caplog.text.count("storage commitment cannot be asked") == 1
        assert not [one for one in caplog.records if "Doe" in repr(vars(one))], "its comment may name a patient"
        peer.action_status = SUCCESS
        wait_for(lambda: site.asker.step() and peer.asked, "it is asked again", 30)
        report(site.port, peer.asked[-1])
        assert site.settle() == ["COMMITTED"]


def test_a_pacs_without_storage_commitment_has_the_report_all_the_same(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs:
        destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port, "commitment": True}
        with outbox(tmp_path / "state", destination=[destination]) as box:
            box.add_study()
            box.deliver_until_state("DELIVERED")
            (place,) = configured_destinations(box.config)
            assert CommitmentAsker(box.config, box.database, place).step()
            (delivery,) = box.deliveries()
            assert delivery.state == "DELIVERED"
            assert "accepted no presentation context" in delivery.commitment


def test_doctor_says_whether_a_destination_takes_requests_and_may_answer(tmp_path: Path) -> None:
    def says(**sections: Any) -> list[tuple[bool, str]]:
        destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "commitment": True}
        config = parse_config(settings(tmp_path / "state", Path("no-model"), destination=[destination], **sections))
        return [(one.well, one.says) for one in examine(config) if one.what == "storage commitment of pacs"]

    peer = {"ae_title": "PACS", "address": "127.0.0.1"}
    with CommitmentPeer().running() as pacs:
        port = pacs.port
        may_answer = "PACS takes requests, and may answer on an association of its own"
        assert says(receiver={"allow_any": False}, peer=[peer]) == [(True, may_answer)]
        assert says(receiver={"allow_any": True}) == [(True, may_answer)]
        ((well, text),) = says(receiver={"allow_any": False}, peer=[peer | {"ae_title": "CT1"}])
        assert (well, "is no [[peer]]" in text) == (False, True)
    with SmallPacs(tmp_path / "pacs") as without:
        port = without.port
        assert says() == [(False, "the destination accepted no presentation context")]


@leaks_a_socket
def test_a_request_that_was_killed_on_its_way_is_made_again(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        site.box.deliver_until_state("DELIVERED")
        (place,) = configured_destinations(site.box.config)
        killed = claim_commitment(site.box.database, place, lease_s=60)
        assert killed is not None
        assert not site.asker.step(), "it may be on its way"
        site.let_pass(hours=0.1)
        assert site.asker.step()
        again = site.peer.asked[-1]
        assert again.transaction_uid != killed.transaction_uid

        stands_for_the_killed_one = replace(again, transaction_uid=killed.transaction_uid)
        assert report(site.port, stands_for_the_killed_one) == SUCCESS, "what it asked is known, should it have arrived"
        assert site.settle() == ["COMMITTED"]


def test_an_answer_that_came_before_a_kill_is_settled_by_the_next(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        site.box.add_study()
        report(site.port, site.deliver_and_ask())
        (place,) = configured_destinations(site.box.config)
        next_one = CommitmentAsker(site.box.config, site.box.database, place)
        assert next_one.step()
        assert site.state() == ["COMMITTED"]


# -------------------------------------------------------------------------------------------- who is asked


def test_nobody_is_asked_who_is_not_configured_so(tmp_path: Path) -> None:
    peer = CommitmentPeer()
    with peer.running(), outbox(tmp_path / "state", peer.port) as box:
        box.add_study()
        box.deliver_until_state("DELIVERED")
        (row,) = rows(box.database, DeliveryRow)
        assert row.commitment_ask_at is None


def test_storage_commitment_is_accepted_only_from_whom_it_is_asked(tmp_path: Path) -> None:
    with commitment_site(tmp_path) as site:
        entity = AE(ae_title="OTHER")
        entity.add_requested_context(STORAGE_COMMITMENT)
        entity.add_requested_context("1.2.840.10008.1.1")
        association = entity.associate("127.0.0.1", site.port, ae_title="ICH_NODE")
        assert [str(one.abstract_syntax) for one in association.accepted_contexts] == ["1.2.840.10008.1.1"]
        association.release()


def test_the_asker_runs_by_itself_and_stops_asking_whom_nobody_wants_asked(tmp_path: Path) -> None:
    with commitment_site(tmp_path, CommitmentPeer(answers_at_once=lambda true: true),
                         delivery={"commitment_stay_s": 5.0}) as site:  # fmt: skip
        site.box.add_study()
        site.box.deliver_until_state("DELIVERED")
        stop = threading.Event()
        start_asking_commitment(site.box.config, site.box.database, stop)
        (asking,) = [one for one in threading.enumerate() if one.name == "commit-pacs"]
        try:
            wait_for(lambda: site.state() == ["COMMITTED"], "the thread does it all", 60)
        finally:
            stop.set()
            asking.join(30)
        assert not asking.is_alive()

        site.box.add_study()
        site.box.deliver_until(lambda: "PENDING" not in site.state(), "the second is delivered")
        assert stop_asking(site.box.database, ["pacs"]) == 0
        assert stop_asking(site.box.database, []) == 1
        assert not claim_commitment(site.box.database, Destination("pacs", "PACS", "127.0.0.1", 1), lease_s=60)
