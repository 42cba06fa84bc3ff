"""A network in 8 bits: how it is made and measured, and that nobody gets it who did not ask for it."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.archive_scoring.scorer import ScoringSetup
from ich_node.cli import main
from ich_node.decode import DecodeLimits
from ich_node.eligibility import slice_ineligibility
from ich_node.errors import ModelError, TrainingError
from ich_node.model import openvino_backbone
from ich_node.model.bundle import ModelBundle, load_bundle, verify_bundle, write_bundle
from ich_node.model.engine import EngineName, open_engine
from ich_node.model.manifest import Thresholds
from ich_node.model.untrained import make_untrained_bundle
from ich_node.model_shelf import shelved_model
from ich_node.phantom import LESIONS, PhantomSettings, draw_volume
from ich_node.pipeline import open_model
from ich_node.records import HEMORRHAGE_CLASSES, EligibilityRules
from ich_node.training import fidelity
from ich_node.training.cli import main as train
from ich_node.training.prepare import PrepareSettings, find_phantoms, prepare
from ich_node.training.prepared import Pixels, SliceRow
from ich_node.training.quantize import QuantizeSettings, quantize_bundle
from ich_node.windowing import Windowing

pytest.importorskip("nncf")
needs_int8 = pytest.mark.skipif(not openvino_backbone.has_int8(), reason="this processor does not compute in 8 bits")
pytestmark = needs_int8

WITHIN = 0.1
"""In probability: a small network with random weights feels 8 bits more than a trained one."""
WEAKER = 0.25
"""By so much its last layer is made weaker, for the same reason."""
SETTINGS = QuantizeSettings(version="1.0", threads=1)


class Heads:
    """Synthetic studies, and their slices by row."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.rows: list[SliceRow] = []
        self._hu: dict[str, NDArray[np.float32]] = {}
        for seed in seeds:
            lesion = (None, *LESIONS)[seed % 6]
            volume = draw_volume(
                PhantomSettings(lesion=lesion, slices=8, rows=64, seed=seed, slice_spacing_mm=16)
            ).astype(np.float32)
            for number, hu in enumerate(volume):
                name = f"{seed}-{number}"
                self._hu[name] = hu
                self.rows.append(
                    SliceRow(name, "phantom", Pixels.HU, "phantom", "", 0, (0,) * 6, study=str(seed),
                             position_mm=16.0 * number)
                )  # fmt: skip

    def hu(self, row: SliceRow) -> NDArray[np.float32]:
        return self._hu[row.image_id]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "plain"
    heads = [
        draw_volume(PhantomSettings(lesion=one, slices=8, rows=64, slice_spacing_mm=16)) for one in (None, *LESIONS)
    ]
    manifest = make_untrained_bundle(directory, heads, "test_resnet", size_px=64, name="tiny", denoised=False)
    state = load_bundle(directory).network_state
    weaker = {name: WEAKER * one if name.startswith("classifier") else one for name, one in state.items()}
    thresholds = dict.fromkeys(HEMORRHAGE_CLASSES, Thresholds(low=0.2, high=0.8))
    write_bundle(directory, manifest.model_dump(exclude={"files"}) | {"thresholds": thresholds}, weaker)
    return directory


def quantize(source: Path, out: Path, **changes: Any) -> None:
    settings = replace(SETTINGS, **changes)
    ranges, compared = Heads(range(6)), Heads(range(6, 10))
    quantize_bundle(source, out, ranges.rows, compared.rows, lambda row: either(ranges, compared, row), settings)


def either(first: Heads, second: Heads, row: SliceRow) -> NDArray[np.float32]:
    return first.hu(row) if row in first.rows else second.hu(row)


@pytest.fixture(scope="module")
def quantized(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("quantized") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "LARGEST_DIFFERENCE", WITHIN)
        quantize(plain, place)
    return place


@pytest.fixture
def copy(quantized: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(quantized, tmp_path / "copy"))


@pytest.fixture(scope="module")
def images(plain: Path) -> Tensor:
    heads = Heads([20, 21])
    hu = np.stack([heads.hu(row) for row in heads.rows])
    return Windowing(load_bundle(plain).manifest.preprocessing)(torch.from_numpy(hu))


def probabilities(bundle: ModelBundle, engine: EngineName, images: Tensor) -> NDArray[np.float32]:
    logits, _ = open_engine(bundle, engine, threads=1).score(images)
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_it_says_nearly_what_the_network_in_float32_says(quantized: Path, images: Tensor) -> None:
    bundle = load_bundle(quantized)
    (logits, embeddings), (expected_logits, expected) = (
        open_engine(bundle, name, threads=1).score(images) for name in ("openvino-int8", "torch")
    )
    assert 0 < np.abs(logits - expected_logits).max() < 0.5
    lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((embeddings * expected).sum(axis=1) / lengths).min() > 0.95


