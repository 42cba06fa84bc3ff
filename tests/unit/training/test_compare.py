"""Several backbones on the same folds and budget."""

from pathlib import Path

import pytest

from ich_node.errors import TrainingError
from ich_node.training.compare import as_markdown, compare
from ich_node.training.fit import make_settings
from ich_node.training.prepared import PreparedSet


def test_backbones_are_compared_on_the_same_slices_and_an_interrupted_comparison_goes_on(
    phantoms: PreparedSet, tmp_path: Path
) -> None:
    small = {"size_px": 32, "batch": 8, "draws": 16, "epochs": 1, "precision": "f32"}
    settings = make_settings("scratch", {**small, "allow_empty": ["epidural", "subdural"]})
    backbones = ("test_resnet", "test_convnext")
    first = compare(backbones[:1], settings, [0, 1], [phantoms], tmp_path, device="cpu", say=lambda _: None)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "test_resnet").rglob("*")}
    rows = compare(backbones, settings, [0, 1], [phantoms], tmp_path, device="cpu", say=lambda _: None)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "test_resnet").rglob("*")} == before
    longer = settings.model_copy(update={"epochs": 2})
    with pytest.raises(TrainingError, match="other settings"):
        compare(backbones, longer, [0, 1], [phantoms], tmp_path, device="cpu", say=lambda _: None)
    assert rows[0] == first[0]
    assert {row.slices for row in rows} == {len(phantoms.rows)}
    positives = sum(row.labels[0] for row in phantoms.rows)
    assert rows[0].accuracy_of_always_no == pytest.approx(1 - positives / len(phantoms.rows))
    assert rows[0].parameters_millions != rows[1].parameters_millions
    table = as_markdown(rows)
    assert table.count("\n") == 4
    assert 'always "no"' in table
    assert (tmp_path / "comparison.csv").read_text().count("\n") == 3
    assert (tmp_path / "comparison.png").stat().st_size > 10_000
