"""The training module as a researcher uses it: prepare, fit, evaluate, export, and the node scores with the bundle.

On phantoms, with a tiny network: what comes out proves the way, and is no clinical figure.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ich_node.model.bundle import load_bundle
from ich_node.model.engine import open_engine
from ich_node.phantom import PhantomSettings, write_series
from ich_node.training.cli import main
from ich_node.training.fit.networks import load_network
from ich_node.training.look import PreparedSlices
from ich_node.training.prepared import open_prepared
from ich_node.windowing import Windowing

SMALL = ["--preset", "scratch", "--backbone", "test_resnet", "--size", "64", "--batch", "16", "--epochs", "6",
         "--draws", "192", "--learning-rate", "3e-3", "--set", "precision=f32", "--set", "positive_share=0.4",
         "--set", "allow_empty=epidural,intraparenchymal,intraventricular,subarachnoid,subdural",
         "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prepared set, a run for each of two folds, an evaluation and a bundle."""
    folder = tmp_path_factory.mktemp("training")
    data, bundle = folder / "data", folder / "bundle"
    assert main(["prepare", str(data), "--phantoms", "384", "--side", "64", "--folds", "2"]) == 0
    runs = [str(folder / f"fold-{fold}") for fold in (0, 1)]
    for fold, run in enumerate(runs):
        assert main(["fit", run, "--data", str(data), "--fold", str(fold), *SMALL]) == 0
    report = ["--out", str(folder / "report"), "--data", str(data), "--resamples", "50", "--restoration"]
    assert main(["evaluate", *runs, *report]) == 0
    export = [
        "--evaluation",
        str(folder / "report" / "evaluation.json"),
        "--data",
        str(data),
        "--name",
        "phantoms-only",
    ]
    assert main(["export", runs[0], str(bundle), *export, "--model-version", "1.0.0"]) == 0
    return folder


def _score(bundle: Path, head: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "ich_node", "score", "--json", "--model", str(bundle), str(head)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (series,) = json.loads(answer.stdout)
    return series


def test_a_bundle_that_was_trained_here_scores_a_head_in_the_node(trained: Path, tmp_path: Path) -> None:
    write_series(
        tmp_path / "head", PhantomSettings(lesion="subdural", slices=24, rows=128, seed=77, slice_spacing_mm=6)
    )
    series = _score(trained / "bundle", tmp_path / "head")
    assert series["analysed"] is True
    assert series["model"]["name"] == "phantoms-only"
    assert series["triage"] in ("positive", "indeterminate", "negative")
    assert len(series["slices"]) == 24


def test_nothing_of_phantoms_is_shown_as_a_clinical_figure(trained: Path) -> None:
    page = (trained / "report" / "evaluation.html").read_text()
    card = (trained / "bundle" / "MODEL_CARD.md").read_text()
    for text in (page, card):
        assert "phantom" in text.lower()
        assert "test" in text.lower()
    manifest = json.loads((trained / "bundle" / "manifest.json").read_text())
    assert "PHANTOM" in manifest["thresholds_basis"].upper()
    assert manifest["trained"] is True


def test_a_restored_brain_window_is_scored_much_like_the_true_windows(trained: Path) -> None:
    outcome = json.loads((trained / "report" / "restoration.json").read_text())
    assert outcome["slices"] == 384
    assert outcome["auc_true"] > 0.58, "the network tells slices apart"
    assert outcome["mean_difference"] < 0.1
    assert abs(outcome["auc_true"] - outcome["auc_restored"]) < 0.1


def test_the_bundle_is_listed_and_verified_like_any_other(trained: Path) -> None:
    for words in (["list", str(trained)], ["verify", str(trained / "bundle")]):
        command = [sys.executable, "-m", "ich_node", "model", *words]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert "bundle" in answer.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and there is none (g++)")
def test_eager_compiled_and_exported_networks_agree(trained: Path) -> None:
    data = open_prepared(trained / "data")
    held_out = [row for row in data.rows if row.fold == 0]
    bundle = load_bundle(trained / "bundle")
    hu = torch.from_numpy(PreparedSlices([data]).some_hu(held_out, 16))
    network = load_network(trained / "fold-0")
    with torch.inference_mode():
        images = Windowing(bundle.manifest.preprocessing)(hu)
        answers = {"eager": network(images)[0].numpy(), "compiled": torch.compile(network)(images)[0].numpy()}
    for engine in ("torch", "openvino"):
        answers[engine], _ = open_engine(bundle, engine, threads=1).score(images)
    probability = {name: 1 / (1 + np.exp(-logits)) for name, logits in answers.items()}
    assert np.ptp(probability["eager"][:, 0]) > 0.05, "the network tells these slices apart"
    for name, answer in probability.items():
        assert np.abs(answer - probability["eager"]).max() <= 0.01, name


@pytest.mark.slow
def test_a_sequence_head_is_judged_evaluated_and_exported_with_its_network(trained: Path, tmp_path: Path) -> None:
    runs, data = [str(trained / f"fold-{fold}") for fold in (0, 1)], ["--data", str(trained / "data")]
    assert main(["sequence", *runs, *data, "--set", "epochs=2", "--set", "hidden_size=8", "--set", "parts=2"]) == 0
    report = tmp_path / "report"
    assert main(["evaluate", *runs, "--out", str(report), "--sequence", "--resamples", "20"]) == 0
    assert json.loads((report / "evaluation.json").read_text())["conditions"]["sequence_head"] is True
    export = ["--evaluation", str(report / "evaluation.json"), *data, "--name", "with-head", "--model-version", "1"]
    assert main(["export", runs[0], str(tmp_path / "without"), *export]) == 1
    assert main(["export", runs[0], str(tmp_path / "bundle"), *export, "--sequence"]) == 0
    write_series(tmp_path / "head", PhantomSettings(slices=24, rows=128, seed=78, slice_spacing_mm=6))
    assert _score(tmp_path / "bundle", tmp_path / "head")["analysed"] is True


def test_the_same_commands_again_do_nothing_twice(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = trained / "data", trained / "fold-0"
    before = {path: path.stat().st_mtime_ns for path in (data / "shards").iterdir()}
    assert main(["prepare", str(data), "--phantoms", "384", "--side", "64", "--folds", "2"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (data / "shards").iterdir()} == before
    weights = (run / "final.safetensors").read_bytes()
    assert main(["fit", str(run), "--data", str(data), "--fold", "0", *SMALL]) == 0
    assert (run / "final.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["prepare", "{here}/new"], "--rsna, --studies, --images or --phantoms"),
        (["fit", "{here}/run", "--data", "{here}/nowhere"], "run `ich-train prepare`"),
        (["evaluate", "{here}/nowhere", "--out", "{here}/x"], "written when `ich-train fit` ends"),
        (["fit", "{here}/run", "--data", "{here}", "--set", "focal"], "NAME=VALUE"),
        (["fit", "{here}/run", "--data", "{here}", "--rate", "rsna=often"], "rates.rsna"),
        (["compare", "{here}/x", "--data", "{here}", "--folds", "one"], "whole numbers"),
        (["sequence", "{here}", "--data", "{here}", "--set", "hidden=8"], "settings of the sequence head: hidden"),
        (["evaluate", "{here}", "--out", "{here}/x", "--prevalence", "5"], "between 0 and 1, such as 0.05"),
        (["prepare", "{here}/p", "--phantoms", "24", "--terms", "elsewhere=free"], "the sources are called phantom"),
    ],
)
def test_what_cannot_be_done_says_what_to_do(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(here=tmp_path) for word in words]) == 1
    assert says in capsys.readouterr().err
