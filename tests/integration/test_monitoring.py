"""One study through a node that runs, every role the real command: its numbers, and its number in the logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from ich_node.phantom import PhantomSettings, write_series
from tests.alert_peers import listener
from tests.alerting import QUICK, ris
from tests.monitoring import Pages
from tests.running import NodeProcesses, free_port, settings, storescp_in, storescu, wait_for

EVERY_ANSWER = ["positive", "indeterminate", "negative", "not_analysed"]


@dataclass
class Node:
    """A node that has analysed, delivered and told of one study."""

    processes: NodeProcesses
    pages: Pages
    patient: str

    def events(self, role: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.processes.log(role).read_text().splitlines()]


@pytest.fixture(scope="module")
def node(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("monitored")
    images = write_series(folder / "images", PhantomSettings(slices=12, rows=128, slice_spacing_mm=12))
    header = dcmread(images[0], stop_before_pixels=True)
    with storescp_in(folder / "pacs") as pacs, listener("mllp", folder, "AA") as worklist:
        values = settings(
            folder / "state", tiny_bundle, destinations=[("pacs", pacs), ("away", free_port())],
            web={"enabled": True, "port": free_port()}, alert=QUICK, alert_hl7=[ris(worklist.port)],
            alert_rule=[{"tell": ["ris"], "triage": EVERY_ANSWER}],
        )  # fmt: skip
        with NodeProcesses(folder, values, ("receive", "work", "deliver", "web")) as processes:
            running = Node(processes, Pages(values["web"]["port"]), str(header.PatientName))
            sent = storescu(images, processes.port)
            assert sent.returncode == 0, sent.stderr
            wait_for(lambda: worklist.heard, "the RIS was told")
            wait_for(
                lambda: running.pages.metrics()["ich_node_delivered_total", "pacs"] == 1, "the report is in the PACS"
            )
            yield running


def test_a_study_is_counted_in_each_step_that_it_took(node: Node) -> None:
    wait_for(lambda: node.pages.metrics()["ich_node_alerts_told_total", "ris,final"], "the alert is counted")
    wait_for(lambda: node.pages.metrics()["ich_node_deliveries", "pacs,DELIVERED"], "the delivery is seen")
    seen = node.pages.metrics()
    assert seen["ich_node_instances_received_total", "ct"] == 12
    assert seen["ich_node_instances_received_total", "other"] == 0
    assert seen["ich_node_received_bytes_total", ""] > 12 * 128 * 128
    assert (seen["ich_node_studies_received_total", ""], seen["ich_node_series_received_total", ""]) == (1, 1)
    steps = ("receiving", "closing", "analysing", "reporting", "answering", "delivering", "alerting")
    assert {step: seen["ich_node_step_seconds_count", step] for step in steps} == dict.fromkeys(steps, 1)
    assert seen["ich_node_step_seconds_count", "acknowledging"] == 0
    answers = {answer: seen["ich_node_reports_total", answer] for answer in EVERY_ANSWER}
    assert sum(answers.values()) == 1
    assert {answer: seen["ich_node_studies", answer] for answer in EVERY_ANSWER} == answers
    assert seen["ich_node_series", "CONCLUDED"] == 1
    assert seen["ich_node_deliveries", "pacs,DELIVERED"] == 1
    family = node.patient.partition("^")[0]
    assert family
    assert family not in node.pages.get("/metrics").text


def test_one_number_follows_a_study_from_its_association_to_its_alert(node: Node) -> None:
    came = [one for one in node.events("receive") if one["event"] == "object received"]
    (study,) = {one["study"] for one in came}
    assert len(came) == 12
    assert len({one["association"] for one in came}) == 1
    wanted = {"delivered", "to be told", "told", "delivery failed, will be tried again"}
    wait_for(
        lambda: wanted <= {one["event"] for one in node.events("deliver") if one.get("study") == study}, "all told"
    )
    followed = {role: [one["event"] for one in node.events(role) if one.get("study") == study]
                for role in ("receive", "work")}  # fmt: skip
    assert "series concluded" in followed["work"]


@pytest.mark.slow
def test_a_role_that_was_killed_is_missed_until_it_runs_again(node: Node) -> None:
    assert not node.pages.not_ready()
    node.processes.kill("work")
    wait_for(lambda: node.pages.not_ready() == {"work"}, "the worker is missed")
    wait_for(lambda: node.pages.metrics()["ich_node_role_up", "work"] == 0, "the metrics say so")
    node.processes.start("work")
    wait_for(lambda: not node.pages.not_ready(), "all is well again")
