import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from ich_node.cli import main
from ich_node.errors import TrainingError
from ich_node.model.bundle import ModelBundle, load_bundle, verify_bundle
from ich_node.model.engine import Engine, EngineName, open_engine
from ich_node.model.network import SequenceHead, SequenceHeadSettings
from ich_node.model.untrained import make_untrained_bundle
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training import parity
from ich_node.training.evaluate import Evaluation, EvaluationSettings, RefinedScores, evaluate
from ich_node.training.export import Exported, ExportSettings, TrainedHead, export_bundle
from ich_node.training.run_folder import read_run
from ich_node.windowing import Preprocessing, Windowing
from tests.unit.heads import draw_heads
from tests.unit.scored_slices import draw_predictions

QUICK = EvaluationSettings(resamples=50)
SETTINGS = ExportSettings(name="ich-tiny", version="1.0")


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network tells slices apart, as a trained one does."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    untrained = tmp_path_factory.mktemp("models") / "tiny"
    make_untrained_bundle(untrained, [draw_heads()], "test_resnet", size_px=64)
    directory.mkdir()
    state = load_bundle(untrained).network_state
    for which in ("final", "best"):
        safetensors.torch.save_file(state, directory / f"{which}.safetensors")
    write_config(directory)
    return directory


def write_config(directory: Path, **changes: Any) -> None:
    config = {
        "name": "tiny",
        "backbone": "test_resnet",
        "size_px": 64,
        "preprocessing": Preprocessing(size_px=64).model_dump(),
        "neighbours": 0,
        "data": [{"name": "source0", "terms": "for tests only", "slices": 600, "patients": 60}],
        "learning_rate": 1e-4,
        **changes,
    }
    (directory / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(draw_predictions(scale=2.5), QUICK)


@pytest.fixture(scope="module")
def validation_hu() -> NDArray[np.float32]:
    return draw_heads(8)


@pytest.fixture
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not about the engines: converting for OpenVINO takes seconds."""
    monkeypatch.setattr(parity, "engines_here", lambda: ("torch",))


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory,
    run_directory: Path,
    evaluation: Evaluation,
    validation_hu: NDArray[np.float32],
) -> Exported:
    place = tmp_path_factory.mktemp("exported") / "ich-tiny"
    return export_bundle(run_directory, evaluation, place, validation_hu, SETTINGS)


def test_an_exported_bundle_is_whole_and_says_what_was_measured(exported: Exported, evaluation: Evaluation) -> None:
    assert verify_bundle(exported.directory) == []
    manifest = load_bundle(exported.directory).manifest
    assert manifest == exported.manifest
    assert manifest.trained
    assert manifest.activation_maps
    assert manifest.temperature == evaluation.temperature
    assert manifest.thresholds == evaluation.thresholds
    assert manifest.operating_points == evaluation.operating_points
    assert manifest.training_data[0].terms == "for tests only"
    assert "60 studies of 60 patients (source0)" in manifest.thresholds_basis
    (auc,) = [metric for metric in manifest.metrics if metric.name == "study any auc"]
    assert auc.low is not None
    assert list(exported.directory.parent.iterdir()) == [exported.directory]


def test_it_scores_as_the_training_network_did(
    exported: Exported, run_directory: Path, validation_hu: NDArray[np.float32]
) -> None:
    bundle = load_bundle(exported.directory)
    images = Windowing(bundle.manifest.preprocessing)(torch.from_numpy(validation_hu))
    exact = replace(bundle, network_state=safetensors.torch.load_file(run_directory / "final.safetensors"))
    ours, _ = open_engine(bundle, "torch").score(images)
    theirs, _ = open_engine(exact, "torch").score(images)
    assert np.abs(1 / (1 + np.exp(-ours)) - 1 / (1 + np.exp(-theirs))).max() <= 0.01
    assert {one.engine for one in exported.parity} >= {"torch", "openvino"}
    assert all(one.largest_difference <= 0.01 for one in exported.parity)


@pytest.mark.usefixtures("torch_alone")
def test_weights_lie_there_as_float16_unless_float32_is_wanted(
    exported: Exported, tmp_path: Path, run_directory: Path, evaluation: Evaluation, validation_hu: NDArray[np.float32]
) -> None:
    whole = replace(SETTINGS, stored="float32", weights="best")
    export_bundle(run_directory, evaluation, tmp_path / "whole", validation_hu, whole)
    (half,), (full,) = (list(one.glob("*.safetensors")) for one in (exported.directory, tmp_path / "whole"))
    assert half.stat().st_size < 0.6 * full.stat().st_size
    assert safetensors.torch.load_file(half)["classifier.weight"].dtype == torch.float16
    assert safetensors.torch.load_file(half)["classifier.bias"].dtype == torch.float32
    assert load_bundle(exported.directory).network_state["classifier.weight"].dtype == torch.float32


def test_the_card_tells_a_person_everything(exported: Exported) -> None:
    card = (exported.directory / "MODEL_CARD.md").read_text()
    for heading in (
        "What it is", "Intended use", "Training data and terms", "How it was measured", "Figures", "Operating points",
        "Known weaknesses", "Engines against the training network",
    ):  # fmt: skip
        assert f"\n## {heading}\n" in card
    assert "not a medical device" in card
    assert "target 0.95 NOT met: 30 positive studies" in card
    assert "| source0 | 600 | 60 | for tests only |" in card
    assert "| openvino |" in card


@pytest.mark.usefixtures("torch_alone")
def test_the_card_says_whose_figures_it_gives(
    exported: Exported, run_directory: Path, tmp_path: Path, validation_hu: NDArray[np.float32]
) -> None:
    assert "of one training by itself" in (exported.directory / "MODEL_CARD.md").read_text()
    fold = tmp_path / "fold"
    fold.mkdir()
    write_config(fold, settings={"fold": 2})
    (fold / "final.safetensors").symlink_to(run_directory / "final.safetensors")
    predictions = draw_predictions(scale=2.5)
    own = np.array([row.fold == 2 for row in predictions.rows])
    held_out = replace(
        predictions,
        rows=tuple(row for row in predictions.rows if row.fold == 2),
        logits=predictions.logits[own],
    )
    done = export_bundle(fold, evaluate(held_out, QUICK), tmp_path / "own", validation_hu, SETTINGS)
    card = (done.directory / "MODEL_CARD.md").read_text()
    assert "of the very weights in this bundle, on the patients of fold 2" in card
    assert "of one training by itself" not in card
    everyone = export_bundle(fold, evaluate(predictions, QUICK), tmp_path / "all", validation_hu, SETTINGS)
    assert "of one training by itself" in (everyone.directory / "MODEL_CARD.md").read_text()


@pytest.mark.usefixtures("torch_alone")
def test_the_card_holds_what_its_makers_say(
    run_directory: Path, evaluation: Evaluation, tmp_path: Path, validation_hu: NDArray[np.float32]
) -> None:
    said = replace(SETTINGS, notes="\nMade on **two cores**.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n")
    done = export_bundle(run_directory, evaluation, tmp_path / "said", validation_hu, said)
    card = (done.directory / "MODEL_CARD.md").read_text()
    assert "## From its makers\n\nMade on **two cores**.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n## " in card
    assert verify_bundle(done.directory) == []


def test_model_list_says_how_far_the_thresholds_can_be_trusted(
    exported: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "list", str(exported.directory.parent)]) == 0
    listed = capsys.readouterr().out
    assert "ich-tiny 1.0  test_resnet  trained" in listed
    assert "any: sensitivity" in listed
    assert "target 0.95 NOT met: 30 positive studies" in listed


def test_an_engine_that_differs_is_named_and_nothing_is_left(
    tmp_path: Path,
    run_directory: Path,
    evaluation: Evaluation,
    validation_hu: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def open_another(bundle: ModelBundle, engine: EngineName) -> Engine:
        opened = open_engine(bundle, engine)
        return replace(opened, bias=opened.bias + np.float32(0.5)) if engine == "openvino" else opened

    monkeypatch.setattr(parity, "open_engine", open_another)
    with pytest.raises(TrainingError, match=r"engine openvino .* differs from the training network by 0\.\d+"):
        export_bundle(run_directory, evaluation, tmp_path / "new", validation_hu, SETTINGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("torch_alone")
def test_a_failed_export_leaves_the_bundle_that_was_there(
    exported: Exported,
    tmp_path: Path,
    run_directory: Path,
    evaluation: Evaluation,
    validation_hu: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "bundle"
    export_bundle(run_directory, evaluation, place, validation_hu, SETTINGS)
    with pytest.raises(TrainingError, match="something is there"):
        export_bundle(run_directory, evaluation, place, validation_hu, SETTINGS)
    again = replace(SETTINGS, version="2.0", replace=True)
    export_bundle(run_directory, evaluation, place, validation_hu, again)
    assert load_bundle(place).identity.version == "2.0"
    monkeypatch.setattr(parity, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(TrainingError, match="differs from the training network"):
        export_bundle(run_directory, evaluation, place, validation_hu, replace(again, version="3.0"))
    assert load_bundle(place).identity.version == "2.0"
    assert list(tmp_path.iterdir()) == [place]


def test_a_run_that_sees_neighbours_is_refused(
    tmp_path: Path, evaluation: Evaluation, validation_hu: NDArray[np.float32]
) -> None:
    write_config(tmp_path, neighbours=1)
    with pytest.raises(TrainingError, match=r"sees 1 neighbours.*scores each slice as it arrives"):
        export_bundle(tmp_path, evaluation, tmp_path / "out", validation_hu, SETTINGS)


def test_too_few_slices_to_compare_are_refused(run_directory: Path, evaluation: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="3 validation slices; at least 8"):
        export_bundle(run_directory, evaluation, tmp_path / "out", draw_heads(3), SETTINGS)


@pytest.mark.usefixtures("torch_alone")
def test_a_name_that_no_manifest_takes_is_refused(
    run_directory: Path, evaluation: Evaluation, tmp_path: Path, validation_hu: NDArray[np.float32]
) -> None:
    with pytest.raises(TrainingError, match="name"):
        export_bundle(run_directory, evaluation, tmp_path / "out", validation_hu, replace(SETTINGS, name="n" * 65))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("torch_alone")
def test_weak_thresholds_are_warned_of_by_name(
    run_directory: Path, tmp_path: Path, validation_hu: NDArray[np.float32], caplog: pytest.LogCaptureFixture
) -> None:
    weak = evaluate(draw_predictions(separation=0.5, scale=2.5), QUICK)
    done = export_bundle(run_directory, weak, tmp_path / "weak", validation_hu, SETTINGS)
    assert any(text.startswith("any: only") for text in done.warnings)
    assert "negative studies come out negative" in caplog.text
    assert "any: only" in (done.directory / "MODEL_CARD.md").read_text()


@pytest.mark.usefixtures("torch_alone")
def test_a_model_of_phantoms_says_so_wherever_it_speaks(
    run_directory: Path, tmp_path: Path, validation_hu: NDArray[np.float32]
) -> None:
    drawn = evaluate(draw_predictions(patients=30, kind="phantom", scale=2.5), QUICK)
    done = export_bundle(run_directory, drawn, tmp_path / "phantoms", validation_hu, SETTINGS)
    assert done.manifest.thresholds_basis.startswith("SYNTHETIC PHANTOMS")
    assert all(metric.data.startswith("SYNTHETIC PHANTOMS") for metric in done.manifest.metrics)
    assert "Synthetic phantoms: software test only" in (done.directory / "MODEL_CARD.md").read_text()


@pytest.mark.usefixtures("torch_alone")
def test_a_sequence_head_goes_along(run_directory: Path, tmp_path: Path, validation_hu: NDArray[np.float32]) -> None:
    predictions = draw_predictions(patients=30, scale=2.5)
    study_logits = {(row.source, row.study): np.zeros(6) for row in predictions.rows}
    refined = evaluate(predictions, QUICK, refined=RefinedScores(predictions.logits, study_logits))
    settings = SequenceHeadSettings(embedding_size=96, hidden_size=8)
    torch.manual_seed(0)
    head = TrainedHead(settings, SequenceHead(settings).state_dict())
    done = export_bundle(run_directory, refined, tmp_path / "headed", validation_hu, SETTINGS, head)
    assert done.manifest.sequence_head == settings
    assert load_bundle(done.directory).head_state is not None
    with pytest.raises(TrainingError, match="do not agree on the sequence head"):
        export_bundle(run_directory, refined, tmp_path / "headless", validation_hu, SETTINGS)


def test_a_run_that_is_not_there_or_not_understood_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="give the folder of a run"):
        read_run(tmp_path)
    write_config(tmp_path, size_px=128)
    with pytest.raises(TrainingError, match="size_px 128, but preprocessing makes 64"):
        read_run(tmp_path)


def test_every_class_has_its_operating_point(exported: Exported) -> None:
    assert set(exported.manifest.operating_points or {}) == set(HEMORRHAGE_CLASSES)
