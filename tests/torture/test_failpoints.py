"""Places where a test may kill the node: declared, in the code, and off in every node that runs."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ich_node import failpoint
from ich_node.durable import write_durably
from ich_node.errors import SpoolFull
from ich_node.failpoint import BY_A_TEST, FAILPOINT, MAY_BE_KILLED, arm, reach
from tests.torture.strikes import declared_points, every_label

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm({})


def armed(text: str) -> None:
    assert arm({FAILPOINT: text, MAY_BE_KILLED: BY_A_TEST}) == text


def places_in_the_code() -> Counter[str]:
    found: Counter[str] = Counter()
    for path in (ROOT / "ich_node").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach":
                found[ast.literal_eval(node.args[0])] += 1
    return found


def test_every_declared_place_is_in_the_code_once_and_no_other() -> None:
    assert places_in_the_code() == Counter(declared_points())
    assert len(declared_points()) >= 20


def test_every_declared_place_is_struck_by_the_campaign() -> None:
    assert {label.split(": ")[1] for label in every_label()} >= set(declared_points())


@pytest.mark.parametrize("environment", [{FAILPOINT: "commit-before=eio"}, {MAY_BE_KILLED: BY_A_TEST}, {}])
def test_nothing_is_armed_unless_both_variables_say_so(environment: dict[str, str]) -> None:
    assert arm(environment) is None
    reach("commit-before")
    assert failpoint._armed is None


def test_a_place_strikes_the_nth_time_it_is_reached_and_once() -> None:
    armed("commit-before:3=eio")
    reach("commit-before")
    reach("commit-after")
    reach("commit-before")
    with pytest.raises(OSError, match="Input/output error"):
        reach("commit-before")
    reach("commit-before")


def test_a_full_disk_can_be_had_where_a_file_is_written(tmp_path: Path) -> None:
    armed("file-before-sync=enospc")
    with pytest.raises(SpoolFull) as full:
        write_durably(tmp_path / "a.dcm", [b"content"])
    assert isinstance(full.value.__cause__, OSError)
    assert full.value.__cause__.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_an_armed_process_says_so_loudly_and_dies_by_sigkill() -> None:
    code = "from ich_node import failpoint, log; log.start_logging(); failpoint.reach('concluded')"
    environment = os.environ | {FAILPOINT: "concluded", MAY_BE_KILLED: BY_A_TEST}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == -9
    assert "a fail-point is armed" in ended.stderr
    assert '"level": "ERROR"' in ended.stderr
