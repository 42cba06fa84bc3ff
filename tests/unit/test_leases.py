"""Whose lease is free: that of a process that is gone, and of no other."""

import subprocess
import sys

import pytest

from ich_node.job_queue import leases
from ich_node.job_queue.leases import new_owner


def owner_of_another_process(code: str) -> tuple[str, subprocess.Popen[str]]:
    """The name that another process gives itself, and that process, which lives until its input ends."""
    program = f"from ich_node.job_queue import new_owner; print(new_owner(), flush=True); {code}"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process.stdout.readline().strip(), process


def test_owner_is_dead_once_its_process_has_ended() -> None:
    owner, process = owner_of_another_process("input()")
    with process:
        assert not leases._is_dead(owner)
        process.kill()
    assert leases._is_dead(owner)


def test_number_of_a_process_that_was_given_away_again_is_that_of_a_dead_owner() -> None:
    host, number, began = new_owner().rsplit(":", 2)
    assert not leases._is_dead(f"{host}:{number}:{began}")
    assert leases._is_dead(f"{host}:{number}:{int(began) - 1}")


def test_living_owner_that_cannot_be_seen_in_proc_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under systemd: ProtectProc=invisible with PrivateUsers=yes hides the worker from the deliverer."""
    owner, process = owner_of_another_process("input()")
    monkeypatch.setattr(leases, "Path", lambda _path: UnseenPath())
    with process:
        assert not leases._is_dead(owner)
        process.kill()
    assert leases._is_dead(owner)


class UnseenPath:
    def read_text(self, **_: str) -> str:
        raise FileNotFoundError


def test_owner_on_another_host_is_left_to_its_lease() -> None:
    assert not leases._is_dead("another-host:1:1")
