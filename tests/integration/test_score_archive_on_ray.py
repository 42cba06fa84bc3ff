"""Bulk scoring on a Ray cluster: the same table, also where a machine goes away in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.archives import rows_of, without_seconds, write_heads, zip_up
from tests.running import free_port, wait_for

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
TOKEN = "0123456789abcdef" * 4
STARTED_S = 400.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def environment() -> dict[str, str]:
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return os.environ | quiet | {"PYTHONPATH": str(ROOT)}


@dataclass
class RayNode:
    """One node of a cluster on this machine: the processes that `ray start` keeps."""

    started: subprocess.Popen[bytes]

    def processes(self) -> list[psutil.Process]:
        """Give those that run beneath it, the models among them."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.started.pid).children(recursive=True)
        return []

    def kill(self) -> None:
        """Have it vanish, as a machine does that loses power."""
        for one in self.processes():
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.started.kill()
        self.started.wait()


def start_node(folder: Path, *words: str) -> RayNode:
    """Run `ray start --block`, in a session of its own."""
    command = [str(RAY), "start", "--block", "--num-cpus", "1", "--num-gpus", "0", "--disable-usage-stats", *words]
    with (folder / f"ray-{time.monotonic_ns()}.log").open("wb") as log:
        started = subprocess.Popen(command, env=environment(), stdout=log, stderr=log, start_new_session=True)
    return RayNode(started)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, RayNode, RayNode]]:
    """Two nodes of one processor each; the second can be killed."""
    address = f"127.0.0.1:{free_port()}"
    store = ("--object-store-memory", str(100 * 1024 * 1024))
    where = ("--node-ip-address", "127.0.0.1", "--port", address.partition(":")[2])
    head = start_node(tmp_path, "--head", "--include-dashboard", "false", *where, *store)
    nodes = [head]
    try:
        wait_for(lambda: alive(address) == 1, "the first node is there", STARTED_S)
        nodes.append(start_node(tmp_path, "--address", address, *store))
        wait_for(lambda: alive(address) == 2, "the second node is there", STARTED_S)
        yield address, nodes[0], nodes[1]
    finally:
        for one in nodes:
            one.kill()


def alive(address: str) -> int:
    """Count the nodes of a cluster; 0 where none answers yet."""
    program = (
        f"import ray; ray.init(address='{address}', log_to_driver=False, logging_level='ERROR');"
        "print(sum(one['Alive'] for one in ray.nodes()))"
    )
    with suppress(subprocess.TimeoutExpired):  # it is tried for long where the cluster is not there yet
        answer = subprocess.run(
            [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False, timeout=120
        )
        return int(answer.stdout.split()[-1]) if answer.returncode == 0 else 0
    return 0


def scored_by(tmp_path: Path, bundle: Path, source: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ich_node", "score-archive", str(source), "--scores", str(tmp_path / name)]
    command += ["--part", "1", "--model", str(bundle), "--engine", "torch", "--test-model", *words]
    return subprocess.Popen(command, env=environment(), cwd=tmp_path, start_new_session=True)


def test_all_rows_are_there_once_though_a_node_is_killed_while_it_works(
    tmp_path: Path, tiny_bundle: Path, cluster: tuple[str, RayNode, RayNode]
) -> None:
    address, _, second = cluster
    uids = write_heads(tmp_path / "archive", 60)
    zip_up(tmp_path / "archive" / "head7", tmp_path / "archive" / "seven.zip")
    running = scored_by(tmp_path, tiny_bundle, tmp_path / "archive", "ray.parquet", "--ray", address, "--workers", "2")
    parts = tmp_path / "ray.parquet.work" / "parts"

    def is_busy() -> bool:
        assert running.poll() is None
        return len(list(parts.glob("*.parquet"))) >= 4 and models_on(second) == 1

    try:
        wait_for(is_busy, "both nodes score", STARTED_S)
        done_before = len(list(parts.glob("*.parquet")))
        second.kill()
        assert done_before < 60, "there was work left"
        assert running.wait(timeout=600) == 0
    finally:
        running.kill()
    rows = rows_of(tmp_path / "ray.parquet")
    assert [row["study_instance_uid"] for row in rows] == sorted(uids)
    assert [row["analysed"] for row in rows] == [True] * 60
    assert sum(len(rows_of(one)) for one in parts.glob("*.parquet")) == 60, "none was scored twice"
    assert not list(Path(tmp_path).rglob("usage_stats.json"))


def models_on(node: RayNode) -> int:
    """Count the models that work on a node."""
    count = 0
    for one in node.processes():
        with suppress(psutil.NoSuchProcess):
            count += "ray::_Worker" in " ".join(one.cmdline())
    return count


def test_a_cluster_of_this_machine_gives_the_table_that_one_process_gives(tmp_path: Path, tiny_bundle: Path) -> None:
    write_heads(tmp_path / "archive", 3)
    for name, *words in (("here.parquet",), ("ray.parquet", "--workers", "1", "--ray")):
        assert scored_by(tmp_path, tiny_bundle, tmp_path / "archive", name, *words).wait(timeout=600) == 0
    here, ray = (list(without_seconds(rows_of(tmp_path / name))) for name in ("here.parquet", "ray.parquet"))
    assert len(here) == 3
    assert json.dumps(here) == json.dumps(ray)
