"""The power fails: what was answered, delivered and told before is still so. And the check sees where it is not."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.provoked import Provoked, tell
from tests.torture.cuts import CutCampaign, CutTally, Recording, record
from tests.torture.fork_server import ForkServer, build_shim
from tests.torture.invariants import judge
from tests.torture.peers import ALERTS, ANSWERS, COMMITMENTS, REPORTS, read_notes
from tests.torture.replay import Record, cut, every_sync, no_sync, read_journal, syncs_of_normal

_CUTS = 14


@pytest.fixture(scope="module")
def recording(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(fork_server, tmp_path_factory.mktemp("recording"), studies=2)


@pytest.mark.timeout(900)
def test_after_a_power_cut_at_any_place_everything_promised_before_it_holds(
    request: pytest.FixtureRequest, fork_server: ForkServer, recording: Recording, tmp_path: Path
) -> None:
    tally = CutTally()
    CutCampaign(fork_server, recording, tmp_path, tally, seed=1).run(recording.places(_CUTS, seed=1), every_sync)
    assert tally.violations == []
    assert tally.cuts == _CUTS
    assert tally.answered > 0
    what = f"power cuts; {tally.answered} objects answered with success before them"
    tell(request, Provoked(what, tally.cuts, tally.lost, "no answer"))


@pytest.mark.timeout(900)
def test_the_check_notices_that_fsync_does_nothing(
    fork_server: ForkServer, recording: Recording, tmp_path: Path
) -> None:
    tally = CutTally()
    places = recording.after_notes(ANSWERS)[5:]
    CutCampaign(fork_server, recording, tmp_path, tally, seed=2).run(
        places, no_sync, settles=False, enough=lambda: bool(tally.caught)
    )
    assert tally.caught == 1


@pytest.mark.timeout(900)
def test_the_check_notices_that_the_database_syncs_only_now_and_then(
    fork_server: ForkServer, recording: Recording, tmp_path: Path
) -> None:
    tally = CutTally()
    places = recording.after_notes(REPORTS, ALERTS)
    CutCampaign(fork_server, recording, tmp_path, tally, seed=3).run(
        places, syncs_of_normal, enough=lambda: bool(tally.caught)
    )
    assert tally.caught == 1


# --------------------------------------------------------------------------------- the check is not blind


def spool_file(state: Path) -> Path:
    return next(state.glob("spool/*/*.dcm"))


def change_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


def change_note(witness: Path, name: str, **fields: object) -> None:
    notes = read_notes(witness / name)
    with (witness / name).open("a") as file:
        file.write(json.dumps(notes[0] | fields) + "\n")


def sql(state: Path, statement: str) -> None:
    with closing(sqlite3.connect(state / "ich-node.sqlite")) as connection, connection:
        connection.execute(statement)


FAULTS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a file is gone": (lambda state, _: spool_file(state).unlink(), "no such file"),
    "a byte is another": (
        lambda state, _: change_last_byte(spool_file(state)), "no such file"),
    "a row is gone": (lambda state, _: sql(state, "DELETE FROM instance WHERE id = 1"), "no row"),
    "a file is there twice": (
        lambda state, _: shutil.copy(spool_file(state), state / "spool/ab/copy.dcm"), "no row speaks of"),
    "half a file is left": (lambda state, _: (state / "spool/ab/x.part").write_bytes(b""), "half-written"),
    "an image in another study": (
        lambda state, _: sql(state, "UPDATE instance SET series_id = 2 WHERE id = 1"), "in another study"),
    "a series never ends": (
        lambda state, _: sql(state, "UPDATE series SET state = 'COMPLETE' WHERE id = 1"), "COMPLETE"),
    "a report never came": (lambda _, witness: (witness / REPORTS).write_text(""), "no report in the PACS"),
    "a repeat is another report": (
        lambda _, witness: change_note(witness, REPORTS, sha256="other"), "the same UID with other content"),
    "a second report of one revision": (
        lambda state, witness: (
            sql(state, "UPDATE result SET sop_instance_uid = '2.25.7' WHERE study_id = 1 AND preference = 1"),
            change_note(witness, REPORTS, uid="2.25.7"),
        ), "reports of one revision"),
    "a report names another patient": (
        lambda _, witness: (witness / REPORTS).write_text(
            "".join(json.dumps(one | {"patient": "OTHER"}) + "\n" for one in read_notes(witness / REPORTS))
        ), "another patient"),
    "a delivery is not committed": (
        lambda state, _: sql(state, "UPDATE delivery SET state = 'DELIVERED' WHERE id = 1"), "not committed but"),
    "committed of itself": (lambda _, witness: (witness / COMMITMENTS).write_text(""), "the PACS never said so"),
    "an answer of storage commitment is gone": (
        lambda state, _: sql(state, "DELETE FROM commitment_report WHERE id = 1"), "was taken and is not there"),
    "nobody was told": (lambda _, witness: (witness / ALERTS).write_text(""), "never told"),
    "an alert again by another name": (
        lambda _, witness: change_note(witness, ALERTS, identifier="X"), "no row speaks"),
    "told of another patient": (lambda _, witness: change_note(witness, ALERTS, patient="OTHER"), "another patient"),
    "the database is damaged": (
        lambda state, _: damage(state / "ich-node.sqlite"), "damaged"),
}  # fmt: skip


def damage(database: Path) -> None:
    content = bytearray(database.read_bytes())
    page = 4096 * (len(content) // 4096 // 2)
    content[page : page + 4096] = bytes(4096)
    database.write_bytes(content)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_sees_that(fault: str, recording: Recording, tmp_path: Path) -> None:
    state, witness = tmp_path / "state", tmp_path / "witness"
    shutil.copytree(recording.state, state)
    shutil.copytree(recording.witness, witness)
    assert judge(state, witness, recording.studies).violations == []
    provoke, words = FAULTS[fault]
    provoke(state, witness)
    assert any(words in text for text in judge(state, witness, recording.studies).violations)


# ------------------------------------------------------------------------------------ shim and replay


def done(kind: str, path: str, data: bytes = b"", number: int = 0, other: str = "") -> Record:
    return Record(kind, 1, f"/was/{path}" if path else "/was", f"/was/{other}" if other else "", number, data)


def left_by(records: list[Record], folder: Path) -> list[dict[str, bytes]]:
    """What fifty cuts after all records may leave."""
    found = []
    for seed in range(50):
        root = folder / str(seed)
        root.mkdir()
        cut(records, len(records), root, Path("/was"), seed)
        found.append({path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()})
    return found


def test_a_file_that_was_synced_in_a_folder_that_was_is_always_there(tmp_path: Path) -> None:
    records = [done("C", "a.part"), done("W", "a.part", b"x" * 2000), done("S", "a.part"),
               done("R", "a.part", other="a"), done("S", "")]  # fmt: skip
    assert left_by(records, tmp_path) == [{"a": b"x" * 2000}] * 50


def test_a_rename_without_a_sync_of_the_folder_may_be_lost_and_a_write_without_one_may_be_torn(tmp_path: Path) -> None:
    renamed = left_by([done("C", "a.part"), done("S", ""), done("R", "a.part", other="a")], tmp_path)
    assert {tuple(one) for one in renamed} == {("a.part",), ("a",)}
    (tmp_path / "torn").mkdir()
    torn = left_by([done("C", "a"), done("S", ""), done("W", "a", b"x" * 2000)], tmp_path / "torn")
    assert {b"", b"x" * 2000} < {one["a"] for one in torn}


def test_the_shim_records_what_a_process_does_with_its_files(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    code = f"""
import ctypes, os, sqlite3
from pathlib import Path
ctypes.CDLL(None).torture_record(b"{tmp_path}/journal", b"{state}")
from ich_node.durable import write_durably
write_durably(Path("{state}/a.dcm"), [b"one", b"two"])
connection = sqlite3.connect("{state}/b.sqlite")
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("CREATE TABLE t (x)")
connection.commit()
os.kill(os.getpid(), 9)
"""
    environment = os.environ | {"LD_PRELOAD": str(build_shim(tmp_path)), "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    records = read_journal(tmp_path / "journal")
    of_the_file = [(one.kind, Path(one.path).name) for one in records if "sqlite" not in one.path]
    assert of_the_file[:5] == [("C", "a.part"), ("W", "a.part"), ("S", "a.part"), ("R", "a.part"), ("S", "state")]
    assert any(one.kind == "S" and one.path.endswith("b.sqlite-wal") for one in records)
    for seed in range(20):
        image = tmp_path / f"image-{seed}"
        image.mkdir()
        cut(records, len(records), image, state, seed)
        assert (image / "a.dcm").read_bytes() == b"onetwo"
