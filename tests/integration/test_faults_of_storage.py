"""Disk without inodes, read-only, failing; database locked, damaged, deleted: what the sender gets, and what lasts."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from ich_node.config import parse_config
from ich_node.database import InstanceRow, open_database
from ich_node.errors import SpoolFull
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.rebuild import rebuild
from ich_node.stored_files import local
from ich_node.worker import Worker
from tests.ct_series import ct_slice
from tests.integration.receiving import association, encoded, files_in, running, send, store_bytes
from tests.running import NodeProcesses, leaks_a_socket, parts_of_a_node, settings, wait_for
from tests.shims import compile_shim
from tests.unit.queueing import rows

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700


def big_slice(number: int) -> Dataset:
    pixels = bytes([number % 256, number // 256]) * (512 * 512)
    return ct_slice(number, Rows=512, Columns=512, PixelData=pixels)


def store(port: int, *numbers: int) -> list[int | None]:
    return send(port, *(big_slice(number) for number in numbers))


def whole(state: Path, accepted: int) -> None:
    """See that there are as many files as successes, and no half-written one."""
    files = files_in(state)
    assert not [path for path in files if path.suffix != ".dcm"]
    assert len(files) == accepted


# ------------------------------------------------------------------------------------------------ the disk


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """A small disk of its own; skipped where nothing may be mounted."""
    mount = shutil.which("mount")
    folder.mkdir()
    made = mount and os.geteuid() == 0 and subprocess.run(
        [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )  # fmt: skip
    if not made or made.returncode:
        pytest.skip("only root may mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_without_room_for_another_file_is_told_for_each_image(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=64m,nr_inodes=290") as disk, running(disk / "state") as node:
        statuses = store(node.port, *range(40))
        accepted = statuses.count(SUCCESS)
        assert set(statuses) == {SUCCESS, OUT_OF_RESOURCES}
        assert statuses == [SUCCESS] * accepted + [OUT_OF_RESOURCES] * (40 - accepted)
        whole(disk / "state", accepted)
        for path in files_in(disk / "state")[:6]:
            path.unlink()
        assert store(node.port, 100, 101) == [SUCCESS, SUCCESS]  # by the same process


def test_a_disk_that_becomes_read_only_is_told_and_used_again_when_it_is_not(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with tmpfs(state / "spool", "size=32m") as spool, running(state) as node:
        assert store(node.port, 1) == [SUCCESS]
        subprocess.run(["mount", "-o", "remount,ro", str(spool)], check=True)
        assert store(node.port, 2, 3) == [OUT_OF_RESOURCES] * 2
        subprocess.run(["mount", "-o", "remount,rw", str(spool)], check=True)
        whole(state, 1)
        assert store(node.port, 2, 3) == [SUCCESS] * 2


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes an fsync fail."""
    return compile_shim("fsync_eio", tmp_path_factory.mktemp("shim"))


@leaks_a_socket
@pytest.mark.parametrize(
    "file",
    [pytest.param("/spool/", id="image"), pytest.param("ich-node.sqlite-wal", id="database", marks=pytest.mark.slow)],
)
def test_an_fsync_that_fails_once_ends_the_receiver_and_is_never_success(
    tmp_path: Path, shim: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    trigger, state = tmp_path / "trigger", tmp_path / "state"
    with monkeypatch.context() as preloading:
        preloading.setenv("LD_PRELOAD", str(shim))
        preloading.setenv("FAULT_TRIGGER", str(trigger))
        preloading.setenv("FAULT_PATH", file)
        node = NodeProcesses(tmp_path, settings(state, tmp_path), roles=("receive",)).__enter__()
    try:
        assert store(node.port, 1) == [SUCCESS]
        trigger.touch()
        with association(node.port) as to:
            answers = [store_bytes(to, encoded(big_slice(n)), instance_uid=big_slice(n).SOPInstanceUID) for n in (2, 3)]
        assert answers[0] == OUT_OF_RESOURCES
        assert SUCCESS not in answers  # the second finds a receiver that stores nothing any more, or none
        assert node.processes["receive"].wait(60) == 1
        assert "the disk or the database failed" in node.log("receive").read_text()
        node.restart("receive")
        assert store(node.port, 2, 3) == [SUCCESS] * 2
        hashes = {hashlib.sha256(encoded(big_slice(n))).hexdigest() for n in (1, 2, 3)}
        assert known(node) == hashes
    finally:
        node.__exit__()


def known(node: NodeProcesses) -> set[str]:
    database = open_database(node.config.database_url)
    try:
        return {row.sha256 for row in rows(database, InstanceRow) if row.path}
    finally:
        database.close()


# -------------------------------------------------------------------------------------------- the database


@contextmanager
def locked(database: Path, held_s: float) -> Iterator[threading.Event]:
    """Hold the database as another program would, for a while; the event says that it is about to be let go."""
    over, began = threading.Event(), threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            began.set()
            time.sleep(held_s)
            over.set()
            connection.execute("ROLLBACK")

    thread = threading.Thread(target=hold)
    thread.start()
    assert began.wait(30)
    try:
        yield over
    finally:
        thread.join()


def check_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, busy_timeout_s: float, held_s: float, *, patient: bool
) -> None:
    with running(tmp_path / "state", database={"busy_timeout_s": busy_timeout_s}) as node:
        assert store(node.port, 1) == [SUCCESS]
        with locked(tmp_path / "state/ich-node.sqlite", held_s) as over:
            statuses = store(node.port, 2)
            assert statuses == [SUCCESS if patient else OUT_OF_RESOURCES]
            assert over.is_set() is patient
        assert ("object refused" in caplog.text) is not patient
        whole(tmp_path / "state", 2 if patient else 1)
        assert store(node.port, 2, 3) == [SUCCESS] * 2
        whole(tmp_path / "state", 3)


