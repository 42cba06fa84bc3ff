"""The node on a PostgreSQL server, as processes: what is killed and restarted loses nothing and says nothing twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from tests.postgresql import Server, running_server
from tests.running import NodeProcesses, settings, storescu, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server(flushed=True) as server:
        yield server


@pytest.fixture
def node(server: Server, tmp_path: Path, tiny_bundle: Path, pacs: SmallPacs) -> Iterator[NodeProcesses]:
    values = settings(
        tmp_path / "state", tiny_bundle, destinations=[("pacs", pacs.port)], series={"quiet_s": 0.3, "max_wait_s": 12},
        database={"url": server.create("node"), "busy_timeout_s": 5},
    )  # fmt: skip
    with NodeProcesses(tmp_path, values) as running:
        yield running


def test_a_node_whose_worker_is_killed_and_whose_database_restarts_reports_once(
    server: Server, node: NodeProcesses, pacs: SmallPacs, tmp_path: Path
) -> None:
    uid = "2.25.77"
    head = PhantomSettings(lesion="intraparenchymal", slices=30, rows=96, study_instance_uid=uid)
    files = write_series(tmp_path / "phantom", head)
    assert storescu(files[:10], node.port).returncode == 0
    wait_for(lambda: slices(node, uid) == 10, "the first slices are in the database")
    node.kill("work")
    assert send_study(files[10:20], "127.0.0.1", node.port, "ICH_NODE") == 10
    node.restart("work")

    server.stop("immediate")  # as a crash would; no recovery is spared
    refused = storescu(files[20:], node.port)
    assert refused.returncode != 0 or "0xa700" in (refused.stdout + refused.stderr).lower()
    time.sleep(2)
    server.start()
    for role in node.roles:  # as systemd does for one whose commit was cut off
        if node.processes[role].poll() is not None:
            node.restart(role)
    wait_for(lambda: storescu(files[20:], node.port).returncode == 0, "the rest is taken")  # what a sender does

    study = node.wait_settled(uid)
    (series,) = study.series
    assert (series.state, series.slices, series.complete) == ("CONCLUDED", 30, True)
    reports = list((pacs.directory / uid).iterdir())
    assert {one.state for one in study.deliveries} <= {"DELIVERED", "SUPERSEDED"}
    assert len(reports) == study.revision  # each revision came once


def slices(node: NodeProcesses, uid: str) -> int:
    return sum(series.slices for study in node.status(uid).studies for series in study.series)
