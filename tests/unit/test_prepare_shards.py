"""Shards made in children: resumed after a kill, whole after a crash, of one plan only."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from ich_node.errors import TrainingError
from ich_node.training.prepare import PrepareSettings, find_phantoms, prepare
from ich_node.training.prepare.lot import Source
from ich_node.training.prepare.plan import begin_or_resume, make_plan, shard_tasks
from ich_node.training.prepare.run import NEAR_DUPLICATE_BITS
from ich_node.training.prepare.watch import Watch, duration, watching
from ich_node.training.prepared import SHARDS, PreparedSet
from tests.training_sources import FatalReader, fatal_source

SETTINGS = PrepareSettings(folds=2, slices_per_shard=24, processes=1)
SLICES = 24 * 6
IN_THE_BACKGROUND = """
from pathlib import Path
from tests.unit.test_prepare_shards import prepare_phantoms
if __name__ == "__main__":
    prepare_phantoms(Path({directory!r}))
"""


def prepare_phantoms(directory: Path, settings: PrepareSettings = SETTINGS) -> PreparedSet:
    return prepare([find_phantoms(SLICES, seed=3, side_px=48)], directory, settings, lambda _: None)


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return prepare_phantoms(tmp_path_factory.mktemp("whole"))


def test_a_set_that_was_killed_and_resumed_is_the_same_byte_for_byte(whole: PreparedSet, tmp_path: Path) -> None:
    script = tmp_path / "background.py"
    script.write_text(IN_THE_BACKGROUND.format(directory=str(tmp_path / "set")))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True)
    _wait_for(tmp_path / "set" / SHARDS / "00001.json", child)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    (tmp_path / "set" / SHARDS / "00004.part").write_bytes(b"half of a shard")
    made = set((tmp_path / "set" / SHARDS).glob("*.json"))

    prepare_phantoms(tmp_path / "set")

    assert 2 <= len(made) < 6, "the kill came in the middle"
    assert files_of(tmp_path / "set") == files_of(whole.directory)


def _wait_for(path: Path, child: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert child.poll() is None, "it ended early"
        assert time.monotonic() < until
        time.sleep(0.01)


def test_other_folds_need_no_slice_to_be_read_again(whole: PreparedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ich_node.training.prepare.run.make_shards", None)

    again = prepare_phantoms(whole.directory, PrepareSettings(folds=3, slices_per_shard=24))

    assert {row.fold for row in again.rows} == {0, 1, 2}
    assert again.manifest.shards == whole.manifest.shards
    assert again.manifest.folds.near_duplicate_bits == NEAR_DUPLICATE_BITS
    prepare_phantoms(whole.directory)  # as it was, for the other tests


def test_a_shard_that_was_deleted_is_made_again(whole: PreparedSet) -> None:
    before = files_of(whole.directory)
    (whole.directory / SHARDS / "00002.safetensors").unlink()

    prepare_phantoms(whole.directory)

    assert files_of(whole.directory) == before


def test_phantoms_have_labels_where_their_lesion_is_and_a_patient_each(whole: PreparedSet) -> None:
    counts = whole.manifest.counts["phantom"]

    assert (counts["slices"], counts["patients"]) == (SLICES, 6)
    assert 0 < counts["any"] < SLICES / 2
    for row in whole.rows:
        assert bool(row.labels[0]) == (row.lesion_mm2 is not None and row.lesion_mm2 >= 10)
        assert sum(row.labels) in (0, 2)


# ---------------------------------------------------------------------------------------------- what goes wrong


def test_a_crash_or_an_endless_slice_costs_one_slice(tmp_path: Path) -> None:
    reader = FatalReader(fatal=frozenset({"image-2"}), endless=frozenset({"image-5"}))
    settings = PrepareSettings(folds=2, slices_per_shard=4, processes=2, seconds_per_item=5.0)

    made = prepare([fatal_source(8, reader)], tmp_path, settings, lambda _: None)

    assert [row.image_id for row in made.rows] == [f"image-{number}" for number in (0, 1, 3, 4, 6, 7)]
    assert {one.image_id: one.reason for one in made.manifest.left_out} == {
        "image-2": "the decoder crashed on this image: exit code -9",
        "image-5": "decoding took longer than allowed",
    }


def test_a_folder_with_another_plan_is_refused(tmp_path: Path) -> None:
    begin_or_resume(make_plan([fatal_source(4, FatalReader())], 4), tmp_path)
    begin_or_resume(make_plan([fatal_source(4, FatalReader())], 4), tmp_path)

    with pytest.raises(TrainingError, match="other sources or settings; give an empty folder"):
        begin_or_resume(make_plan([fatal_source(5, FatalReader())], 4), tmp_path)
    with pytest.raises(TrainingError, match="other sources or settings; give an empty folder"):
        begin_or_resume(make_plan([fatal_source(4, FatalReader())], 2), tmp_path)


def test_a_folder_without_its_plan_or_with_a_damaged_one_is_refused(tmp_path: Path) -> None:
    plan = make_plan([fatal_source(4, FatalReader())], 4)
    (tmp_path / SHARDS).mkdir()
    (tmp_path / SHARDS / "00000.json").touch()
    with pytest.raises(TrainingError, match="is gone; give an empty folder"):
        begin_or_resume(plan, tmp_path)
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(TrainingError, match="delete"):
        begin_or_resume(plan, tmp_path)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(TrainingError, match="wait for it, or end it"):
        prepare([fatal_source(4, FatalReader())], tmp_path, SETTINGS, lambda _: None)


@pytest.mark.parametrize(
    "settings",
    [PrepareSettings(folds=1), PrepareSettings(slices_per_shard=0), PrepareSettings(near_duplicate_bits=40)],
)
def test_settings_out_of_range_are_refused(settings: PrepareSettings, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="settings: give"):
        prepare([fatal_source(4, FatalReader())], tmp_path, settings, lambda _: None)


def test_phantoms_out_of_range_are_refused() -> None:
    with pytest.raises(TrainingError, match="give a count"):
        find_phantoms(0)


def test_sources_without_slices_are_refused() -> None:
    with pytest.raises(TrainingError, match="no slice to prepare; give"):
        make_plan([Source(())], 4)


def test_an_image_of_two_sources_is_taken_from_the_first() -> None:
    plan = make_plan([fatal_source(3, FatalReader()), fatal_source(5, FatalReader())], 2)

    tasks = list(shard_tasks(plan, Path("set"), 1.0))

    assert [[item.image_id for item in task.lot.items] for task in tasks] == [
        ["image-0", "image-1"], ["image-2"], ["image-3", "image-4"],
    ]  # fmt: skip
    assert [one.image_id for one in plan.left_out] == ["image-0", "image-1", "image-2"]


# -------------------------------------------------------------------------------------------------- progress


def test_progress_is_told_in_lines_with_speed_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 4.0] + [20.0] * 20)
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    stream = io.StringIO()
    watch = Watch(total=1000, processes=2)

    with watching(watch, stream) as tell:
        tell(100, 100)
        tell(100, 99)

    assert stream.getvalue() == "200 of 1,000 slices, 10.0 slices/s, 1 min left\n"
    assert "with 2 processes: 10.0 slices/s, 5.0 per process; all 752,803 of RSNA 2019" in watch.summary()


@pytest.mark.parametrize(("seconds", "text"), [(12.4, "12 s"), (1800, "30 min"), (9000, "2 h 30 min")])
def test_durations_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
