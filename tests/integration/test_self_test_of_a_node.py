"""A node that runs, every role the real command, and tests itself when somebody asks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ich_node.database import SelfTestRow, SeriesRow, open_database
from tests.certificates import Authority
from tests.running import NodeProcesses, free_port, settings, wait_for
from tests.self_testing import rows_of_every_table
from tests.unit.queueing import rows


@pytest.fixture(scope="module")
def node(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcesses]:
    """It takes TLS alone, so that the test must go by TLS."""
    folder = tmp_path_factory.mktemp("tested")
    authority = Authority(folder / "authority")
    own = authority.issue("node")
    tls = {"certificate": str(own.certificate), "key": str(own.key), "ca_file": str(authority.file)}
    values = settings(folder / "state", tiny_bundle, tls=tls | {"port": free_port()})
    with NodeProcesses(folder, values) as processes:
        yield processes


def ask(node: NodeProcesses) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ich_node", "self-test", "--config", str(node.config_path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def test_the_command_says_how_the_test_went_and_nothing_is_left(node: NodeProcesses) -> None:
    done = ask(node)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report saved" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("self-test passed, ")
    database = open_database(node.config.database_url)
    wait_for(lambda: rows(database, SelfTestRow)[-1].cleaned, "it is cleared up")
    assert not any(rows_of_every_table(database).values())
    database.close()
    state = node.config.state_directory
    assert [path for name in ("spool", "results") for path in (state / name).rglob("*.*")] == []
    events = [json.loads(line)["event"] for line in node.log("deliver").read_text().splitlines()]
    assert "self-test passed" in events
    assert node.status().self_test is not None


@pytest.mark.slow
def test_a_deliverer_that_is_killed_in_the_middle_clears_up_at_its_next_start(node: NodeProcesses) -> None:
    database = open_database(node.config.database_url)
    node.kill("work")
    command = [sys.executable, "-m", "ich_node", "self-test", "--config", str(node.config_path)]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: rows(database, SeriesRow), "slices have come")
    node.kill("deliver")
    node.restart("deliver")
    said, _ = asking.communicate(timeout=120)
    assert asking.returncode == 1
    assert "the process that ran it ended" in said
    wait_for(lambda: rows(database, SelfTestRow)[-1].cleaned, "it is cleared up")
    assert not any(rows_of_every_table(database).values())
    database.close()
    node.restart("work")
    assert ask(node).returncode == 0
