"""What a monitoring reads of the pages' process: the real command, scraped by Debian's Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import insert, update

from ich_node.accounts import Role, add_token
from ich_node.database import DestinationRow, SelfTestRow, SeriesRow, StudyRow
from ich_node.job_queue.drift import save_look
from ich_node.job_queue.workers import note_worker
from ich_node.records import RunningWorker
from ich_node.role_lock import holding_role
from tests.alert_peers import listener
from tests.alerting import FINDING, AlertingSite, alerting_site, ris
from tests.monitoring import Pages
from tests.prometheus import Prometheus, program, prometheus_of
from tests.running import NodeProcesses, free_port, wait_for

ROOT = Path(__file__).parents[2]
BOARD = ROOT / "docs/grafana/ich-node.json"
RULES = ROOT / "docs/grafana/ich-node.rules.yml"


SELF_TEST = {"study_instance_uid": "2.25.1", "asked_at": 1.0, "started_at": 1.0, "finished_at": 1234.0,
             "passed": True, "seconds": 2.5, "probability": 0.51, "cleaned": True}  # fmt: skip


@dataclass
class Watched:
    """A site with a study that was told of, and its pages; the other roles are only their locks."""

    site: AlertingSite
    pages: Pages
    uid: str


def certificate_section(folder: Path) -> dict[str, Any]:
    authority = trustme.CA()
    issued = authority.issue_cert("ich-node.test")
    files = {"certificate": folder / "node.pem", "key": folder / "node.key", "ca_file": folder / "ca.pem"}
    issued.cert_chain_pems[0].write_to_path(files["certificate"])
    issued.private_key_pem.write_to_path(files["key"])
    authority.cert_pem.write_to_path(files["ca_file"])
    files["key"].chmod(0o600)
    return {name: str(path) for name, path in files.items()} | {"port": free_port(), "plain_port_open": True}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    state = folder / "state"
    away = {"name": "away", "ae_title": "PACS", "host": "127.0.0.1", "port": free_port()}
    with (
        listener("mllp", folder, "AA") as worklist,
        alerting_site(
            state, web={"enabled": True, "port": free_port()}, alert_hl7=[ris(worklist.port)], destination=[away],
            tls=certificate_section(folder),
        ) as site,
        holding_role(state, "receive"), holding_role(state, "work", alone=False), holding_role(state, "deliver"),
    ):  # fmt: skip
        uid = site.box.add_study(finding=FINDING)
        with site.box.database.writing() as connection:
            connection.execute(insert(SelfTestRow).values(SELF_TEST))
            connection.execute(update(SeriesRow).values(model={"name": "tiny", "version": "1", "sha256": "ab"}))
        site.tell()
        config = site.box.config.model_dump(mode="json", exclude_none=True)
        values = {name: section for name, section in config.items() if section}
        with NodeProcesses(folder, values, ["web"]):
            yield Watched(site, Pages(site.box.config.web.port), uid)


@pytest.fixture(scope="module")
def prometheus(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus_of(tmp_path_factory.mktemp("prometheus"), watched.pages.port, RULES) as running:
        yield running


# ------------------------------------------------------------------------------------------------- /metrics


def test_the_metrics_say_what_was_done(watched: Watched) -> None:
    seen = watched.pages.metrics()
    assert seen["ich_node_studies", "positive"] == seen["ich_node_reports_total", "positive"] == 1
    assert seen["ich_node_alerts_told_total", "ris,final"] == seen["ich_node_alerts", "ris,SENT"] == 1
    assert seen["ich_node_deliveries", "away,PENDING"] == 1
    assert seen["ich_node_oldest_waiting_seconds", "deliveries"] > 0
    assert seen["ich_node_step_seconds_count", "alerting"] == 1
    assert seen["ich_node_role_up", "work"] == 1
    assert seen["ich_node_certificate_expiry_timestamp_seconds", "dicom"] > time.time()


def test_the_metrics_say_how_the_last_self_test_went(watched: Watched) -> None:
    seen = watched.pages.metrics()
    names = ("passed", "seconds", "probability", "last_timestamp_seconds")
    assert [seen[f"ich_node_self_test_{name}", ""] for name in names] == [1, 2.5, 0.51, 1234]
    assert [seen["ich_node_self_tests_total", outcome] for outcome in ("passed", "failed")] == [1, 0]


def test_no_metric_names_study_or_address(watched: Watched) -> None:
    text = watched.pages.get("/metrics").text
    assert watched.uid not in text
    assert not re.search(r"\d+\.\d+\.\d+\.\d+", text), "neither UIDs nor addresses"


def test_promtool_finds_nothing_to_say_of_the_metrics(watched: Watched) -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=watched.pages.get("/metrics").text,
        capture_output=True,
        text=True,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_what_comes_through_a_proxy_that_nobody_trusts_needs_a_token(watched: Watched) -> None:
    passed_on = {"X-Forwarded-For": "10.1.2.3"}
    refused = watched.pages.get("/metrics", **passed_on)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    token = add_token(watched.site.box.database, "prometheus", Role.VIEWER)
    assert watched.pages.get("/metrics", Authorization=f"Bearer {token}", **passed_on).status_code == 200
    assert watched.pages.get("/metrics", Authorization="Bearer ich_guessed", **passed_on).status_code == 401


# ------------------------------------------------------------------------------------- Prometheus and Grafana


def expressions() -> dict[str, str]:
    """Every expression of the board, as Grafana would ask it."""
    found = {}
    for panel in json.loads(BOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            asked = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
            found[f"{panel['title']} {target['refId']}"] = asked
    return found


def test_every_query_of_the_board_is_answered_by_prometheus(watched: Watched, prometheus: Prometheus) -> None:
    with watched.site.box.database.writing() as connection:
        values = {"name": "away", "paused_at": 0.0, "next_attempt_at": time.time() + 600, "error": "refused"}
        connection.execute(insert(DestinationRow).values(values))
    wait_for(lambda: prometheus.query("ich_node_destination_next_attempt_timestamp_seconds"), "the pause is seen")
    assert len(expressions()) > 30
    assert save_look(watched.site.box.database, time.time(), 1, (), {})
    running = RunningWorker("torch", "cpu", 2**30, 2**34, "tiny", "1", "ab", 0.0)
    note_worker(watched.site.box.database, "a worker", running)
    with watched.site.box.database.writing() as connection:
        values = {"study_instance_uid": "1.2.3", "reason": "TOO_FEW_SLICES", "created_at": time.time()}
        connection.execute(insert(StudyRow).values(values))
    wait_for(lambda: prometheus.query("ich_node_studies_not_analysed > 0"), "the reason is seen")
    assert not [name for name, asked in expressions().items() if not prometheus.query(asked)]


def test_every_metric_of_the_node_is_on_the_board(watched: Watched) -> None:
    asked = re.findall(r"ich_node_\w+", " ".join(expressions().values()))
    shown = {re.sub(r"_(bucket|sum|count)$", "", one) for one in asked}
    names = set(re.findall(r"^# TYPE (ich_node_\w+)", watched.pages.get("/metrics").text, re.MULTILINE))
    assert len(names) > 25
    assert names <= shown, names - shown


def test_every_rule_is_sound_and_can_be_evaluated(prometheus: Prometheus) -> None:
    checked = subprocess.run([program("promtool"), "check", "rules", str(RULES)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    wait_for(lambda: all(one["health"] != "unknown" for one in prometheus.rules() or [{"health": "unknown"}]), "rules")
    rules = prometheus.rules()
    assert len(rules) == len(re.findall(r"- alert:", RULES.read_text()))
    assert {rule["health"] for rule in rules} == {"ok"}
    stirring = {rule["name"] for rule in rules if rule["state"] != "inactive"}
    assert not stirring & {"IchNodeRoleDown", "IchNodeDiskNearReserve"}


# -------------------------------------------------------------------------------------------------- health


def test_the_node_is_ready_and_says_what_that_rests_on(watched: Watched) -> None:
    answer = watched.pages.get("/readyz")
    names = ("database_readable", "database_writable", "disk", "receive", "work", "deliver")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "checks": dict.fromkeys(names, "ok")}
    assert watched.pages.get("/livez").json() == {"alive": True}


def test_a_database_that_stays_locked_is_named(watched: Watched) -> None:
    with watched.site.box.database.writing():
        wait_for(lambda: watched.pages.not_ready() == {"database_writable"}, "the lock is seen")
        assert watched.pages.get("/livez").status_code == 200
    wait_for(lambda: not watched.pages.not_ready(), "all is well again")