def test_its_engine_says_what_it_is(quantized: Path, images: Tensor) -> None:
    engine = open_engine(load_bundle(quantized), "openvino-int8", threads=1)
    assert engine.name == "openvino-int8"
    assert engine.device.startswith("CPU, int8 and f32")
    maps = engine.activation_maps(images[:2])
    logits, _ = engine.score(images[:2])
    assert np.abs(maps.mean(axis=(2, 3)) + engine.bias - logits).max() < 0.05


def test_auto_never_takes_it(quantized: Path) -> None:
    assert open_engine(load_bundle(quantized), "auto", threads=1).name in ("openvino", "cuda")


def test_a_bundle_without_one_is_refused_by_name(plain: Path) -> None:
    with pytest.raises(ModelError, match=r"openvino-int8: tiny 0\.0\.0 holds no network in 8 bits.*engine to auto"):
        open_engine(load_bundle(plain), "openvino-int8")


def test_one_that_nobody_measured_is_refused(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest["quantized"].update(figures=None))
    with pytest.raises(ModelError, match="nobody measured"):
        open_engine(load_bundle(copy), "openvino-int8")


def test_a_processor_that_cannot_compute_in_8_bits_is_refused(quantized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_backbone, "has_int8", lambda: False)
    with pytest.raises(ModelError, match="avx512_vnni"):
        open_engine(load_bundle(quantized), "openvino-int8")


@pytest.mark.parametrize("name", ["slice-network-int8.xml", "slice-network-int8-01-of-01.bin"])
def test_an_altered_file_is_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name}: altered or damaged"):
        load_bundle(copy)
    assert any(name in fault for fault in verify_bundle(copy))


