"""An archive becomes a table of scores: equal to those of `score`, once for each series, whatever happens meanwhile."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from pydicom import dcmread

from ich_node.archive_scoring.progress import Progress
from ich_node.archive_scoring.ray_pool import RayPool
from ich_node.archive_scoring.running import ArchiveSummary, ArchiveTask, score_archive
from ich_node.archive_scoring.scorer import SeriesScorer
from ich_node.cli import main
from ich_node.decode import DecoderPool
from ich_node.errors import BulkScoringStopped, DeviceFailed, StartError
from ich_node.failpoint import BY_A_TEST, FAILPOINT, MAY_BE_KILLED
from ich_node.phantom import write_series
from ich_node.pipeline import Model
from ich_node.records import HEMORRHAGE_CLASSES, ArchivedSeries, ModelIdentity
from ich_node.role_lock import holding_role
from ich_node.score_table import ScoreRow
from tests.archives import HEAD, rows_of, setup_of, task_of, write_heads, zip_up
from tests.running import free_port

ROOT = Path(__file__).parents[2]
FIRST = "0001.dcm"


@dataclass
class Bulk:
    """Bulk scoring with the session's model and decoder, which counts what is scored."""

    model: Model
    decoder: DecoderPool
    digest: str = "one model"
    scored: list[str] = field(default_factory=list)
    before: Callable[[ArchivedSeries], None] = lambda _: None

    def __call__(self, task: ArchiveTask) -> ArchiveSummary:
        scorer = SeriesScorer(setup_of(Path()), self.model, self.decoder)

        def score(series: ArchivedSeries) -> ScoreRow:
            self.before(series)
            self.scored.append(series.study_instance_uid)
            return scorer.score(series)

        return score_archive(task, self.digest, self.decoder, lambda all_: map(score, all_), Progress(io.StringIO()))


