"""What of the node itself is told to its operators: once, and once more when it has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ich_node import alerter
from ich_node.database import DeliveryRow, InstanceRow, SeriesRow
from ich_node.job_queue import register_instance
from ich_node.queries import node_status
from tests.alert_peers import mail_server
from tests.alerting import AlertingSite, alerting_site
from tests.outbox import received_instance
from tests.running import free_port


@contextmanager
def watched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tell: tuple[str, ...] = ("mail",)
) -> Iterator[tuple[AlertingSite, Any]]:
    monkeypatch.setattr(alerter, "_WATCH_S", 0.05)
    with mail_server() as (port, mailbox):
        mail = {"name": "mail", "host": "127.0.0.1", "port": port, "starttls": False, "sender": "node@hospital.example",
                "recipients": ["it@hospital.example"]}  # fmt: skip
        watchdog = {"tell": list(tell), "no_result_s": 60.0, "destination_down_s": 60.0, "queue_wait_s": 30.0}
        pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": free_port()}
        with alerting_site(
            folder / "state", alert_mail=[mail], watchdog=watchdog, destination=[pacs], alert_rule=[]
        ) as site:
            yield site, mailbox


def say(site: AlertingSite, table: Any, **values: Any) -> None:
    with site.box.database.writing() as connection:
        connection.execute(update(table).values(values))


@pytest.mark.parametrize(
    ("table", "wrong", "right", "told"),
    [
        (SeriesRow, {"state": "FAILED"}, {"state": "NOT_ANALYSED"}, "1 series FAILED: ich-node requeue --failed"),
        (SeriesRow, {"state": "QUARANTINED"}, {"state": "REJECTED"}, "1 series QUARANTINED: look at them"),
        (
            SeriesRow,
            {"state": "RECEIVING", "last_received_at": 0.0},
            {"state": "NOT_ANALYSED", "last_received_at": 9e9},
            "without a result",
        ),
        (DeliveryRow, {"state": "DEAD"}, {"state": "DELIVERED"}, "1 deliveries DEAD"),
        (
            DeliveryRow,
            {"state": "DELIVERED", "commitment_ask_at": 9e9, "finished_at": 0.0},
            {"state": "COMMITTED"},
            "destination pacs has not committed to 1 objects within 24 h",
        ),
        (DeliveryRow, {"created_at": 0.0}, {"state": "DELIVERED"}, "destination pacs takes nothing: 1 objects wait"),
    ],
)
def test_a_condition_is_told_once_and_its_end_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: Any, wrong: dict[str, Any], right: dict[str, Any], told: str
) -> None:
    with watched(tmp_path, monkeypatch) as (site, mailbox):
        uid = site.box.add_study()
        site.tell()
        assert mailbox.heard == []

        say(site, table, **wrong)
        site.tell(lambda: mailbox.heard)
        site.tell(lambda: time.sleep(0.3) or True)
        assert len(mailbox.heard) == 1
        assert told in mailbox.heard[0]["text"]
        assert "Subject: ICH node: needs a person" in mailbox.heard[0]["text"]
        assert uid not in mailbox.heard[0]["text"]
        assert len(node_status(site.box.database).conditions) == 1

        say(site, table, **right)
        site.tell(lambda: len(mailbox.heard) == 2)
        assert "ENDED: " in mailbox.heard[1]["text"]
        assert node_status(site.box.database).conditions == {}


def test_what_nobody_is_told_of_is_shown_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(tmp_path, monkeypatch, tell=()) as (site, mailbox):
        site.box.add_study()
        say(site, SeriesRow, state="FAILED")
        site.tell(lambda: node_status(site.box.database).conditions)
        assert list(node_status(site.box.database).conditions.values()) == [
            "1 series FAILED: ich-node requeue --failed"
        ]
        say(site, SeriesRow, state="NOT_ANALYSED")
        site.tell(lambda: not node_status(site.box.database).conditions)
        assert mailbox.heard == []


def test_a_queue_that_grows_is_told_of_and_old_studies_are_not_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched(tmp_path, monkeypatch) as (site, mailbox):
        for waits_for_long in (True, True, False):
            register_instance(site.box.database, received_instance("1.2.3"), max_wait_s=60.0, analysed=True)
            if waits_for_long:
                say(site, InstanceRow, received_at=0.0)
        say(site, SeriesRow, old=True)
        site.tell(lambda: time.sleep(0.3) or True)
        assert mailbox.heard == []

        say(site, SeriesRow, old=False)
        site.tell(lambda: mailbox.heard)
        assert "the queue grows: 2 slices wait" in mailbox.heard[0]["text"]
        say(site, InstanceRow, state="DECODED")
        site.tell(lambda: len(mailbox.heard) == 2)


def test_a_series_that_still_arrives_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(tmp_path, monkeypatch) as (site, mailbox):
        register_instance(site.box.database, received_instance("1.2.3"), max_wait_s=60.0, analysed=False)
        site.tell(lambda: time.sleep(0.5) or True)
        assert mailbox.heard == []
