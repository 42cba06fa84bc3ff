"""A node started twice, roles that hang or are stopped, a receiver that does not answer, a GPU that is gone."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import dcmread
from pynetdicom import AE
from sqlalchemy import update

from ich_node import supervisor
from ich_node.config import parse_config
from ich_node.database import SeriesRow
from ich_node.errors import AlreadyRunning, DeviceFailed, ModelError
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.role_lock import holding_role
from ich_node.service import SystemdNotifier
from ich_node.worker import loop
from tests.integration.receiving import running
from tests.running import (
    NodeProcesses,
    PartsOfANode,
    as_toml,
    free_port,
    leaks_a_socket,
    parts_of_a_node,
    settings,
    wait_for,
)
from tests.unit.queueing import rows

HEAD = PhantomSettings(slices=12, rows=64, slice_spacing_mm=11.0)
OTHER = dataclasses.replace(HEAD, seed=2)


# ------------------------------------------------------------------------------------- one node to a folder


def test_a_node_is_not_started_beside_one_of_its_roles_and_says_why(tmp_path: Path) -> None:
    with NodeProcesses(tmp_path, settings(tmp_path / "state", tmp_path), roles=("receive",)) as node:
        second = start("serve", node.config_path)
        assert second.returncode == 78
        assert "is in use: another `ich-node receive` works on it" in second.stderr


@pytest.mark.slow
def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    with NodeProcesses(tmp_path, settings(tmp_path / "state", tmp_path), roles=("receive",)) as node:
        assert start("receive", node.config_path).returncode == 78
        node.kill("receive")  # leaves its lock file, and no lock
        node.restart("receive")


def start(role: str, configuration: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ich_node", role, "--config", str(configuration)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)


def test_a_role_waits_a_moment_for_the_one_before_it(tmp_path: Path) -> None:
    held = holding_role(tmp_path, "deliver")
    held.__enter__()
    threading.Timer(0.5, lambda: held.__exit__(None, None, None)).start()
    with holding_role(tmp_path, "deliver", wait_s=30.0):
        pass


def test_several_workers_may_work_on_one_folder(tmp_path: Path) -> None:
    with holding_role(tmp_path, "work", alone=False), holding_role(tmp_path, "work", wait_s=0.0, alone=False):
        pass


def test_a_node_is_not_served_twice(tmp_path: Path) -> None:
    config = parse_config(settings(tmp_path, tmp_path))
    with holding_role(tmp_path, "serve"), pytest.raises(AlreadyRunning, match="another `ich-node serve`"):
        supervisor.serve(config, tmp_path / "ich-node.toml")


# ----------------------------------------------------------------------------------------- signs of life


@leaks_a_socket
@pytest.mark.slow
def test_a_role_that_is_stopped_is_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen from outside, as a role that hangs: nothing of it runs, and its port still takes connections."""
    monkeypatch.setitem(supervisor._LONGEST_SILENCE_S, "receive", 8.0)
    values = settings(tmp_path / "state", tmp_path)
    configuration = tmp_path / "ich-node.toml"
    configuration.write_text(as_toml(values))
    stop = threading.Event()
    child = supervisor._start("receive", configuration)
    watching = threading.Thread(target=supervisor._watch, args=([child], configuration, stop, SystemdNotifier()))
    watching.start()
    try:
        wait_for(lambda: echoes(values["node"]["port"]), "the receiver answers")
        frozen = child.process.pid
        os.kill(frozen, signal.SIGSTOP)
        wait_for(lambda: child.process.pid != frozen and echoes(values["node"]["port"]), "another receiver answers")
    finally:
        stop.set()
        watching.join()
        supervisor._stop([child])


