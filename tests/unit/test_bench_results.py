"""The one table of `make bench`: targets, and two runs side by side."""

import json
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.results import Row, compare, keep, print_rows


def test_a_ratio_below_its_target_is_counted_and_marked(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row("decode", "slices/s", [10.0, 30.0, 20.0], "another", [5.0], target_ratio=4.5),
        Row("decode again", "slices/s", [10.0], "another", [5.0], limit=100.0, limit_of="bytes", target_ratio=2.0),
        Row("alone", "slices/s", [1.0], target_ratio=1.0),
        Row("GPU", "slices/s", [], "another", target_ratio=1.0, why_not="no CUDA device"),
    ]
    assert print_rows(rows) == 1
    slow, good, alone, without = capsys.readouterr().out.splitlines()[-4:]
    assert "20.0 (10.0-30.0)" in slow
    assert "| ≥ 4.5 x **missed** |" in slow
    assert "missed" not in good
    assert "10 %" in good
    assert alone.count("not measured") == 2
    assert "| not measured (no CUDA device) |" in without
    assert "missed" not in without


def test_two_runs_are_put_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    not_there = Row("GPU", "slices/s", [], "another", why_not="no CUDA device")
    old = keep([Row("decode", "slices/s", [10.0], "another", [5.0]), Row("gone", "slices/s", [1.0]), not_there])
    old = old.rename(tmp_path / "old.json")
    on_gpu = Row("GPU", "slices/s", [8.0], "another", [2.0])
    new = keep([Row("decode", "slices/s", [15.0], "another", [5.0]), Row("fresh", "slices/s", [2.0]), on_gpu])
    assert json.loads(new.read_text())["rows"][0]["here"] == [15.0]
    compare([str(old), str(new)])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[-4:]]
    assert lines == [
        ["decode", "slices/s", "10.0", "15.0", "1.50", "2.00", "3.00"],
        ["fresh", "slices/s", "", "2.0", "", "", ""],
        ["GPU", "slices/s", "", "8.0", "", "", "4.00"],
        ["gone", "slices/s", "1.0", "", "", "", ""],
    ]