@pytest.mark.parametrize(("timeout_s", "held_s", "patient"), [(20.0, 1.0, True), (0.5, 4.0, False)])
def test_a_locked_database_is_waited_for_and_then_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, timeout_s: float, held_s: float, patient: bool
) -> None:
    check_lock(tmp_path, caplog, timeout_s, held_s, patient=patient)


@pytest.mark.slow
@pytest.mark.parametrize(("held_s", "patient"), [(1.0, True), (20.0, True), (60.0, False), (120.0, False)])
def test_a_locked_database_with_the_timeout_that_sites_have(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, held_s: float, patient: bool
) -> None:
    check_lock(tmp_path, caplog, 30.0, held_s, patient=patient)


@pytest.mark.parametrize("held_s", [6.0, *(pytest.param(held_s, marks=pytest.mark.slow) for held_s in (30.0, 120.0))])
def test_all_roles_outlast_a_lock_in_the_middle_of_a_study(tmp_path: Path, tiny_bundle: Path, held_s: float) -> None:
    """With ``held_s`` of 30 and 120 as sites have it; each role waits, says so, and goes on as the same process."""
    files = write_series(tmp_path / "head", PhantomSettings(slices=12, rows=64, slice_spacing_mm=11.0))
    uid = str(dcmread(files[0]).StudyInstanceUID)
    with SmallPacs(tmp_path / "pacs") as pacs:
        values = settings(
            tmp_path / "state", tiny_bundle, destinations=[("pacs", pacs.port)],
            series={"quiet_s": 2.0, "max_wait_s": 30.0}, database={"busy_timeout_s": 30.0 if held_s > 10 else 1.0},
        )  # fmt: skip
        with NodeProcesses(tmp_path, values) as node:
            send_study(files[:6], "127.0.0.1", node.port, "ICH_NODE", "SCANNER1")
            wait_for(lambda: node.status(uid).studies[0].series[0].planes, "it is being scored", 60)
            with locked(tmp_path / "state/ich-node.sqlite", held_s) as over:
                over.wait()
            send_study(files[6:], "127.0.0.1", node.port, "ICH_NODE", "SCANNER1")
            study = node.wait_settled(uid, 120)
            assert [process.poll() for process in node.processes.values()] == [None] * 3
        assert [(one.state, one.planes) for one in study.series] == [("CONCLUDED", len(files))]
        assert [one.state for one in study.deliveries] == ["DELIVERED"]
        assert len(list((tmp_path / "pacs").glob("*/*.dcm"))) == 1


@leaks_a_socket
@pytest.mark.parametrize(("how", "status"), [("deleted", 78), pytest.param("overwritten", 1, marks=pytest.mark.slow)])
def test_a_database_lost_while_the_node_runs_loses_no_image_that_was_accepted(
    tmp_path: Path, how: str, status: int
) -> None:
    values = settings(tmp_path / "state", tmp_path)
    place = tmp_path / "state/ich-node.sqlite"
    accepted = [1, 2]
    with NodeProcesses(tmp_path, values, roles=("receive",)) as node:
        assert store(node.port, *accepted) == [SUCCESS] * 2
        if how == "deleted":
            for path in place.parent.glob("ich-node.sqlite*"):
                path.unlink()
            assert store(node.port, 3) == [OUT_OF_RESOURCES]
            assert node.processes["receive"].wait(60) == 1
        else:
            empty_the_log(place)  # or it would mend it all
            place.write_bytes(os.urandom(place.stat().st_size))
            accepted += [3] if store(node.port, 3) == [SUCCESS] else []  # from pages in memory, for a while
            node.kill("receive")
        node.start("receive")
        assert node.processes["receive"].wait(60) == status, "78: the state folder knows of a database that is gone"
        assert "ich-node rebuild" in node.log("receive").read_text()
        rebuild(parse_config(values))
        node.restart("receive")
        hashes = {hashlib.sha256(encoded(big_slice(n))).hexdigest() for n in accepted}
        assert hashes <= known(node)
        assert store(node.port, 1, 2, 3, 4) == [SUCCESS] * 4


def empty_the_log(place: Path) -> None:
    with closing(sqlite3.connect(place, isolation_level=None)) as connection:
        truncate = "PRAGMA wal_checkpoint(TRUNCATE)"
        wait_for(lambda: connection.execute(truncate).fetchone()[0] == 0, "the log is empty")


def test_a_report_that_cannot_be_saved_now_is_saved_later_and_no_fault_of_its_series(
    tmp_path: Path, tiny_model: Any, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_series(tmp_path / "head", PhantomSettings(slices=12, rows=64, slice_spacing_mm=11.0))
    with parts_of_a_node(settings(tmp_path / "state", tmp_path), tiny_model, decoder) as node:
        send_study(files, "127.0.0.1", node.receiver.port, "ICH_NODE", "SCANNER1")
        with monkeypatch.context() as full:
            full.setattr(local, "write_durably", no_room)
            for _ in range(5):
                wait_for(lambda: cannot_save(node.worker), "a report that cannot be saved")
        (series,) = node.status().studies[0].series
        assert (series.state, series.attempts) == ("COMPLETE", 0)
        assert node.settle().studies[0].series[0].state == "CONCLUDED"


def cannot_save(worker: Worker) -> bool:
    try:
        worker.step()
    except SpoolFull:
        return True
    return False


def no_room(*_: Any) -> None:
    raise SpoolFull("no space left on the disk")