@leaks_a_socket
@pytest.mark.slow
def test_a_worker_that_hangs_in_a_study_is_killed_and_the_next_one_concludes_it(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(supervisor._LONGEST_SILENCE_S, "work", 30.0)
    files = write_series(tmp_path / "head", HEAD)
    uid = str(dcmread(files[0]).StudyInstanceUID)
    stop = threading.Event()
    with SmallPacs(tmp_path / "pacs") as pacs:
        values = settings(
            tmp_path / "state",
            tiny_bundle,
            destinations=[("pacs", pacs.port)],
            series={"quiet_s": 2.0, "max_wait_s": 30.0},
        )
        with NodeProcesses(tmp_path, values, roles=("receive", "deliver")) as node:
            child = supervisor._start("work", node.config_path)
            arguments = ([child], node.config_path, stop, SystemdNotifier())
            watching = threading.Thread(target=supervisor._watch, args=arguments)
            watching.start()
            try:
                send_study(files[:6], "127.0.0.1", node.port, "ICH_NODE", "SCANNER1")
                wait_for(lambda: node.status(uid).studies[0].series[0].planes, "it has begun", 120)
                frozen = child.process.pid
                os.kill(frozen, signal.SIGSTOP)
                send_study(files[6:], "127.0.0.1", node.port, "ICH_NODE", "SCANNER1")
                study = node.wait_settled(uid, 180)
                assert child.process.pid != frozen
            finally:
                stop.set()
                watching.join()
                supervisor._stop([child])
        assert [one.state for one in study.series] == ["CONCLUDED"]
        assert study.series[0].planes == len(files)
        assert len(list((tmp_path / "pacs").glob("*/*.dcm"))) == 1


def echoes(port: int) -> bool:
    entity = AE(ae_title="TEST")
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 5
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate("127.0.0.1", port, ae_title="ICH_NODE")
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return status.get("Status") == 0


def test_a_receiver_checks_itself_though_nobody_may_call_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    peers = [{"ae_title": "SCANNER1", "address": "10.9.8.7"}]
    with running(tmp_path / "state", receiver={"allow_any": False}, peer=peers) as node:
        assert node.receiver.check.passes(node.port)
        assert "refused" not in caplog.text


def test_a_locked_database_is_no_fault_of_the_receiver(tmp_path: Path) -> None:
    with (
        running(tmp_path / "state") as node,
        closing(sqlite3.connect(node.state / "ich-node.sqlite", isolation_level=None)) as other,
    ):
        other.execute("BEGIN EXCLUSIVE")
        assert node.receiver.check.passes(node.port)
        other.execute("ROLLBACK")


@leaks_a_socket
def test_a_receiver_that_does_not_answer_gives_no_sign_of_life(tmp_path: Path) -> None:
    with running(tmp_path / "state") as node:
        assert not node.receiver.check.passes(free_port())
        place = node.state / "ich-node.sqlite"
        place.rename(tmp_path / "away")
        assert not node.receiver.check.passes(node.port)
        (tmp_path / "away").rename(place)


# ------------------------------------------------------------------------------------ the processor that scores


def states(node: PartsOfANode) -> list[str]:
    return [study.series[0].state for study in node.status().studies]


def without_numbers(model: Any) -> Any:
    width = model.engine.weight.shape[1]
    engine = dataclasses.replace(model.engine, embed=lambda images: np.full((len(images), width), np.nan, "f4"))
    return dataclasses.replace(model, engine=engine)


def out_of_memory(_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def gone(_: Any) -> Any:
    raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")


@pytest.mark.parametrize("fault", [out_of_memory, gone])
def test_a_gpu_that_fails_ends_the_worker_and_costs_no_series_an_attempt(
    tmp_path: Path, tiny_model: Any, decoder: Any, fault: Any
) -> None:
    broken = dataclasses.replace(tiny_model, engine=dataclasses.replace(tiny_model.engine, embed=fault))
    values = settings(tmp_path / "state", tmp_path)
    with parts_of_a_node(values, broken, decoder) as node:
        send_study(write_series(tmp_path / "head", HEAD), "127.0.0.1", node.receiver.port, "ICH_NODE", "SCANNER1")
        with pytest.raises(DeviceFailed):
            node.worker.run(threading.Event())
        (study,) = node.status().studies
        (series,) = study.series
        assert (series.state in ("RECEIVING", "COMPLETE"), series.attempts, study.triage) == (True, 0, None)
    with parts_of_a_node(values, tiny_model, decoder) as node:
        assert node.settle().studies[0].series[0].state == "CONCLUDED"


def test_a_series_on_which_the_device_fails_again_lets_the_others_go_first(
    tmp_path: Path, tiny_model: Any, decoder: Any
) -> None:
    broken = dataclasses.replace(tiny_model, engine=dataclasses.replace(tiny_model.engine, embed=gone))
    values = settings(tmp_path / "state", tmp_path)
    with parts_of_a_node(values, broken, decoder) as node:
        send_study(write_series(tmp_path / "head", HEAD), "127.0.0.1", node.receiver.port, "ICH_NODE", "SCANNER1")
        for seconds in (0.0, loop._DEVICE_RETRY_S):
            with pytest.raises(DeviceFailed):
                node.worker.run(threading.Event())
            (series,) = rows(node.database, SeriesRow)
            assert series.not_before == pytest.approx(seconds and time.time() + seconds, abs=5.0)
            assert (series.attempts, series.lease_owner) == (0, None)
            assert series.detail == "torch failed: CUDA error: unspecified launch failure"
        assert not node.worker.step(), "it waits"
    with parts_of_a_node(values, tiny_model, decoder) as node:
        send_study(write_series(tmp_path / "other", OTHER), "127.0.0.1", node.receiver.port, "ICH_NODE", "SCANNER1")
        wait_for(lambda: node.worker.step() and "CONCLUDED" in states(node), "the other is concluded", 60)
        assert set(states(node)) == {"CONCLUDED", "RECEIVING"}
        with node.database.writing() as connection:
            connection.execute(update(SeriesRow).values(not_before=0.0))
        node.settle()
        assert states(node) == ["CONCLUDED"] * 2


def test_a_series_of_which_three_workers_get_no_numbers_is_failed_and_says_so(
    tmp_path: Path, tiny_model: Any, decoder: Any
) -> None:
    values = settings(tmp_path / "state", tmp_path)
    with parts_of_a_node(values, without_numbers(tiny_model), decoder) as node:
        send_study(write_series(tmp_path / "head", HEAD), "127.0.0.1", node.receiver.port, "ICH_NODE", "SCANNER1")
    for number in range(3):
        with parts_of_a_node(values, without_numbers(tiny_model), decoder) as node:
            with pytest.raises(ModelError):
                node.worker.run(threading.Event())
            left = {"lease_owner": f"{socket.gethostname()}:{number + 2**22}:0", "lease_expires_at": time.time() - 1}
            with node.database.writing() as connection:
                connection.execute(update(SeriesRow).values(left))
    with parts_of_a_node(values, tiny_model, decoder) as node:
        (study,) = node.settle().studies
        assert study.series[0].state == "FAILED"
        assert "ANALYSIS_FAILED" in str(study)
        assert (study.triage, study.revision) == (None, 1), "it is told that it was not analysed"


def test_scores_that_are_no_numbers_end_the_worker_and_become_no_answer(
    tmp_path: Path, tiny_model: Any, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonsense = without_numbers(tiny_model)
    values = settings(tmp_path / "state", tmp_path)
    with parts_of_a_node(values, nonsense, decoder) as node:
        send_study(write_series(tmp_path / "head", HEAD), "127.0.0.1", node.receiver.port, "ICH_NODE", "SCANNER1")
        with pytest.raises(ModelError):
            node.worker.run(threading.Event())
        assert node.status().studies[0].triage is None
    monkeypatch.setattr(loop, "open_configured_model", lambda _config: nonsense)
    with pytest.raises(DeviceFailed, match="NaN"):  # status 1: another worker tries, and after three it is FAILED
        loop.run_worker(parse_config(values))
