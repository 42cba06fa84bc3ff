"""What is told before a series is complete, and what becomes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import hl7
import pytest

from ich_node.alert_channels import make_channels
from ich_node.alerter import Alerter
from ich_node.decode import DecoderPool
from ich_node.job_queue import alert_early, claim_series, new_owner, register_instance, release_lease
from ich_node.job_queue.alert_answers import acknowledge
from ich_node.job_queue.alert_early import note_early_finding
from ich_node.phantom import write_series
from ich_node.pipeline import Model
from ich_node.records import Triage
from tests.alert_peers import Peer, listener
from tests.alerting import FINDING, QUICK, AlertingSite, alerting_site, ris
from tests.integration.test_viewer_objects_sent import with_thresholds
from tests.integration.test_worker import HEAD, Site, open_site
from tests.outbox import received_instance
from tests.running import wait_for

WHOLE: dict[str, Any] = {"slices": 24, "slice_spacing_mm": 5.5}


@contextmanager
def site_with_a_worklist(
    folder: Path, model: Model, decoder: DecoderPool, **sections: Any
) -> Iterator[tuple[Site, Peer]]:
    """A node whose worker and alerter run by themselves."""
    with listener("mllp", folder, "AA") as worklist:
        alerts = {"alert": QUICK, "alert_hl7": [ris(worklist.port)], "alert_rule": [{"tell": ["ris"]}]}
        with open_site(folder, model, decoder, **alerts | sections) as site:
            node, stop = site.node, threading.Event()
            alerter = Alerter(node.config, node.database, make_channels(node.config))
            threads = [threading.Thread(target=one.run, args=(stop,)) for one in (alerter, node.worker)]
            for thread in threads:
                thread.start()
            try:
                yield site, worklist
            finally:
                stop.set()
                for thread in threads:
                    thread.join()


def statuses(worklist: Peer) -> list[str]:
    return [str(hl7.parse(one["text"]).segment("OBR")(25)) for one in worklist.heard]


@pytest.fixture(scope="module")
def says_positive(tiny_model: Model) -> Model:
    return with_thresholds(tiny_model, 1e-6, 2e-6)


def test_a_finding_is_told_before_the_last_slice_and_confirmed_after_it(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool
) -> None:
    series = {"quiet_s": 2.0, "max_wait_s": 30.0}
    with site_with_a_worklist(tmp_path, says_positive, decoder, series=series) as (site, worklist):
        uid, files = site.head(**WHOLE)
        site.send(files[:9])
        time.sleep(1.0)
        assert worklist.heard == [], "with fewer than ten slices it is not decided whether it is a head CT"
        site.send(files[9:20])
        wait_for(lambda: worklist.heard, "the preliminary alert", 20)
        assert site.node.status(uid).studies[0].revision == 0

        site.send(files[20:])
        wait_for(lambda: len(worklist.heard) > 1, "the final alert", 20)

        assert statuses(worklist) == ["P", "F"]
        first, last = (hl7.parse(one["text"]) for one in worklist.heard)
        assert "PRELIMINARY" in worklist.heard[0]["text"]
        assert "TEST MODEL" in worklist.heard[0]["text"]
        assert str(first.segment("PID")(3)) == str(last.segment("PID")(3))
        assert str(first.segment("PID")(5)) == str(last.segment("PID")(5)) != ""
        assert {str(one(11)) for one in first.segments("OBX")} == {"P"}
        assert len({one["identifier"] for one in worklist.heard}) == 2


@pytest.mark.parametrize("why", ["switched off", "nobody to tell", "not far above"])
def test_nothing_is_told_early(tmp_path: Path, says_positive: Model, decoder: DecoderPool, why: str) -> None:
    model = with_thresholds(says_positive, 1e-6, 0.9) if why == "not far above" else says_positive
    sections: dict[str, Any] = {"series": {"quiet_s": 1.0, "max_wait_s": 30.0}}
    if why == "switched off":
        sections["alert"] = QUICK | {"early": False}
    if why == "nobody to tell":
        sections["alert_rule"] = []
    with site_with_a_worklist(tmp_path, model, decoder, **sections) as (site, worklist):
        uid, files = site.head(**WHOLE)
        site.send(files[:20])
        wait_for(lambda: site.node.status(uid).studies[0].series[0].planes == 20, "scored", 20)
        site.send(files[20:])
        wait_for(lambda: site.node.status(uid).studies[0].revision, "concluded", 20)
        time.sleep(0.5)
        assert statuses(worklist) == (["F"] if why == "switched off" else [])


# -------------------------------------------------------------------------- what follows, without images


def enter_early(site: AlertingSite, folder: Path) -> str:
    """A study of which people are told early."""
    (file, *_) = write_series(folder, HEAD)
    uid = f"2.25.{time.time_ns()}"
    place = site.box.config.state_directory / "spool" / "one.dcm"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(file.read_bytes())
    image = replace(received_instance(uid), path="spool/one.dcm")
    register_instance(site.box.database, image, max_wait_s=-1.0, analysed=False)
    owner = new_owner()
    (job,) = claim_series(site.box.database, owner, lease_s=60, max_wait_s=0, limit=8)
    assert note_early_finding(site.box.database, job, owner, FINDING)
    assert not note_early_finding(site.box.database, job, owner, FINDING), "once"
    release_lease(site.box.database, [job.id], owner)
    return uid


@contextmanager
def told_early(folder: Path, **sections: Any) -> Iterator[tuple[AlertingSite, Peer, str]]:
    with (
        listener("mllp", folder, "AA") as worklist,
        alerting_site(folder / "state", alert_hl7=[ris(worklist.port)], **sections) as site,
    ):
        uid = enter_early(site, folder / "images")
        site.tell(lambda: worklist.heard and site.alerts()[0].state == "SENT")
        assert site.states() == [("ris", "preliminary", "positive", "SENT")]
        yield site, worklist, uid


@pytest.mark.parametrize(
    ("triage", "kind", "status"),
    [
        (Triage.POSITIVE, "final", "F"),
        (Triage.INDETERMINATE, "correction", "C"),
        (Triage.NEGATIVE, "correction", "C"),
        (None, "withdrawn", "W"),
    ],
)
def test_the_result_confirms_corrects_or_withdraws(
    tmp_path: Path, triage: Triage | None, kind: str, status: str
) -> None:
    with told_early(tmp_path) as (site, worklist, uid):
        site.box.add_study(uid, triage=triage, finding=FINDING if triage else None)
        site.tell()
        assert statuses(worklist) == ["P", status]
        assert site.states()[-1][1] == kind
        assert site.alerts()[-1].revision == 1
        if status != "F":
            assert "Told before: preliminary" in worklist.heard[-1]["text"]


def test_what_ends_without_a_report_is_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_early, "_NOTHING_COMES_S", 0.5)
    with told_early(tmp_path) as (site, worklist, _):
        with site.box.database.writing() as connection:
            connection.exec_driver_sql("UPDATE series SET state = 'FAILED'")
        site.tell(lambda: len(worklist.heard) == 2)
        site.tell()
        assert statuses(worklist) == ["P", "W"]
        assert "Read the study" in worklist.heard[-1]["text"]
        assert site.states()[-1] == ("ris", "withdrawn", "withdrawn", "SENT")


def test_who_has_seen_the_preliminary_one_is_not_escalated_to_again(tmp_path: Path) -> None:
    rule = {"tell": ["ris"], "then": ["ris"], "answer_within_s": 60.0}
    with told_early(tmp_path, alert_rule=[rule | {"then": []}]) as (site, worklist, uid):
        assert acknowledge(site.box.database, uid, "Dr. Ada") == 1
        site.box.add_study(uid, finding=FINDING)
        site.tell()
        assert statuses(worklist) == ["P", "F"]
        assert [one.state for one in site.alerts()] == ["ACKNOWLEDGED", "SENT"]
