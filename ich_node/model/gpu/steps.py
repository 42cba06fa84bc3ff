"""Make a step ready: compiled where that works, recorded where that works, and tried before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ich_node.errors import DeviceFailed
from ich_node.model.gpu.compiling import Compiler
from ich_node.model.gpu.graphs import Recorded, Work

Run = Callable[[Tensor], Any]


def make_step(
    module: nn.Module,
    example: Tensor,
    work: Callable[[Run], tuple[Tensor, ...]],
    tolerance: float,
    compiler: Compiler,
    record: Callable[[Work], Recorded],
) -> Recorded:
    """Compile and record a module, and see that it gives what the module gives by itself.

    Args:
        module: That computes each slice by itself.
        example: What it is tried with; ``work`` reads it where it lies.
        work: Runs the module, or what was compiled of it, from and to places that stay.
        tolerance: Of the first output, relative to its length.
        compiler: May give the module back as it is.
        record: As ``CudaRecorder``.

    Raises:
        torch.OutOfMemoryError: The device has too little memory.
        DeviceFailed: Even the module as it is gives something else when it is replayed.
    """
    expected = _first(module(example[:1]))
    run = compiler.ready(module, example)
    recorded = record(lambda: work(run))
    if _agrees(recorded, expected, tolerance):
        return recorded
    if run is not module:
        compiler.give_up("what was compiled gives other answers")
        recorded = record(lambda: work(module))
        if _agrees(recorded, expected, tolerance):
            return recorded
    raise DeviceFailed(f"{example.device.type} gives other answers when work is repeated; use another engine")


def _agrees(recorded: Recorded, expected: Tensor, tolerance: float) -> bool:
    """NaN agrees with nothing."""
    recorded.run()
    found = recorded.outputs[0][:1]
    return bool((found - expected).norm() <= tolerance * expected.norm())


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
