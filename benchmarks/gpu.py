"""``python -m benchmarks.gpu [MODEL_DIR]``: the network on a GPU, from Hounsfield units in the host's memory.

Beside two others, in turns: eager AMP, which is what one writes first (float32 HU sent to the GPU, windowed there,
timm's network under autocast, channels last, batches as large), and the compiled network alone, replayed on images that
lie on the GPU already. Needs torch, torchvision, timm, safetensors and pydantic; neither DICOM nor database nor
OpenVINO. Without a GPU every line says that it was not measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.results import Row, print_rows
from benchmarks.tables import at_most, machine, median_and_range, print_table
from ich_node.model.bundle import ModelBundle, load_bundle
from ich_node.model.engine import Engine, build_network, open_engine
from ich_node.model.gpu import BUCKETS, Compiler
from ich_node.model.gpu.graphs import CudaRecorder
from ich_node.model.gpu.modules import InBfloat16, draw_example
from ich_node.windowing import Windowing

MODEL: Final = Path("models/ich-irv2")
SIZE_PX: Final = 299
SIDE: Final = 512
STUDY: Final = 36
STUDIES: Final = 10
"""In a turn."""
ROUNDS: Final = 7
TARGET_MS: Final = 40.0
TARGET_OF_EAGER: Final = 2.0
TARGET_OF_BARE: Final = 0.85
NO_DEVICE: Final = "no CUDA device"
_EAGER, _BARE = "torch eager, AMP in bf16, channels last", "the compiled network alone, images on the GPU"
_STEPS: Final = (
    ("GPU, HU in host memory to probabilities", "slices/s", _EAGER, TARGET_OF_EAGER),
    ("GPU, the same beside the bare network", "slices/s", _BARE, TARGET_OF_BARE),
    ("GPU, one slice at a time", "slices/s", _EAGER, None),
    (f"GPU, {STUDY} slices, HU to probabilities", "studies/s", f"the target, {TARGET_MS:g} ms a study", 1.0),
)

Planes = Sequence[NDArray[np.float32]]
Score = Callable[[Planes], object]


def measure(model: Path = MODEL) -> int:
    """Measure and print the tables; give the number of targets that were missed."""
    found = list(rows(model))
    missed = print_rows(found)
    _print_latency(found[-1])
    return missed


def rows(model: Path = MODEL) -> Iterator[Row]:
    """Give the lines of the one table."""
    if why_not := _why_not(model):
        for step, unit, alternative, target in _STEPS:
            yield Row(step, unit, [], alternative, target_ratio=target, why_not=why_not)
        return
    yield from _measured(model)


def _why_not(model: Path) -> str:
    if not torch.cuda.is_available():
        return NO_DEVICE
    return "" if (model / "manifest.json").exists() else f"{model} is missing"


def _measured(model: Path) -> Iterator[Row]:
    bundle = _at_299_px(load_bundle(model))
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name:
        engine = _open_twice(bundle, Path(name))
        bare = _bare_network(bundle, Path(name))
    eager = _eager(bundle)
    study = _draw_study()
    ours, theirs, alone = _in_turns(
        STUDIES * STUDY,
        lambda: [_probabilities(engine, study) for _ in range(STUDIES)],
        lambda: [eager(study) for _ in range(STUDIES)],
        lambda: [bare() for _ in range(STUDIES)],
    )
    one_by_one, theirs_one_by_one = _in_turns(
        STUDY,
        lambda: [_probabilities(engine, [hu]) for hu in study],
        lambda: [eager([hu]) for hu in study],
    )
    (studies,) = _in_turns(1, lambda: _probabilities(engine, study))
    there = (theirs, alone, theirs_one_by_one, [1000 / TARGET_MS])
    for (step, unit, alternative, target), here, other in zip(
        _STEPS, (ours, ours, one_by_one, studies), there, strict=True
    ):
        yield Row(step, unit, here, alternative, other, target_ratio=target)
    used, whole = engine.memory()
    print(f"GPU memory in use: {used / 2**30:.1f} of {whole / 2**30:.1f} GiB")


def _at_299_px(bundle: ModelBundle) -> ModelBundle:
    preprocessing = bundle.manifest.preprocessing.model_copy(update={"size_px": SIZE_PX})
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"preprocessing": preprocessing}))


def _open_twice(bundle: ModelBundle, folder: Path) -> Engine:
    """Open the engine with nothing kept, and again; say how long both took."""
    seconds = []
    for _ in range(2):
        torch.compiler.reset()
        began = time.perf_counter()
        engine = open_engine(bundle, "cuda", cache_directory=folder)
        seconds.append(time.perf_counter() - began)
    print(f"\n{engine.device}: opened in {seconds[0]:.0f} s, with the compiled network kept in {seconds[1]:.0f} s")
    return engine


def _bare_network(bundle: ModelBundle, folder: Path) -> Callable[[], None]:
    """Give the compiled network as a graph that is replayed on one batch."""
    device = torch.device("cuda")
    network = InBfloat16(build_network(bundle).backbone).to(device).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        images = torch.randn(BUCKETS[-1], 3, SIZE_PX, SIZE_PX, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        run = Compiler(folder / "compiled").ready(network, images)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        graph = CudaRecorder(stream)(lambda: run(images))

    def replay() -> None:
        with torch.inference_mode(), torch.cuda.stream(stream):
            graph.run()

    return replay


def _eager(bundle: ModelBundle) -> Score:
    device = torch.device("cuda")
    windowing = Windowing(bundle.manifest.preprocessing).to(device)
    network: nn.Module = build_network(bundle).to(device).to(memory_format=torch.channels_last)

    def score(planes: Planes) -> object:
        with torch.inference_mode():
            images = windowing(torch.from_numpy(np.stack(planes)).to(device))
            with torch.autocast("cuda", torch.bfloat16):
                logits, _ = network(images.contiguous(memory_format=torch.channels_last))
            return logits.float().sigmoid().cpu()

    return score


def _probabilities(engine: Engine, planes: Planes) -> NDArray[np.float32]:
    logits, _ = engine.score_hu(planes)
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def _draw_study() -> list[NDArray[np.float32]]:
    example = np.rint(draw_example(SIDE))
    return [np.roll(example, number, axis=0) for number in range(STUDY)]


def _in_turns(count: int, *works: Callable[[], object]) -> tuple[list[float], ...]:
    """Give what each did a second, in each round, after one round that does not count."""
    rates: tuple[list[float], ...] = tuple([] for _ in works)
    for number in range(ROUNDS + 1):
        for work, found in zip(works, rates, strict=True):
            torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            torch.cuda.synchronize()
            if number:
                found.append(count / (time.perf_counter() - began))
    return rates


def _print_latency(row: Row) -> None:
    """The last line once more, as people think of it; its target was counted there."""
    cell, wanted = f"not measured ({row.why_not})", f"≤ {TARGET_MS:g} ms"
    if row.here:
        milliseconds = [1000 / rate for rate in row.here]
        cell, wanted = median_and_range(milliseconds), at_most(statistics.median(milliseconds), TARGET_MS, "ms")
    print_table("One study on the GPU", ("", "ms", "target"), [(row.step, cell, wanted)])


def main() -> None:
    """Measure one model; exit status 1 where a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=MODEL, metavar="MODEL_DIR")
    options = parser.parse_args()
    print(machine())
    if missed := measure(options.model):
        sys.exit(f"{missed} targets missed")


if __name__ == "__main__":
    main()
