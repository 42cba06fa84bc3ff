"""Runs: that they learn, go on where they stopped, spread over processes, and say what is wrong."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from ich_node.errors import TrainingError
from ich_node.training.fit import FitSettings, fit, loop, make_settings
from ich_node.training.fit.checkpoint import load_state, pack, save_state, unpack
from ich_node.training.fit.images import ImageMaker
from ich_node.training.fit.log import RunLog, read_log
from ich_node.training.fit.networks import load_network, make_network, make_optimizer
from ich_node.training.fit.objective import area_under_roc, class_weights, weighted_log_loss
from ich_node.training.fit.processes import Processes, convert_sync_batchnorm
from ich_node.training.fit.run import open_run
from ich_node.training.fit.schedule import make_schedule
from ich_node.training.fit.settings import NO_AUGMENTATION
from ich_node.training.fit.store import SliceStore
from ich_node.training.predictions import read_predictions
from ich_node.training.prepared import PreparedSet
from tests.unit.training.prepared_sets import make_prepared


def _settings(**changes: Any) -> FitSettings:
    small = {"backbone": "test_resnet", "size_px": 64, "batch": 8, "epochs": 2, "precision": "f32", "fold": 0}
    return make_settings("scratch", {**small, "draws": 32, "allow_empty": ["epidural", "subdural"], **changes})


def _same_weights(one: Path, other: Path) -> bool:
    mine, theirs = load_state(one / "final.safetensors")[0], load_state(other / "final.safetensors")[0]
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_run_leaves_its_weights_its_log_and_the_scores_of_what_it_held_out(phantoms: PreparedSet, run: Path) -> None:
    fit(_settings(positive_share=0.4), [phantoms], run, "cpu")
    assert {path.name for path in run.iterdir()} == {
        "config.json", "log.csv", "checkpoint.safetensors", "best.safetensors", "final.safetensors", "held-out.csv"
    }  # fmt: skip
    scored = read_predictions([run / "held-out.csv"])
    assert {row.fold for row in scored.rows} == {0}
    assert len(scored.rows) == sum(row.fold == 0 for row in phantoms.rows)
    assert [row["step"] for row in read_log(run / "log.csv")] == [4, 8]
    config = json.loads((run / "config.json").read_text())
    assert config["settings"]["positive_share"] == 0.4
    assert config["data"][0]["name"] == "phantom"


def test_the_scores_of_a_run_are_those_of_the_weights_it_leaves(phantoms: PreparedSet, run: Path) -> None:
    settings = _settings(positive_share=0.4)
    fit(settings, [phantoms], run, "cpu")
    scored = read_predictions([run / "held-out.csv"])
    assert np.allclose(_logits_of(run, settings, phantoms), scored.logits, atol=1e-3)


def _logits_of(run: Path, settings: FitSettings, data: PreparedSet) -> np.ndarray:
    """What the weights of a run say of the slices it held out."""
    network = load_network(run)
    store = SliceStore([data], torch.device("cpu"), 1)
    maker = ImageMaker(store, settings.preprocessing, 0)
    held_out = np.array([number for number, row in enumerate(store.rows) if row.fold == 0])
    with torch.inference_mode():
        logits, _ = network(maker.images(held_out, 64))
    return logits.numpy()


def test_a_run_that_broke_off_ends_as_one_that_did_not(
    phantoms: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(epochs=3)
    fit(settings, [phantoms], tmp_path / "whole", "cpu")
    step = loop._step

    def crash(run: Any, *others: Any) -> torch.Tensor:
        if run.step == 6:
            raise RuntimeError("the power is gone")
        return step(run, *others)

    monkeypatch.setattr(loop, "_step", crash)
    with pytest.raises(RuntimeError, match="power"):
        fit(settings, [phantoms], tmp_path / "broken", "cpu")
    assert load_state(tmp_path / "broken" / "checkpoint.safetensors")[1]["step"] == 4
    monkeypatch.setattr(loop, "_step", step)
    fit(settings, [phantoms], tmp_path / "broken", "cpu")
    assert _same_weights(tmp_path / "whole", tmp_path / "broken")
    losses = [[row["loss"] for row in read_log(tmp_path / name / "log.csv")] for name in ("whole", "broken")]
    assert losses[0] == losses[1]


def test_a_run_that_is_stopped_in_an_epoch_keeps_the_step_and_goes_on(
    phantoms: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings()
    fit(settings, [phantoms], tmp_path / "whole", "cpu")
    step = loop._step

    def stop(run: Any, *others: Any) -> torch.Tensor:
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(run, *others)

    monkeypatch.setattr(loop, "_step", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(settings, [phantoms], tmp_path / "stopped", "cpu")
    assert load_state(tmp_path / "stopped" / "checkpoint.safetensors")[1]["step"] == 3
    monkeypatch.setattr(loop, "_step", step)
    fit(settings, [phantoms], tmp_path / "stopped", "cpu")
    assert _same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_another_configuration_does_not_go_on_in_a_run(phantoms: PreparedSet, run: Path) -> None:
    fit(_settings(epochs=1), [phantoms], run, "cpu")
    with pytest.raises(TrainingError, match=r"other settings .*epochs.*another folder"):
        fit(_settings(epochs=2), [phantoms], run, "cpu")


def test_one_batch_is_learned_by_heart(tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "few", heads=2)
    still = {"augmentation": NO_AUGMENTATION, "dropout": 0.0, "weight_decay": 0.0, "ema": None, "fold": None}
    few = {"batch": 16, "draws": 16, "epochs": 150, "learning_rate": 3e-3}
    every = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
    fit(_settings(**still, **few, allow_empty=every), [data], tmp_path / "run", "cpu")
    assert (read_log(tmp_path / "run" / "log.csv")[-1]["loss"] or 1) < 0.01


def _fit_in_two_processes(data: PreparedSet, run: Path, backbone: str, *words: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "ich_node.training", "fit", str(run), "--data", str(data.directory), "--preset", "scratch",
               "--backbone", backbone, "--size", "64", "--batch", "8", "--draws", "32", "--epochs", "2", "--fold", "0",
               "--device", "cpu", "--set", "precision=f32", "--set", "allow_empty=epidural,subdural",
               *words]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=250, capture_output=True)


def test_two_processes_give_the_loss_of_one(phantoms: PreparedSet, tmp_path: Path) -> None:
    # no batch normalisation and no dropout: those differ by design when a batch is shared
    fit(_settings(backbone="test_convnext", dropout=0.0), [phantoms], tmp_path / "1", "cpu")
    _fit_in_two_processes(phantoms, tmp_path / "2", "test_convnext", "--set", "dropout=0")
    one, two = (read_log(tmp_path / count / "log.csv") for count in ("1", "2"))
    assert [row["loss"] for row in one] == pytest.approx([row["loss"] for row in two], rel=1e-4)
    figures = [row["validation_log_loss"] for row in one]
    assert figures == pytest.approx([row["validation_log_loss"] for row in two], rel=1e-4)


@pytest.mark.slow
def test_two_processes_score_what_they_held_out_with_the_network_that_they_keep(
    phantoms: PreparedSet, run: Path
) -> None:
    _fit_in_two_processes(phantoms, run, "test_resnet")
    scored = read_predictions([run / "held-out.csv"])
    assert len(scored.rows) == sum(row.fold == 0 for row in phantoms.rows)
    assert np.allclose(_logits_of(run, _settings(), phantoms), scored.logits, atol=1e-3)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(
    phantoms: PreparedSet, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Processes(0, 3, torch.device("cpu"))
    with pytest.raises(TrainingError, match="--batch 8 cannot be shared evenly by 3"):
        open_run(_settings(), [phantoms], run, shared)


def test_an_epoch_that_ends_on_a_look_at_the_loss_is_logged_once(
    phantoms: PreparedSet, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_LOOK_EVERY", 2)
    monkeypatch.setattr(loop, "_LOG_EVERY_S", 0.0)
    fit(_settings(), [phantoms], run, "cpu")
    assert [row["step"] for row in read_log(run / "log.csv")] == [2, 4, 6, 8]


def test_an_epoch_that_fills_no_batch_is_refused(phantoms: PreparedSet, run: Path) -> None:
    with pytest.raises(TrainingError, match="fills no batch of 8; make --batch smaller"):
        fit(_settings(draws=4), [phantoms], run, "cpu")


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_good(
    phantoms: PreparedSet, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop._step

    def diverge(run: Any, *others: Any) -> torch.Tensor:
        if run.step == 5:
            with torch.no_grad():
                run.network.classifier.weight.fill_(torch.inf)
        return step(run, *others)

    monkeypatch.setattr(loop, "_step", diverge)
    with pytest.raises(TrainingError, match=r"no number.*--learning-rate"):
        fit(_settings(epochs=3), [phantoms], run, "cpu")
    tensors, facts = load_state(run / "checkpoint.safetensors")
    assert facts["step"] == 4
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_weights_that_are_no_numbers_are_never_kept_whatever_the_loss_was(
    phantoms: PreparedSet, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop._step

    def overflow(run: Any, *others: Any) -> torch.Tensor:
        loss = step(run, *others)
        if run.step == 7:  # the last of an epoch: nothing looks at another loss before the checkpoint
            with torch.no_grad():
                run.network.classifier.weight.fill_(torch.nan)
        return loss

    monkeypatch.setattr(loop, "_step", overflow)
    with pytest.raises(TrainingError, match=r"weights are no numbers.*goes on from the last checkpoint"):
        fit(_settings(epochs=3), [phantoms], run, "cpu")
    tensors, facts = load_state(run / "checkpoint.safetensors")
    assert facts["step"] == 4
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    monkeypatch.setattr(loop, "_step", step)
    fit(_settings(epochs=3, learning_rate=1e-4), [phantoms], run, "cpu")
    assert len(read_predictions([run / "held-out.csv"]).rows) > 0
    config = json.loads((run / "config.json").read_text())
    assert config["settings"]["learning_rate"] == 1e-3
    assert config["changed"] == [{"from_step": 4, "settings": {"learning_rate": 1e-4}}]


def test_a_finished_run_is_left_as_it_is(phantoms: PreparedSet, run: Path) -> None:
    fit(_settings(epochs=1), [phantoms], run, "cpu")
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    fit(_settings(epochs=1), [phantoms], run, "cpu")
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_out_of_memory_says_what_to_make_smaller(
    phantoms: PreparedSet, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop, "_step", too_much)
    with pytest.raises(TrainingError, match=r"smaller --batch or --size, and --init"):
        fit(_settings(), [phantoms], run, "cpu")


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_shard_that_is_not_as_it_was_made_is_named(tmp_path: Path, damage: str) -> None:
    data = make_prepared(tmp_path / "data", heads=4)
    shard = data.shard_path("00002.safetensors")
    if damage == "missing":
        shard.unlink()
    else:
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
    with pytest.raises(TrainingError, match=r"00002.safetensors: (missing|altered).*again"):
        fit(_settings(), [data], tmp_path / "run", "cpu")


@pytest.mark.parametrize(
    ("preset", "changes", "says"),
    [
        ("worst", {}, "one of seed, best, scratch"),
        ("scratch", {"batch": 1}, "batch"),
        ("scratch", {"focal_loss": True}, "focal_loss"),
        ("scratch", {"augmentation": {"noise": 3}}, "augmentation.noise"),
    ],
)
def test_settings_that_cannot_be_are_named(preset: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        make_settings(preset, changes)


def test_a_fold_that_is_not_there_is_named(phantoms: PreparedSet, run: Path) -> None:
    with pytest.raises(TrainingError, match=r"fold 7; the data have folds \[0, 1\]"):
        fit(_settings(fold=7), [phantoms], run, "cpu")


def test_a_run_starts_from_the_weights_of_another(phantoms: PreparedSet, tmp_path: Path) -> None:
    fit(_settings(epochs=1), [phantoms], tmp_path / "first", "cpu")
    settings = _settings(init=str(tmp_path / "first"), seed=5)
    started = make_network(settings, torch.device("cpu")).state_dict()
    left = safetensors.torch.load_file(tmp_path / "first" / "final.safetensors")
    assert all(torch.equal(started[name], left[name]) for name in left)
    with pytest.raises(TrainingError, match="another backbone"):
        make_network(_settings(init=str(tmp_path / "first"), backbone="test_vit"), torch.device("cpu"))


def test_weights_that_saw_what_is_held_out_are_refused(phantoms: PreparedSet, tmp_path: Path) -> None:
    fit(_settings(epochs=1, fold=1), [phantoms], tmp_path / "first", "cpu")
    with pytest.raises(TrainingError, match=r"not with fold 0 held out"):
        fit(_settings(init=str(tmp_path / "first")), [phantoms], tmp_path / "second", "cpu")
    fit(_settings(epochs=1, fold=1, init=str(tmp_path / "first")), [phantoms], tmp_path / "third", "cpu")
    names = [one["name"] for one in json.loads((tmp_path / "third" / "config.json").read_text())["data"]]
    assert names == ["phantom", "phantom"]


def test_sets_whose_folds_know_nothing_of_each_other_are_refused(phantoms: PreparedSet, tmp_path: Path) -> None:
    other = make_prepared(tmp_path / "other", heads=8, folds=3)
    with pytest.raises(TrainingError, match=r"trained on and held out.*prepare all sources together"):
        fit(_settings(), [phantoms, other], tmp_path / "run", "cpu")


def test_the_fused_step_is_the_plain_one_also_after_a_checkpoint_was_read(tmp_path: Path) -> None:
    settings = _settings(weight_decay=0.05, learning_rate=1e-2)
    ends = [_after_steps(settings, tmp_path / "kept.safetensors", plain) for plain in (False, True)]
    for fused, plain in zip(*ends, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)


def _after_steps(settings: FitSettings, checkpoint: Path, plain: bool) -> list[torch.Tensor]:
    """Three steps, the optimizer through a file, three more."""
    network = make_network(settings, torch.device("cpu"))
    optimizer = _optimizer(settings, network, plain)
    _take_steps(network, optimizer, seed=1)
    save_state(checkpoint, pack(network, None, optimizer), {})
    optimizer = _optimizer(settings, network, plain)
    unpack(load_state(checkpoint)[0], network, None, optimizer)
    _take_steps(network, optimizer, seed=2)
    return [one.detach() for one in network.parameters()]


def _optimizer(settings: FitSettings, network: nn.Module, plain: bool) -> torch.optim.Optimizer:
    fused = make_optimizer(settings, network)
    if not plain:
        return fused
    groups = [{"params": one["params"], "weight_decay": one["weight_decay"]} for one in fused.param_groups]
    return torch.optim.AdamW(groups, settings.learning_rate, foreach=False, fused=False)


def _take_steps(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(3):
        optimizer.zero_grad()
        for one in network.parameters():
            one.grad = torch.empty_like(one).copy_(torch.randn(one.shape, generator=draw))
        optimizer.step()


def test_synchronised_norms_keep_their_activations() -> None:
    network = make_network(_settings(backbone="test_efficientnet"), torch.device("cpu")).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = network(images)[0]
        assert torch.allclose(convert_sync_batchnorm(network)(images)[0], before, atol=1e-5)


def test_the_presets_are_what_the_documentation_says() -> None:
    seed, best, scratch = (make_settings(name, {}) for name in ("seed", "best", "scratch"))
    assert (seed.optimizer, seed.learning_rate, seed.size_px, seed.backbone) == (
        "adam",
        1e-5,
        299,
        "inception_resnet_v2",
    )
    assert (best.optimizer, best.learning_rate, best.pretrained, best.any_weight) == ("adamw", 1e-4, True, 2.0)
    assert 4 <= best.epochs <= 6
    assert (scratch.learning_rate, scratch.weight_decay, scratch.dropout, scratch.ema) == (1e-3, 0.05, 0.3, 0.999)
    assert (scratch.warmup_fraction, scratch.clip_norm, scratch.pretrained) == (0.05, 1.0, False)
    text = (Path(__file__).parents[3] / "docs/training.md").read_text()
    rows = {line.split("|")[1].strip(" `"): line for line in text.splitlines() if line.startswith("| `")}
    assert all(words in rows["seed"] for words in ("Adam 1e-5", "299 px"))
    assert all(words in rows["best"] for words in ("AdamW 1e-4", f"{best.epochs} epochs", "bf16"))
    assert all(words in rows["scratch"] for words in ("AdamW 1e-3", "0.05", "dropout 0.3", f"{scratch.epochs} epochs"))


def test_the_learning_rate_rises_and_falls_and_images_grow() -> None:
    sizes = {"early_size_px": 48, "early_fraction": 0.3, "final_size_px": 96, "final_fraction": 0.2}
    schedule = make_schedule(_settings(epochs=10, draws=800, **sizes), 800)
    rates = [schedule.learning_rate(step) for step in range(schedule.steps)]
    assert schedule.steps == 1000
    assert rates.index(max(rates)) in range(48, 52)
    assert rates[-1] < 1e-7
    assert [schedule.size_px(step) for step in (0, 299, 300, 799, 800, 999)] == [48, 48, 64, 64, 96, 96]


def test_the_loss_is_the_challenge_weighted_log_loss() -> None:
    logits = torch.tensor([[2.0, -1, 0, 0, 0, 0], [0.5, 0, 0, 0, 0, 3]])
    labels = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
    p = torch.sigmoid(logits)
    each = -(labels * p.log() + (1 - labels) * (1 - p).log())
    expected = (each[:, 0] * 2 + each[:, 1:].sum(dim=1)).mean() / 7
    assert float(weighted_log_loss(logits, labels, class_weights(2.0))) == pytest.approx(float(expected), rel=1e-5)


def test_the_area_under_the_curve_is_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 20, 300).astype(float), rng.integers(0, 2, 300)
    mine = area_under_roc(torch.from_numpy(scores), torch.from_numpy(labels))
    assert mine == pytest.approx(roc_auc_score(labels, scores))
    assert area_under_roc(torch.ones(3), torch.ones(3)) is None


def test_fit_imports_where_there_is_only_torch_and_timm() -> None:
    absent = ["pydicom", "highdicom", "openvino", "pynetdicom", "sqlalchemy", "sklearn", "scipy", "matplotlib"]
    absent += ["imagehash", "apscheduler", "pebble", "sdnotify", "rich"]
    program = f"""
import sys
sys.modules.update(dict.fromkeys({absent!r}))
import ich_node.training.fit
from ich_node.training.cli import build_parser
build_parser()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_the_log_drops_what_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = RunLog(path, 0, 10)
    for step in (2, 4, 6):
        log.add({"step": step, "loss": 0.5})
    log = RunLog(path, 4, 10)
    log.add({"step": 6, "loss": 0.25})
    log.close()
    with path.open() as file:
        assert [(row["step"], row["loss"]) for row in csv.DictReader(file)] == [
            ("2", "0.5"),
            ("4", "0.5"),
            ("6", "0.25"),
        ]