@pytest.fixture
def bulk(tiny_model: Model, decoder: DecoderPool) -> Bulk:
    return Bulk(tiny_model, decoder)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Four heads, one of them in a zip file with odd names, and two files that are no images."""
    folder = tmp_path / "archive"
    write_heads(folder)
    zip_up(folder / "head2", folder / "two.zip", "../../../")
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "empty.dcm").touch()
    return folder


def test_a_table_says_what_score_says_and_names_bad_files(
    tmp_path: Path,
    archive: Path,
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # where no configuration is
    model = ["--model", str(tiny_bundle), "--engine", "torch", "--test-model"]
    write_heads(tmp_path / "plain")
    assert main(["score", "plain", "--json", *model]) == 0
    expected = {one["study_instance_uid"]: one for one in json.loads(capsys.readouterr().out)}

    assert main(["score-archive", "archive", "--scores", "scores.parquet", "--part", "3", *model]) == 1, "bad files"

    said = capsys.readouterr()
    assert "4 series, 4 analysed, 0 not analysed, 0 failed; 0 of them were scored before" in said.out
    assert "4 of 4 series" in said.err
    rows = rows_of(tmp_path / "scores.parquet")
    assert [row["study_instance_uid"] for row in rows] == sorted(expected)
    for row in rows:
        entry = expected[row["study_instance_uid"]]
        assert (row["analysed"], row["triage"], row["complete"]) == (True, entry["triage"], entry["complete"])
        for name in HEMORRHAGE_CLASSES:
            assert row[f"probability_{name}"] == pytest.approx(entry["probabilities"][name], abs=0.001)
            assert row[f"threshold_high_{name}"] == entry["thresholds"][name]["high"]
        assert [one["any"] for one in row["slices"]] == [
            pytest.approx(one["probabilities"]["any"], abs=0.001) for one in entry["slices"]
        ]
        assert row["model_sha256"] == entry["model"]["sha256"]
        header = dcmread(tmp_path / "plain" / f"head{row['study_instance_uid'][-1]}" / FIRST)
        assert (row["files"], row["slice_thickness_mm"], row["sex"]) == (12, header.SliceThickness, header.PatientSex)
        assert (row["station_name"], row["age_years"]) == (header.get("StationName", ""), int(header.PatientAge[:3]))
    assert (tmp_path / "scores.parquet").stat().st_mode & 0o077 == 0
    bad = (tmp_path / "scores.parquet.bad.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in bad] == ["path", f"{archive}/empty.dcm", f"{archive}/notes.txt"]
    assert not list((tmp_path / "scores.parquet.work" / "unpacked").iterdir())


def test_a_second_run_scores_nothing_and_a_changed_model_everything(tmp_path: Path, archive: Path, bulk: Bulk) -> None:
    task = task_of(tmp_path, archive)
    assert bulk(task) == ArchiveSummary(series=4, scored_before=0, analysed=4, failed=0, bad_files=2)
    first = rows_of(task.scores)
    assert bulk(task) == ArchiveSummary(series=4, scored_before=4, analysed=4, failed=0, bad_files=2)
    assert len(bulk.scored) == 4
    assert rows_of(task.scores) == first

    bulk.digest = "another model"
    assert bulk(task).scored_before == 0
    assert len(bulk.scored) == 8
    again = rows_of(task.scores)
    assert len(again) == 4
    assert {row["fingerprint"] for row in again}.isdisjoint({row["fingerprint"] for row in first})


def test_changed_added_and_deleted_files_are_noticed(tmp_path: Path, archive: Path, bulk: Bulk) -> None:
    task = task_of(tmp_path, archive)
    bulk(task)
    bulk.scored.clear()
    changed = archive / "head1" / FIRST
    dataset = dcmread(changed)
    dataset.StationName = "CT2"
    dataset.save_as(changed)
    shutil.rmtree(archive / "head0")
    write_series(archive / "new", replace(HEAD, study_instance_uid="1.2.5.9"))
    (archive / "notes.txt").unlink()

    summary = bulk(task)

    assert bulk.scored == ["1.2.5.1", "1.2.5.9"]
    assert (summary.series, summary.scored_before, summary.bad_files) == (4, 2, 1)
    assert [row["study_instance_uid"] for row in rows_of(task.scores)] == ["1.2.5.1", "1.2.5.2", "1.2.5.3", "1.2.5.9"]
    assert rows_of(task.scores)[0]["station_name"] == "CT2"


def test_what_was_scored_survives_the_loss_of_the_index(tmp_path: Path, archive: Path, bulk: Bulk) -> None:
    task = task_of(tmp_path, archive)
    bulk(task)
    for one in task.work.glob("index.sqlite*"):
        one.unlink()
    assert bulk(task).scored_before == 4
    assert len(bulk.scored) == 4


def test_a_lost_part_is_scored_again_and_no_other(tmp_path: Path, archive: Path, bulk: Bulk) -> None:
    task = task_of(tmp_path, archive)
    bulk(task)
    (task.work / "parts" / "scored-00000001.parquet").unlink()
    bulk.scored.clear()
    assert bulk(task).scored_before == 2
    assert bulk.scored == ["1.2.5.0", "1.2.5.1"]
    assert len(rows_of(task.scores)) == 4


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was_and_scores_nothing_twice(
    tmp_path: Path,
    archive: Path,
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["score-archive", "archive", "--scores", "scores.parquet", "--part", "1", "--test-model"]
    words += ["--model", str(tiny_bundle), "--engine", "torch"]
    program = (
        "import os, sys; from ich_node.failpoint import arm; from ich_node.cli import main;"
        "assert arm(os.environ); sys.exit(main(sys.argv[1:]))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), MAY_BE_KILLED: BY_A_TEST, FAILPOINT: "file-before-rename:3"}
    killed = subprocess.run([sys.executable, "-c", program, *words], env=environment, check=False, timeout=200)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "scores.parquet").exists()
    parts = sorted((tmp_path / "scores.parquet.work" / "parts").iterdir())
    assert [one.name for one in parts] == [
        "scored-00000001.parquet", "scored-00000002.parquet", "scored-00000003.part",
    ]  # fmt: skip
    kept = [row for part in parts[:2] for row in rows_of(part)]

    assert main(words) == 1

    assert "2 of them were scored before" in capsys.readouterr().out
    rows = rows_of(tmp_path / "scores.parquet")
    assert [row["study_instance_uid"] for row in rows] == ["1.2.5.0", "1.2.5.1", "1.2.5.2", "1.2.5.3"]
    assert rows[:2] == kept, "with the seconds that the first run took"


def test_what_was_scored_is_kept_where_the_processor_fails_and_what_is_half_written_is_put_aside(
    tmp_path: Path, archive: Path, bulk: Bulk
) -> None:
    def fail(series: ArchivedSeries) -> None:
        if series.study_instance_uid == "1.2.5.1":
            raise DeviceFailed("out of memory")

    task = task_of(tmp_path, archive)
    bulk.before = fail
    with pytest.raises(DeviceFailed):
        bulk(task)
    assert not task.scores.exists()
    half_written = task.work / "parts" / "scored-00000002.part"
    half_written.write_bytes(b"PAR1")
    (task.unpacked / "left").write_bytes(b"an image")
    bulk.before = lambda _: None
    assert bulk(task).scored_before == 1
    assert not half_written.exists()
    assert not list(task.unpacked.iterdir())
    assert len(rows_of(task.scores)) == 4
    assert bulk.scored == ["1.2.5.0", "1.2.5.1", "1.2.5.2", "1.2.5.3"]


def test_a_poison_series_stops_no_other_and_is_tried_again_by_the_next_run(
    tmp_path: Path, archive: Path, bulk: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ich_node.archive_scoring import scorer

    def fails(*arguments: object) -> object:
        if bulk.scored[-1] == "1.2.5.1":
            raise RuntimeError("Doe^Jane")
        return scores(*arguments)

    scores = scorer.score_paths
    monkeypatch.setattr(scorer, "score_paths", fails)
    task = task_of(tmp_path, archive)
    summary = bulk(task)
    assert (summary.analysed, summary.failed) == (3, 1)
    (failed,) = [row for row in rows_of(task.scores) if row["failed"]]
    assert (failed["analysed"], failed["triage"], failed["not_analysed_reason"]) == (
        False, None, "scoring failed (RuntimeError)",
    )  # fmt: skip

    monkeypatch.undo()
    bulk.scored.clear()
    assert bulk(task).failed == 0
    assert bulk.scored == ["1.2.5.1"]
    assert [row["analysed"] for row in rows_of(task.scores)] == [True] * 4


def test_where_series_after_series_fails_the_run_stops(tmp_path: Path, decoder: DecoderPool) -> None:
    write_heads(tmp_path / "archive", 1)
    head = tmp_path / "archive" / "head0"
    first = head / FIRST
    for number in range(25):
        dataset = dcmread(first)
        dataset.SeriesInstanceUID = f"1.2.6.{number}"
        dataset.save_as(head / f"{number}.dcm")
    row = {"failed": True, "analysed": False, "not_analysed_reason": "scoring failed (OSError)", "unread": []}

    def fail_all(series: Iterator[ArchivedSeries]) -> Iterator[ScoreRow]:
        for one in series:
            uids = {"study_instance_uid": one.study_instance_uid, "series_instance_uid": one.series_instance_uid}
            yield row | uids | {"fingerprint": one.fingerprint}

    with pytest.raises(BulkScoringStopped, match=r"20 series in a row could not be scored; .*OSError"):
        score_archive(task_of(tmp_path, head), "", decoder, fail_all, Progress(io.StringIO()))


def test_a_damaged_member_makes_its_series_incomplete_and_is_named(tmp_path: Path, bulk: Bulk) -> None:
    write_heads(tmp_path / "archive", 1)
    zip_up(tmp_path / "archive" / "head0", tmp_path / "archive" / "one.zip")
    content = bytearray((tmp_path / "archive" / "one.zip").read_bytes())
    middle = len(content) // 2  # in the packed pixels of a slice: header and directory stay readable
    content[middle : middle + 4] = bytes(one ^ 0xFF for one in content[middle : middle + 4])
    (tmp_path / "archive" / "one.zip").write_bytes(content)

    task = task_of(tmp_path, tmp_path / "archive")
    summary = bulk(task)

    assert (summary.series, summary.bad_files) == (1, 1)
    (row,) = rows_of(task.scores)
    assert not row["complete"]
    assert row["triage"] != "negative"
    (unread,) = row["unread"]
    assert unread["why"].startswith("damaged within the zip file")
    assert f"{unread['name']},damaged within the zip file" in task.bad.read_text()


def test_no_value_of_a_header_is_in_the_list_of_bad_files(tmp_path: Path, bulk: Bulk) -> None:
    write_heads(tmp_path / "archive", 1)
    first, second, *_ = sorted((tmp_path / "archive" / "head0").iterdir())
    dataset = dcmread(first)
    dataset.PatientName = "Canary^Jane"
    del dataset.SeriesInstanceUID
    dataset.save_as(first)
    dataset = dcmread(second)
    dataset.PatientName = "Canary^Jane"
    dataset.PixelData = dataset.PixelData[:100]
    dataset.save_as(second)
    task = task_of(tmp_path, tmp_path / "archive")
    assert bulk(task).bad_files == 2
    told = task.bad.read_text()
    assert [line.split(",")[0] for line in told.splitlines()[1:]] == [str(first), str(second)]
    assert "Canary" not in told
    assert b"Canary" not in task.scores.read_bytes()


def test_two_runs_on_one_folder_do_not_meet(
    tmp_path: Path, archive: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["score-archive", str(archive), "--scores", str(tmp_path / "s.parquet"), "--model", str(tiny_bundle)]
    with holding_role(tmp_path / "s.parquet.work", "score-archive"):
        assert main(words) == 78
    assert "another `ich-node score-archive` works on it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gone", "--scores", "s.parquet"], "gone: no such file or folder"),
        ([".", "--scores", "gone/s.parquet"], "gone: no such folder"),
        ([".", "--scores", "."], "is a folder"),
        ([".", "--scores", "s.parquet", "--workers", "2"], "--workers is for --ray"),
    ],
)
def test_wrong_words_are_told(
    tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["score-archive", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_where_parquet_cannot_be_written_it_is_said_what_to_install(tmp_path: Path) -> None:
    words = ["score-archive", str(tmp_path), "--scores", str(tmp_path / "s.parquet")]
    program = "import sys; sys.modules['pyarrow'] = None; from ich_node.cli import main; sys.exit(main(sys.argv[1:]))"
    ended = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith("ich-node: pyarrow is missing")
    assert "pip install 'ich-node[scale]'" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_where_ray_cannot_be_had_it_is_said_what_to_do(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "as before")
    monkeypatch.setitem(sys.modules, "ray", None)
    identity, series = ModelIdentity("tiny", "1", "ab", trained=False), ArchivedSeries("1.2", "1.3", "", ())
    pool = RayPool(setup_of(tiny_bundle), identity, "", None)
    assert list(pool.score(iter(()))) == [], "nothing to score needs no cluster"
    with pytest.raises(StartError, match=r"pip install 'ich-node\[scale\]'"):
        next(pool.score(iter([series])))
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(StartError, match=f"the Ray cluster at {address} cannot be reached: Connection refused"):
        next(RayPool(setup_of(tiny_bundle), identity, address, None).score(iter([series])))
