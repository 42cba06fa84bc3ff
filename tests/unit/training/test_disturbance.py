"""What noise and a shifted level do to the answers of networks."""

from pathlib import Path

import numpy as np
import pytest

from ich_node.errors import TrainingError
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.disturbance import DISTURBANCES, disturb, measure_disturbances
from ich_node.training.fit import fit, make_settings
from ich_node.training.prepared import PreparedSet

WARM = dict.fromkeys(HEMORRHAGE_CLASSES, 1.0)


def test_noise_has_the_standard_deviation_asked_for_and_is_the_same_each_time() -> None:
    flat = [np.full((128, 128), 30.0, np.float32) for _ in range(2)]
    one, other = disturb(flat, noise_hu=12.0, level_hu=5.0), disturb(flat, noise_hu=12.0, level_hu=5.0)
    assert np.array_equal(one[0], other[0])
    assert not np.array_equal(one[0], one[1])
    for changed in one:
        assert changed.std() == pytest.approx(12.0, rel=0.08)
        assert changed.mean() == pytest.approx(35.0, abs=0.8)


def test_nothing_changes_a_slice_that_is_left_alone() -> None:
    flat = [np.linspace(0, 80, 64 * 64, dtype=np.float32).reshape(64, 64)]
    assert np.array_equal(disturb(flat, noise_hu=0.0, level_hu=0.0)[0], flat[0])


def test_what_each_run_held_out_is_scored_as_it_is_and_disturbed(phantoms: PreparedSet, tmp_path: Path) -> None:
    runs = []
    for fold in (0, 1):
        changes = {"backbone": "test_resnet", "size_px": 32, "epochs": 1, "draws": 32, "batch": 16, "precision": "f32"}
        runs.append(tmp_path / f"fold-{fold}")
        fit(make_settings("scratch", {**changes, "fold": fold}), [phantoms], runs[-1], "cpu")
    found = measure_disturbances(runs, [phantoms], WARM, slices=30)
    assert [(one.noise, one.level_hu) for one in found] == [(0.0, 0.0), *DISTURBANCES]
    assert {one.slices for one in found} == {60}
    assert found[0].mean_difference == 0.0
    assert all(one.mean_difference > 0 for one in found[1:])
    assert all(one.auc_any is None or 0 <= one.auc_any <= 1 for one in found)
    assert found == measure_disturbances(runs, [phantoms], WARM, slices=30)


def test_runs_that_held_nothing_out_are_refused(phantoms: PreparedSet) -> None:
    with pytest.raises(TrainingError, match="one run for each fold"):
        measure_disturbances([], [phantoms], WARM, slices=5)
