"""The network alone on the processor: every engine in turns, against torch as it comes, and against the machine.

The reference is timm's network in float32 as torch runs it without further ado. All see one slice at a time, as the
node's worker does. Other work on the machine slows each of them in its turn, so a ratio is taken within a round.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
import torch
from openvino import opset13 as ops
from torch import Tensor, nn

from benchmarks.tables import at_least, median_and_range, print_table
from ich_node.model.activation_map import FeatureMaps
from ich_node.model.bundle import ModelBundle, load_bundle
from ich_node.model.engine import build_network
from ich_node.model.openvino_backbone import (
    BATCH_SIZE,
    Precision,
    best_precision,
    compile_model,
    convert_backbone,
    openvino_core,
)
from ich_node.phantom import PhantomSettings, draw_volume
from ich_node.windowing import Windowing

MODEL: Final = Path("models/ich-irv2")
REFERENCE_PX: Final = 299
ROUNDS: Final = 7
SLICES: Final = 8
"""In a turn."""

TARGETS: Final = {"bf16": 2.5, "f32": 1.25, "int8": 4.5}
_MATMUL: Final = (2048, 4096, 4096)
_MATMUL_RUNS: Final = 5


@dataclass(frozen=True, slots=True)
class Runner:
    """A way to run the network."""

    name: str
    precision: str
    run: Callable[[Tensor], object]
    """On one slice (1, 3, size, size)."""
    target: float | None = None
    """Times as fast as the reference, at 299 px."""


def measure() -> int:
    """Measure and print the tables; give the number of targets that were missed."""
    if not (MODEL / "manifest.json").exists():
        print(f"network: skipped, {MODEL} is missing (make model)")
        return 0
    bundle, threads = load_bundle(MODEL), len(os.sched_getaffinity(0))
    gflops = measure_machine(threads)
    sizes = sorted({REFERENCE_PX, bundle.manifest.preprocessing.size_px}, reverse=True)
    return sum(_measure_size(bundle, size_px, threads, gflops) for size_px in sizes)


def _measure_size(bundle: ModelBundle, size_px: int, threads: int, gflops: dict[str, float]) -> int:
    images = make_images(bundle, size_px)
    operations = giga_operations(build_network(bundle), images[:1])
    runners = make_runners(bundle, size_px, threads)
    rates = rates_in_turns(runners, images, threads)
    rows = []
    for runner, rate in zip(runners, rates, strict=True):
        ratios = [one / reference for one, reference in zip(rate, rates[0], strict=True)]
        wanted = size_px == REFERENCE_PX and runner.target is not None
        limit = gflops[runner.precision] / operations
        rows.append(
            (
                runner.name,
                median_and_range(rate),
                median_and_range(ratios, 2),
                at_least(statistics.median(ratios), runner.target or 0.0, "x") if wanted else "",
                f"{limit:.0f}",
                f"{100 * statistics.median(rate) / limit:.0f} %",
            )
        )
    manifest, load = bundle.manifest, os.getloadavg()[0]
    title = (
        f"{manifest.backbone} of {manifest.name} {manifest.version} at {size_px} px, {operations:.1f} GFLOP a slice; "
        f"one slice at a time, {threads} threads, {ROUNDS} rounds of {SLICES} slices in turns; load {load:.1f}"
    )
    head = ("engine", "slices/s", "ratio to the first", "target", "machine's limit, slices/s", "reached")
    return print_table(title, head, rows)


def make_images(bundle: ModelBundle, size_px: int) -> Tensor:
    """Give windowed slices (SLICES, 3, size, size) of a phantom."""
    volume = draw_volume(PhantomSettings(lesion="subdural", slices=SLICES, slice_spacing_mm=160 / SLICES))
    preprocessing = bundle.manifest.preprocessing.model_copy(update={"size_px": size_px})
    with torch.inference_mode():
        return Windowing(preprocessing)(torch.from_numpy(np.asarray(volume, np.float32)))


def make_runners(bundle: ModelBundle, size_px: int, threads: int) -> list[Runner]:
    """Set every way up; the reference comes first."""
    plain, laid_out = build_network(bundle), build_network(bundle).to(memory_format=torch.channels_last)
    best = best_precision()
    runners = [
        Runner("torch eager, f32 (the reference)", "f32", plain),
        Runner("torch eager, f32, channels last (engine torch)", "f32", _channels_last(laid_out)),
        Runner("torch eager, bf16 autocast, channels last", "bf16", _autocast(laid_out)),
    ]
    model = convert_backbone(FeatureMaps(build_network(bundle).backbone), [BATCH_SIZE, 3, size_px, size_px])
    core = openvino_core()
    precisions: tuple[Precision, ...] = ("f32", "bf16") if best == "bf16" else ("f32",)
    for precision in precisions:
        used = " (engine openvino)" if precision == best else ""
        request = compile_model(core, model, precision, threads)
        runners.append(Runner(f"OpenVINO, {precision}{used}", precision, _infer(request), TARGETS[precision]))
    if bundle.quantized is None:
        print(f"network: int8 is left out, {MODEL} holds no network in 8 bits")
        return runners
    quantized = core.read_model(bundle.quantized.graph, bundle.quantized.weights)
    quantized.reshape([BATCH_SIZE, 3, size_px, size_px])
    request = compile_model(core, quantized, "f32", threads)
    return [*runners, Runner("OpenVINO, int8 (engine openvino-int8)", "int8", _infer(request), TARGETS["int8"])]


def _channels_last(network: nn.Module) -> Callable[[Tensor], object]:
    return lambda image: network(image.contiguous(memory_format=torch.channels_last))


def _autocast(network: nn.Module) -> Callable[[Tensor], object]:
    def run(image: Tensor) -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return network(image.contiguous(memory_format=torch.channels_last))

    return run


def _infer(request: Any) -> Callable[[Tensor], object]:
    return lambda image: request.infer([image.numpy()])


def rates_in_turns(runners: list[Runner], images: Tensor, threads: int) -> list[list[float]]:
    """Give the slices per second of each runner in each round."""
    rates: list[list[float]] = [[] for _ in runners]
    torch.set_num_threads(threads)
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for runner, found in zip(runners, rates, strict=True):
                runner.run(images[:1])
                began = time.perf_counter()
                for image in torch.split(images, 1):
                    runner.run(image)
                found.append(len(images) / (time.perf_counter() - began))
    return rates


def giga_operations(network: nn.Module, image: Tensor) -> float:
    """Count the multiplications and additions of the convolutions, in thousands of millions for one slice."""
    counted: list[int] = []

    def count(layer: nn.Conv2d, _inputs: object, output: Tensor) -> None:
        counted.append(2 * output[0].numel() * layer.weight[0].numel())

    hooks = [one.register_forward_hook(count) for one in network.modules() if isinstance(one, nn.Conv2d)]
    with torch.inference_mode():
        network(image)
    for hook in hooks:
        hook.remove()
    return sum(counted) / 1e9


# ------------------------------------------------------------------------------------------- the machine


def measure_machine(threads: int) -> dict[str, float]:
    """Give the GFLOP/s of one large product of matrices in each precision; print them."""
    found = {precision: _matmul_gflops(precision, threads) for precision in ("f32", "bf16", "int8")}
    rows, columns, inner = _MATMUL
    title = f"What the machine multiplies: {rows} x {inner} by {inner} x {columns}, best of {_MATMUL_RUNS}, OpenVINO"
    print_table(title, ("precision", "GFLOP/s"), [(name, f"{value:.0f}") for name, value in found.items()])
    return found


def _matmul_gflops(precision: str, threads: int) -> float:
    rows, columns, inner = _MATMUL
    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (inner, columns), np.int8)
    entered = ops.parameter([rows, inner], np.float32)
    if precision == "int8":
        left = ops.fake_quantize(entered, *(np.float32(one) for one in (0, 255, 0, 255)), 256)
        right = ops.multiply(ops.convert(ops.constant(weights), np.float32), ops.constant(np.float32(1 / 127)))
    else:
        left, right = entered, ops.constant(weights.astype(np.float32))
    model = openvino.Model([ops.matmul(left, right, False, False)], [entered])
    hint: Precision = "bf16" if precision == "bf16" else "f32"
    request = compile_model(openvino_core(), model, hint, threads)
    values = random.integers(0, 256, (rows, inner)).astype(np.float32)
    seconds = []
    for _ in range(1 + _MATMUL_RUNS):
        began = time.perf_counter()
        request.infer([values])
        seconds.append(time.perf_counter() - began)
    return 2e-9 * rows * columns * inner / min(seconds[1:])
