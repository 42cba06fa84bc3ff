"""What a GPU runs, here on the processor: all of it but the CUDA graphs; and on a GPU where there is one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ich_node.errors import DeviceFailed
from ich_node.model.activation_map import FeatureMaps
from ich_node.model.bundle import ModelBundle, load_bundle
from ich_node.model.engine import Engine, build_network, open_engine
from ich_node.model.gpu import BUCKETS, Compiler, DeviceNetwork, compile_folder
from ich_node.model.gpu.graphs import is_out_of_memory, run_anew
from ich_node.model.untrained import SPREAD, make_untrained_bundle
from tests.unit.heads import draw_heads

SIDE = 128
SMALL = (1, 4)
PROCESSOR = torch.device("cpu")
TOLERANCE = 0.01
"""Of a probability, as between all engines (tests/acceptance/test_engines_agree.py)."""
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make_untrained_bundle(directory, [draw_heads()], "test_resnet", size_px=64)
    return load_bundle(directory)


@pytest.fixture(scope="module")
def planes() -> list[Floats]:
    """Seven slices, of two sides and four shapes, in whole Hounsfield units."""
    heads = np.rint(draw_heads(7, side=SIDE, noise_hu=3))
    larger = np.rint(draw_heads(2, side=160, noise_hu=3))
    return [*heads[:3], heads[3][:, 10:110].copy(), larger[0], heads[5], larger[1][20:].copy()]


@pytest.fixture(scope="module")
def reference(bundle: ModelBundle) -> Engine:
    return open_engine(bundle, "torch", threads=1)


@pytest.fixture(scope="module")
def network(bundle: ModelBundle) -> DeviceNetwork:
    return open_network(bundle, Compiler(None))


def open_network(
    bundle: ModelBundle, compiler: Compiler, buckets: tuple[int, ...] = SMALL, device: torch.device = PROCESSOR
) -> DeviceNetwork:
    backbone = FeatureMaps(build_network(bundle).backbone)
    return DeviceNetwork(backbone, bundle.manifest.preprocessing, device, compiler, buckets, SIDE)


def probabilities(embeddings: Floats, engine: Engine) -> Floats:
    return np.asarray(1 / (1 + np.exp(-(embeddings @ engine.weight.T + engine.bias))), np.float32)


def test_scores_are_those_of_torch_in_float32(network: DeviceNetwork, reference: Engine, planes: list[Floats]) -> None:
    expected = probabilities(reference.score_hu(planes)[1], reference)
    assert np.ptp(expected[:, 0]) >= SPREAD
    assert np.abs(probabilities(network.embed_hu(planes), reference) - expected).max() <= TOLERANCE


def test_slices_keep_their_order_whatever_their_shapes(network: DeviceNetwork, planes: list[Floats]) -> None:
    together = network.embed_hu(planes)
    alone = np.concatenate([network.embed_hu([one]) for one in planes])
    assert np.allclose(together, alone, rtol=0, atol=0.01 * np.abs(alone).max())
    apart = np.abs(alone[:, None] - alone[None]).max(axis=2)[~np.eye(len(alone), dtype=bool)]
    assert apart.min() > 0.01 * np.abs(alone).max(), "the slices differ by more than that"


def test_what_a_batch_held_before_does_not_matter(bundle: ModelBundle, planes: list[Floats]) -> None:
    network = open_network(bundle, Compiler(None), buckets=(4,))
    first = network.embed_hu(planes[:1])
    network.embed_hu(planes)
    assert np.array_equal(network.embed_hu(planes[:1]), first)


def test_slices_that_were_windowed_before_give_the_same(
    network: DeviceNetwork, reference: Engine, planes: list[Floats]
) -> None:
    with torch.inference_mode():
        images = torch.cat([reference.windowing(torch.from_numpy(hu).unsqueeze(0)) for hu in planes[:4]])
    assert np.allclose(network.embed(images), network.embed_hu(planes[:4]), rtol=0, atol=1e-3)
    maps = network.map_features(images)
    assert np.allclose(maps.mean(axis=(2, 3)), network.embed(images), rtol=0.02, atol=0.02)


def test_means_of_slices_score_as_in_float32(network: DeviceNetwork, reference: Engine) -> None:
    heads = np.rint(draw_heads(9, side=SIDE, noise_hu=3))
    slabs = [np.mean(heads[at : at + 3], axis=0, dtype=np.float32) for at in range(0, 9, 3)]
    rounded = [np.asarray(np.rint(one * 32) / 32, np.float32) for one in slabs]
    exact, coded = (probabilities(reference.score_hu(some)[1], reference) for some in (slabs, rounded))
    assert 0 < np.abs(exact - coded).max() <= 1e-3
    assert np.abs(probabilities(network.embed_hu(slabs), reference) - exact).max() <= TOLERANCE


def test_what_is_compiled_gives_the_same(
    bundle: ModelBundle, network: DeviceNetwork, planes: list[Floats], tmp_path: Path
) -> None:
    compiled = open_network(bundle, Compiler(tmp_path, "aot_eager"))
    assert compiled.in_words == "bf16, compiled"
    assert np.allclose(compiled.embed_hu(planes), network.embed_hu(planes), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_what_is_compiled_to_machine_code_gives_the_same(
    bundle: ModelBundle, reference: Engine, planes: list[Floats], tmp_path: Path
) -> None:
    compiled = open_network(bundle, Compiler(tmp_path), buckets=(1,))
    assert compiled.in_words == "bf16, compiled"
    expected = probabilities(reference.score_hu(planes)[1], reference)
    assert np.abs(probabilities(compiled.embed_hu(planes), reference) - expected).max() <= TOLERANCE
    assert list(tmp_path.iterdir()), "what was compiled is kept where it was to be kept"


def test_nothing_is_compiled_while_slices_are_scored(bundle: ModelBundle, planes: list[Floats], tmp_path: Path) -> None:
    compiled: list[int] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        compiled.append(1)
        return graph.forward

    network = open_network(bundle, Compiler(tmp_path, count))
    assert len(compiled) == 2 * len(SMALL)
    network.embed_hu(planes)
    network.embed_hu(planes[:2])
    assert len(compiled) == 2 * len(SMALL)


def broken(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
    raise FileNotFoundError("no C compiler here")


def wrong(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
    return lambda *given: tuple(one + 1 for one in graph.forward(*given))


@pytest.mark.parametrize(("backend", "why"), [(broken, "no C compiler here"), (wrong, "gives other answers")])
def test_without_a_working_compiler_the_network_runs_as_it_is(
    bundle: ModelBundle,
    network: DeviceNetwork,
    planes: list[Floats],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    backend: Callable[..., object],
    why: str,
) -> None:
    with caplog.at_level(logging.WARNING):
        fallen_back = open_network(bundle, Compiler(tmp_path, backend))
    assert fallen_back.in_words == "bf16"
    assert [record.getMessage() for record in caplog.records if why in record.getMessage()]
    assert np.array_equal(fallen_back.embed_hu(planes), network.embed_hu(planes))


class FullAbove(Compiler):
    """A device that has room for so many slices at once."""

    def __init__(self, slices: int) -> None:
        super().__init__(None)
        self._slices = slices

    def ready(self, module: nn.Module, example: Tensor) -> Callable[[Tensor], object]:
        if len(example) > self._slices:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().ready(module, example)


def test_batches_that_do_not_fit_into_the_memory_are_left_out(
    bundle: ModelBundle, network: DeviceNetwork, planes: list[Floats], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        small = open_network(bundle, FullAbove(1))
    assert small.buckets == (1,)
    assert "too little memory on the GPU for 4 slices at once" in caplog.text
    assert np.allclose(small.embed_hu(planes), network.embed_hu(planes), rtol=0, atol=0.1)


def test_no_room_for_one_slice_is_a_failure_of_the_device(bundle: ModelBundle) -> None:
    with pytest.raises(DeviceFailed, match="no memory left"):
        open_network(bundle, FullAbove(0))


def test_work_that_is_not_recorded_leaves_its_outputs_in_one_place() -> None:
    given = torch.zeros(3)
    repeated = run_anew(lambda: (given + 1,))
    (place,) = repeated.outputs
    given.fill_(4)
    repeated.run()
    assert repeated.outputs[0] is place
    assert place.tolist() == [5, 5, 5]


def test_too_little_memory_is_seen_behind_other_errors() -> None:
    def as_a_failed_capture() -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("the capture was invalidated")

    with pytest.raises(RuntimeError, match="invalidated") as raised:
        as_a_failed_capture()
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("the capture was invalidated"))


def test_code_is_kept_in_a_named_folder_or_beside_the_model_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert compile_folder(None) is None
    assert compile_folder(tmp_path) == tmp_path / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere")
    assert compile_folder(tmp_path) == Path("/somewhere")


def test_an_engine_of_the_processor_windows_and_scores_as_in_two_steps(reference: Engine, planes: list[Floats]) -> None:
    with torch.inference_mode():
        images = torch.cat([reference.windowing(torch.from_numpy(hu).unsqueeze(0)) for hu in planes])
    for found, expected in zip(reference.score_hu(planes), reference.score(images), strict=True):
        assert np.array_equal(found, expected)


# --------------------------------------------------------------------------------------------- on a GPU


@pytest.fixture(scope="module")
def cuda(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return open_engine(bundle, "cuda", cache_directory=tmp_path_factory.mktemp("compiled"))


@needs_gpu
def test_a_gpu_compiles_records_and_agrees_with_float32(cuda: Engine, reference: Engine, planes: list[Floats]) -> None:
    assert cuda.device.endswith("bf16, compiled, CUDA graphs")
    assert cuda.buckets == BUCKETS
    expected = probabilities(reference.score_hu(planes)[1], reference)
    assert np.abs(probabilities(cuda.score_hu(planes)[1], reference) - expected).max() <= TOLERANCE


@needs_gpu
def test_a_replayed_graph_gives_what_the_network_gives_by_itself(bundle: ModelBundle, planes: list[Floats]) -> None:
    network = open_network(bundle, Compiler(None), device=torch.device("cuda"))
    assert network.in_words == "bf16, CUDA graphs"
    heads = [one for one in planes if one.shape == (SIDE, SIDE)]
    replayed = [network.embed_hu(heads) for _ in range(3)]
    assert np.array_equal(replayed[0], replayed[2])
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        codes = np.empty((len(heads), SIDE, SIDE), np.int16)
        network._write(heads, codes)
        plain, _ = network._network(network._window(torch.from_numpy(codes).cuda()))
    assert np.allclose(replayed[0], plain.cpu().numpy(), rtol=0, atol=0.02 * np.abs(replayed[0]).max())


@needs_gpu
def test_on_a_gpu_a_score_hardly_depends_on_the_batch(cuda: Engine, reference: Engine) -> None:
    heads = list(np.rint(draw_heads(36, side=512, noise_hu=3)))
    together = probabilities(cuda.score_hu(heads)[1], reference)
    for size in (1, 4, 16):
        parts = [cuda.score_hu(heads[at : at + size])[1] for at in range(0, 36, size)]
        assert np.abs(probabilities(np.concatenate(parts), reference) - together).max() <= TOLERANCE


@needs_gpu
def test_a_gpu_scores_slices_of_any_shape(cuda: Engine, reference: Engine) -> None:
    heads = [*np.rint(draw_heads(2, side=512)), *np.rint(draw_heads(2, side=768)), np.rint(draw_heads(1, side=512))[0]]
    ragged = [heads[0][:, :400].copy(), heads[1], heads[2][100:].copy(), heads[3], heads[4]]
    expected = probabilities(reference.score_hu(ragged)[1], reference)
    assert np.abs(probabilities(cuda.score_hu(ragged)[1], reference) - expected).max() <= TOLERANCE
