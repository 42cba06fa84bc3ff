import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.errors import DeviceFailed, ModelError
from ich_node.model import engine as engine_module
from ich_node.model.bundle import ModelBundle, load_bundle
from ich_node.model.engine import Engine, EngineName, open_engine, run_sequence_head
from ich_node.model.untrained import SPREAD, make_untrained_bundle
from ich_node.windowing import Windowing
from tests.unit.heads import draw_heads

HERE: list[EngineName] = ["torch", "openvino", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module")
def bundle_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make_untrained_bundle(directory, [draw_heads()], "test_resnet", size_px=64, sequence_head=True)
    return directory


@pytest.fixture(scope="module")
def bundle(bundle_directory: Path) -> ModelBundle:
    return load_bundle(bundle_directory)


@pytest.fixture(scope="module")
def images(bundle: ModelBundle) -> Tensor:
    return Windowing(bundle.manifest.preprocessing)(torch.from_numpy(draw_heads(7)))


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


@pytest.fixture(scope="module")
def engines(bundle: ModelBundle) -> dict[EngineName, Engine]:
    return {name: open_engine(bundle, name, threads=1) for name in HERE}


@pytest.fixture(scope="module")
def reference(engines: dict[EngineName, Engine], images: Tensor) -> NDArray[np.float32]:
    reference = probabilities(engines["torch"].score(images)[0])
    assert np.ptp(reference[:, 0]) >= SPREAD
    return reference


@pytest.mark.parametrize("name", HERE)
def test_engines_agree_with_torch(
    engines: dict[EngineName, Engine], images: Tensor, reference: NDArray[np.float32], name: EngineName
) -> None:
    engine = engines[name]
    logits, embeddings = engine.score(images)
    assert engine.name == name
    assert logits.dtype == embeddings.dtype == np.float32
    assert embeddings.shape == (7, 96)
    assert np.abs(probabilities(logits) - reference).max() <= 0.01


@pytest.mark.parametrize("name", HERE)
def test_a_score_does_not_depend_on_how_slices_are_batched(
    engines: dict[EngineName, Engine], images: Tensor, reference: NDArray[np.float32], name: EngineName
) -> None:
    engine = engines[name]
    allowed = 0.01 if name == "cuda" else 1e-3  # a GPU adds up in another order in batches of another size
    together = probabilities(engine.score(images)[0])
    alone = probabilities(np.concatenate([engine.score(image)[0] for image in torch.split(images, 1)]))
    backwards = probabilities(engine.score(images.flip(0))[0])[::-1]
    assert np.abs(together - alone).max() <= allowed
    assert np.abs(together - backwards).max() <= allowed


def test_no_slices_give_no_scores(engines: dict[EngineName, Engine], images: Tensor) -> None:
    logits, embeddings = engines["torch"].score(images[:0])
    assert logits.shape == (0, 6)
    assert embeddings.shape == (0, 96)


def test_auto_takes_the_best_there_is(bundle: ModelBundle) -> None:
    expected = "cuda" if torch.cuda.is_available() else "openvino"
    assert open_engine(bundle, "auto", threads=1).name == expected


def test_auto_takes_the_processor_where_the_gpu_does_not_work_and_cuda_by_name_does_not(
    bundle: ModelBundle, images: Tensor, reference: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> Engine:
        raise DeviceFailed("cuda failed: CUDA error: unspecified launch failure")

    monkeypatch.setattr(engine_module, "_choose", lambda: "cuda")
    monkeypatch.setattr(engine_module, "_open_cuda", gone)
    fallen_back = open_engine(bundle, "auto", threads=1)
    assert fallen_back.name == "openvino"
    assert np.abs(probabilities(fallen_back.score(images)[0]) - reference).max() < 0.02
    with pytest.raises(DeviceFailed):
        open_engine(bundle, "cuda", threads=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_an_error(bundle: ModelBundle) -> None:
    with pytest.raises(ModelError, match="no CUDA device"):
        open_engine(bundle, "cuda")


def test_nan_is_an_error_and_no_score(bundle: ModelBundle, images: Tensor) -> None:
    state = {key: tensor.clone() for key, tensor in bundle.network_state.items()}
    state["classifier.weight"][0, 0] = float("nan")
    engine = open_engine(replace(bundle, network_state=state), "torch", threads=1)
    with pytest.raises(ModelError, match="NaN"):
        engine.score(images)


def test_weights_of_another_backbone_are_an_error(bundle: ModelBundle) -> None:
    other = replace(bundle, manifest=bundle.manifest.model_copy(update={"backbone": "resnet10t"}))
    with pytest.raises(ModelError, match="resnet10t"):
        open_engine(other, "torch")
    unknown = replace(bundle, manifest=bundle.manifest.model_copy(update={"backbone": "no_such_net"}))
    with pytest.raises(ModelError, match="no_such_net"):
        open_engine(unknown, "torch")


def test_a_kept_conversion_gives_the_same_scores(
    tmp_path: Path, bundle: ModelBundle, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = open_engine(bundle, "openvino", threads=1, cache_directory=tmp_path).score(images)
    monkeypatch.setattr(torch.export, "export", lambda *_: pytest.fail("converted again"))
    second, _ = open_engine(bundle, "openvino", threads=1, cache_directory=tmp_path).score(images)
    assert np.array_equal(first, second)


def test_a_damaged_conversion_is_made_again(tmp_path: Path, bundle: ModelBundle, images: Tensor) -> None:
    first, _ = open_engine(bundle, "openvino", threads=1, cache_directory=tmp_path).score(images)
    weights = next(tmp_path.glob("*.bin"))
    weights.write_bytes(weights.read_bytes()[:1000])
    second, _ = open_engine(bundle, "openvino", threads=1, cache_directory=tmp_path).score(images)
    assert np.array_equal(first, second)


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, bundle: ModelBundle, images: Tensor) -> None:
    (tmp_path / "file").write_text("in the way")
    engine = open_engine(bundle, "openvino", threads=1, cache_directory=tmp_path / "file")
    assert np.isfinite(engine.score(images)[0]).all()


CHANGE_MODELS_AND_STOP = """
import gc, os, signal, sys
from pathlib import Path
from ich_node.model.bundle import load_bundle
from ich_node.model.engine import open_engine
bundle = load_bundle(Path(sys.argv[1]))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
engines = [open_engine(bundle, "openvino", threads=1) for _ in range(2)]
while engines:
    del engines[0]
    gc.collect()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_that_changed_its_model_can_still_be_told_to_stop(bundle_directory: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", CHANGE_MODELS_AND_STOP, str(bundle_directory)], timeout=240)
    assert ended.returncode == 7


def test_the_sequence_head_reads_order(bundle: ModelBundle, engines: dict[EngineName, Engine], images: Tensor) -> None:
    _, embeddings = engines["torch"].score(images)
    positions = np.arange(7) * 5.0
    slice_logits, study_logits = run_sequence_head(bundle, embeddings, positions)
    assert slice_logits.shape == (7, 6)
    assert study_logits.shape == (6,)
    assert np.ptp(probabilities(slice_logits)[:, 0]) >= SPREAD
    shuffled, _ = run_sequence_head(bundle, embeddings[[1, 0, 2, 3, 4, 5, 6]], positions)
    assert np.abs(shuffled[3:] - slice_logits[3:]).max() > 1e-5


def test_the_sequence_head_does_not_mind_float16(
    bundle: ModelBundle, engines: dict[EngineName, Engine], images: Tensor
) -> None:
    _, embeddings = engines["torch"].score(images)
    positions = np.arange(7) * 5.0
    exact = probabilities(run_sequence_head(bundle, embeddings, positions)[1])
    stored = probabilities(run_sequence_head(bundle, embeddings.astype(np.float16), positions)[1])
    assert np.abs(exact - stored).max() < 1e-3


def test_a_sequence_head_that_gives_nan_is_an_error(bundle: ModelBundle) -> None:
    with pytest.raises(ModelError, match="NaN"):
        run_sequence_head(bundle, np.full((3, 96), np.nan), np.arange(3.0))
