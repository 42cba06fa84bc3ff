"""What people believe in the end is what the study says: corrections, withdrawals and repeats in every order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import select, update

from ich_node.database import AlertRow, StudyRow
from ich_node.job_queue import DeliveryRules, register_instance
from ich_node.job_queue.alert_answers import acknowledge
from ich_node.job_queue.alert_entries import AlertPlan, enter_alerts
from ich_node.job_queue.alert_outbox import (
    claim_alert,
    mark_alert_refused,
    mark_told,
    mark_untold,
    note_unanswered,
    send_again,
)
from ich_node.job_queue.studies import StudyToTell, withdraw_study
from ich_node.records import Alert, AlertChannel, AlertStep, NotAnalysedReason, Triage
from tests.alert_peers import mail_server
from tests.alerting import FINDING, AlertingSite, alerting_site
from tests.outbox import received_instance

RIS, MAIL = AlertChannel("ris", "hl7"), AlertChannel("mail", "mail")
OWNER = "test"
AT_ONCE = DeliveryRules(first_retry_s=0.0, longest_retry_s=0.001, refused_tries=1)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AlertingSite]:
    with alerting_site(tmp_path / "state") as opened:
        yield opened


def enter(site: AlertingSite, *steps: AlertStep, held: bool = False) -> None:
    enter_alerts(site.box.database, lambda _: AlertPlan(steps, held=held))


def claim(site: AlertingSite, *, busy: tuple[str, ...] = (), of_studies: bool = True) -> Alert | None:
    every = {"ris": 100, "mail": 100}
    return claim_alert(site.box.database, OWNER, lease_s=60, busy=busy, most_per_minute=every, of_studies=of_studies)


def told(site: AlertingSite) -> list[tuple[str, str, str]]:
    """Tell all that is to be told now, in the order in which people hear it."""
    heard = []
    while alert := claim(site):
        heard.append((alert.channel, alert.kind, alert.outcome))
        mark_told(site.box.database, alert, OWNER, "taken")
    return heard


def set_alerts(site: AlertingSite, **values: Any) -> None:
    with site.box.database.writing() as connection:
        connection.execute(update(AlertRow).values(values))


def test_a_withdrawal_is_told_also_where_no_report_could_be_made(site: AlertingSite) -> None:
    uid = site.box.add_study(finding=FINDING)
    enter(site, AlertStep(RIS))
    assert told(site) == [("ris", "final", "positive")]

    with site.box.database.writing() as connection:
        study = connection.execute(select(StudyRow)).one()
        connection.exec_driver_sql("update series set state = 'QUARANTINED'")
    of_it = StudyToTell(
        id=study.id, study_instance_uid=uid, series_id=study.rests_on_series_id, series_instance_uid="1.2",
        revision=2,
        reason=NotAnalysedReason.ANALYSIS_FAILED, detail="", calling_ae_title="", remote_address="", old=False,
    )  # fmt: skip
    assert withdraw_study(site.box.database, of_it, (), ())
    enter(site)
    assert told(site) == [("ris", "withdrawn", "withdrawn")]


def test_what_is_dead_is_not_told_again_after_its_correction(site: AlertingSite) -> None:
    uid = site.box.add_study(finding=FINDING)
    enter(site, AlertStep(RIS))
    refused = claim(site)
    assert refused is not None
    assert mark_alert_refused(site.box.database, refused, OWNER, "NAK AR", AT_ONCE) == "DEAD"
    site.box.add_study(uid, revision=2, triage=Triage.NEGATIVE)
    enter(site)
    assert told(site) == [("ris", "correction", "negative")], "it may have heard the first"
    assert send_again(site.box.database, None) == 0
    assert claim(site) is None


def test_what_fails_after_something_newer_was_entered_stays_unsaid(site: AlertingSite) -> None:
    uid = str(generate_uid())
    entered = register_instance(site.box.database, received_instance(uid), max_wait_s=60.0, analysed=False)
    with site.box.database.writing() as connection:
        connection.execute(update(StudyRow).values(early_series_id=entered.series_id, early_finding=FINDING))
    enter(site, AlertStep(RIS))
    early = claim(site)
    assert early is not None
    assert early.kind == "preliminary"
    site.box.add_study(uid, finding=FINDING)
    enter(site, AlertStep(RIS))
    mark_untold(site.box.database, early, OWNER, "no ACK in time", AT_ONCE)
    assert told(site) == [("ris", "final", "positive")], "and nothing preliminary after it"


def test_whom_an_escalation_reached_hears_of_the_correction_at_once(site: AlertingSite) -> None:
    uid = site.box.add_study(finding=FINDING)
    steps = (AlertStep(RIS, 0.0, 60.0), AlertStep(MAIL, 60.0, 60.0))
    enter(site, *steps)
    assert told(site) == [("ris", "final", "positive")]
    set_alerts(site, next_attempt_at=0.0)
    assert told(site) == [("mail", "final", "positive")]

    site.box.add_study(uid, revision=2, triage=Triage.INDETERMINATE)
    enter(site, *steps)
    assert sorted(told(site)) == [("mail", "correction", "indeterminate"), ("ris", "correction", "indeterminate")]


def test_who_never_heard_of_a_study_is_told_and_not_corrected(site: AlertingSite) -> None:
    uid = site.box.add_study(finding=FINDING)
    enter(site, AlertStep(RIS))
    assert told(site) == [("ris", "final", "positive")]
    site.box.add_study(uid, revision=2, triage=Triage.INDETERMINATE)
    enter(site, AlertStep(RIS), AlertStep(MAIL))
    assert sorted(told(site)) == [("mail", "final", "indeterminate"), ("ris", "correction", "indeterminate")]
    with site.box.database.reading() as connection:
        rows = connection.execute(select(AlertRow).where(AlertRow.revision == 2)).all()
    assert {row.channel: row.told_before for row in rows} == {"ris": "positive", "mail": ""}


def test_what_was_held_is_told_once_the_node_is_live(site: AlertingSite) -> None:
    uid = site.box.add_study(finding=FINDING)
    enter(site, AlertStep(RIS), held=True)
    assert told(site) == []
    site.box.add_study(uid, revision=2)
    enter(site, AlertStep(RIS))
    assert told(site) == [("ris", "final", "positive")]


def test_what_is_positive_is_told_first(site: AlertingSite) -> None:
    for triage in (Triage.NEGATIVE, Triage.INDETERMINATE, Triage.POSITIVE):
        site.box.add_study(triage=triage)
        enter(site, AlertStep(RIS))
    assert [outcome for *_, outcome in told(site)] == ["positive", "negative", "indeterminate"]


def test_another_channel_that_hangs_keeps_nothing_from_showing_as_unanswered(site: AlertingSite) -> None:
    site.box.add_study(finding=FINDING)
    enter(site, AlertStep(RIS, 0.0, 0.001), AlertStep(MAIL))
    first = claim(site, busy=("mail",))
    assert first is not None
    mark_told(site.box.database, first, OWNER, "taken")
    set_alerts(site, sent_at=1.0)
    assert note_unanswered(site.box.database) == 1


def test_a_later_step_that_is_being_sent_is_waited_for(site: AlertingSite) -> None:
    site.box.add_study(finding=FINDING)
    enter(site, AlertStep(RIS, 0.0, 0.001), AlertStep(MAIL, 0.001, 0.001))
    first = claim(site, busy=("mail",))
    assert first is not None
    mark_told(site.box.database, first, OWNER, "taken")
    set_alerts(site, sent_at=1.0, next_attempt_at=0.0)
    assert note_unanswered(site.box.database) == 0
    second = claim(site)
    assert second is not None
    assert note_unanswered(site.box.database) == 0
    mark_told(site.box.database, second, OWNER, "taken")
    set_alerts(site, sent_at=1.0)
    assert note_unanswered(site.box.database) == 2


def test_who_acknowledges_before_the_next_step_counts_although_the_first_is_dead(site: AlertingSite) -> None:
    uid = site.box.add_study(finding=FINDING)
    enter(site, AlertStep(RIS, 0.0, 60.0), AlertStep(MAIL, 60.0, 60.0))
    refused = claim(site)
    assert refused is not None
    mark_alert_refused(site.box.database, refused, OWNER, "NAK AR", AT_ONCE)
    assert acknowledge(site.box.database, uid, "Dr. Ada") == 2
    assert acknowledge(site.box.database, uid, "Dr. Ada") == 0
    assert {(one.state, one.acknowledged_by) for one in site.alerts()} == {
        ("DEAD", "Dr. Ada"), ("SUPERSEDED", "Dr. Ada")
    }  # fmt: skip


def test_alerts_for_a_channel_that_there_is_not_any_more_are_seen(site: AlertingSite) -> None:
    site.box.add_study(finding=FINDING)
    enter(site, AlertStep(AlertChannel("pager", "hl7")))
    site.tell(lambda: [one.state for one in site.alerts()] == ["DEAD"])
    assert site.alerts()[0].error == "the configuration names no such channel any more"


@contextmanager
def watched(folder: Path, mode: str) -> Iterator[tuple[AlertingSite, Any]]:
    with mail_server() as (port, mailbox):
        mail = {"name": "mail", "host": "127.0.0.1", "port": port, "starttls": False, "sender": "node@hospital.example",
                "recipients": ["it@hospital.example"]}  # fmt: skip
        with alerting_site(
            folder / "state", node={"mode": mode}, alert_mail=[mail], watchdog={"tell": ["mail"]}
        ) as opened:
            yield opened, mailbox


@pytest.mark.parametrize(("mode", "mails"), [("objects", 1), ("shadow", 0)])
def test_operators_are_told_of_the_node_where_results_leave_it(tmp_path: Path, mode: str, mails: int) -> None:
    with watched(tmp_path, mode) as (site, mailbox):
        site.box.add_study(finding=FINDING)
        with site.box.database.writing() as connection:
            connection.exec_driver_sql("update series set state = 'FAILED'")
        site.tell(lambda: len(site.box.status().conditions) == 1 and len(mailbox.heard) >= mails)
        with site.box.database.reading() as connection:
            waiting = connection.execute(select(AlertRow).where(AlertRow.study_id.is_(None))).all()
        assert len(waiting) == mails, "nothing is kept for later that is stale by then"
        assert [one.state for one in site.alerts()] == ["HELD"]