def test_files_that_openvino_does_not_read_are_refused_with_what_to_do(copy: Path) -> None:
    nonsense = b"<net/>"
    (copy / "slice-network-int8.xml").write_bytes(nonsense)
    edit_manifest(
        copy,
        lambda manifest: manifest["files"].update({"slice-network-int8.xml": hashlib.sha256(nonsense).hexdigest()}),
    )
    with pytest.raises(ModelError, match=r"cannot use the network in 8 bits.*ich-train quantize"):
        open_engine(load_bundle(copy), "openvino-int8")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(quantized=None),
        lambda manifest: manifest["files"].pop("slice-network-int8.xml"),
        lambda manifest: manifest["files"].pop("slice-network-int8-01-of-01.bin"),
    ],
)
def test_files_and_manifest_agree_on_it(copy: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit_manifest(copy, change)
    with pytest.raises(ModelError, match="8 bits and its files do not agree"):
        load_bundle(copy)


def test_only_its_own_names_are_taken_beside_safetensors(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest["files"].update({"slice-network-int8.bin": "0" * 64}))
    with pytest.raises(ModelError, match="only safetensors"):
        load_bundle(copy)


def test_the_other_weights_are_taken_over_byte_for_byte(plain: Path, quantized: Path) -> None:
    for path in plain.glob("*.safetensors"):
        assert (quantized / path.name).read_bytes() == path.read_bytes()
    before, after = load_bundle(plain), load_bundle(quantized)
    assert (after.manifest.name, after.manifest.version) == ("tiny", "1.0")
    same = {"version": "", "files": {}, "quantized": None}
    assert after.manifest.model_copy(update=same) == before.manifest.model_copy(update=same)
    assert verify_bundle(quantized) == []


def test_manifest_and_card_state_what_was_measured(quantized: Path) -> None:
    stated = load_bundle(quantized).manifest.quantized
    assert stated is not None
    assert stated.figures is not None
    assert (stated.figures.slices, stated.figures.studies, stated.figures.equal_decisions) == (32, 4, 4)
    assert 0 < stated.figures.mean_difference <= stated.figures.largest_difference <= WITHIN
    assert stated.calibrated_on == "48 slices (phantom 48)"
    assert "NNCF" in stated.made_by
    card = (quantized / "MODEL_CARD.md").read_text()
    assert card.startswith("# tiny 1.0\n")
    assert "## In 8 bits" in card
    assert "| Studies with the same answer | 4 of 4 |" in card


def test_its_figures_are_those_of_its_engine(quantized: Path) -> None:
    bundle, compared = load_bundle(quantized), Heads(range(6, 10))
    stated = bundle.manifest.quantized
    assert stated is not None
    assert stated.figures is not None
    hu = np.stack([compared.hu(row) for row in compared.rows])
    images = Windowing(bundle.manifest.preprocessing)(torch.from_numpy(hu))
    difference = np.abs(probabilities(bundle, "openvino-int8", images) - probabilities(bundle, "torch", images))
    assert difference.max() == pytest.approx(stated.figures.largest_difference, abs=1e-3)


def test_one_that_differs_too_much_is_not_written(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "LARGEST_DIFFERENCE", 1e-6)
    with pytest.raises(TrainingError, match=r"in 8 bits a slice differs by at most 0\.\d+.*Nothing was written"):
        quantize(plain, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_version_that_is_taken_and_a_place_that_is_taken_are_refused(plain: Path, quantized: Path) -> None:
    with pytest.raises(TrainingError, match=r"has version 0\.0\.0 already"):
        quantize(plain, quantized, version="0.0.0")
    with pytest.raises(TrainingError, match="something is there"):
        quantize(plain, quantized)


def test_to_quantize_again_replaces_the_network_and_its_section_of_the_card(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "LARGEST_DIFFERENCE", WITHIN)
    quantize(copy, copy, version="1.1", replace=True)
    assert verify_bundle(copy) == []
    card = (copy / "MODEL_CARD.md").read_text()
    assert card.startswith("# tiny 1.1\n")
    assert card.count("## In 8 bits") == 1


def test_the_command_quantizes_on_prepared_sets(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fidelity, "LARGEST_DIFFERENCE", WITHIN)
    prepare([find_phantoms(72, side_px=64)], tmp_path / "data", PrepareSettings(folds=2, processes=1), lambda _: None)
    words = ["--data", str(tmp_path / "data"), "--model-version", "2.0", "--slices", "12"]
    assert train(["quantize", str(plain), str(tmp_path / "out"), *words]) == 0
    assert "studies come out the same" in capsys.readouterr().out
    stated = load_bundle(tmp_path / "out").manifest.quantized
    assert stated is not None
    assert stated.calibrated_on == "12 slices (phantom 12)"


def test_models_are_listed_with_it(quantized: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "list", str(quantized.parent)]) == 0
    said = "in 8 bits a slice differs by at most"
    assert f"openvino-int8: {said}" in capsys.readouterr().out
    assert said in shelved_model(quantized).in_8_bits


def test_reports_say_that_it_computed(quantized: Path) -> None:
    exact, fast = (open_model(quantized, name, threads=1).identity for name in ("torch", "openvino-int8"))
    assert exact.engine == "torch (CPU, f32, 1 thread)"
    assert fast.engine.startswith("openvino-int8 (CPU, int8 and f32, 1 thread)")
    assert "4 of 4 studies come out the same" in fast.engine
    assert exact.sha256 == fast.sha256


def test_scores_of_an_archive_in_8_bits_are_none_in_float32(plain: Path) -> None:
    setup = ScoringSetup(
        plain, "openvino", 1, False, None, None, DecodeLimits(), slice_ineligibility, EligibilityRules(), 1, 1
    )
    assert setup.digest("ab") == replace(setup, engine="torch").digest("ab")
    assert setup.digest("ab") != replace(setup, engine="openvino-int8").digest("ab")


def test_one_that_decides_a_study_otherwise_is_not_written(plain: Path) -> None:
    studies = Heads(range(6, 10))
    bundle = load_bundle(plain)
    engine = open_engine(bundle, "torch", threads=1)
    shifted = replace(engine, bias=engine.bias + np.float32(3))
    figures = fidelity.measure_fidelity(bundle, shifted, engine, studies.rows, studies.hu, "phantoms")
    assert (figures.studies, figures.equal_decisions) == (4, 0)
    with pytest.raises(TrainingError, match=r"0 of 4 studies"):
        fidelity.demand_fidelity(figures.model_copy(update={"largest_difference": 0.0}))
    with pytest.raises(TrainingError, match="no whole study"):
        fidelity.demand_fidelity(figures.model_copy(update={"studies": 0, "equal_decisions": 0}))


def test_an_engine_is_as_far_from_itself_as_nothing(plain: Path) -> None:
    studies = Heads(range(6, 10))
    bundle = load_bundle(plain)
    engine = open_engine(bundle, "torch", threads=1)
    figures = fidelity.measure_fidelity(bundle, engine, engine, studies.rows, studies.hu, "phantoms")
    assert (figures.largest_difference, figures.equal_decisions) == (0.0, 4)
    fidelity.demand_fidelity(figures)
