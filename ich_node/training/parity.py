"""Do the engines of the node give what the training network gives?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.errors import TrainingError
from ich_node.model.bundle import ModelBundle
from ich_node.model.engine import Engine, EngineName, open_engine, run_sequence_head
from ich_node.model.network import SequenceHead, SliceNetwork
from ich_node.triage import calibrate

LARGEST_DIFFERENCE: Final = 0.01
"""In probability, of any class on any slice."""

_SPACING_MM: Final = 5.0
_BATCH: Final = 8
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EngineParity:
    """How far an engine is from the training network."""

    engine: str
    device: str
    slices: int
    largest_difference: float
    """In probability, of any class on any slice."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingNetwork:
    """What was trained, with its weights as they are: not rounded, in float32."""

    network: SliceNetwork
    """In evaluation mode."""
    head: SequenceHead | None = None

    def score(self, images: Tensor) -> Floats:
        """Give the logits (slices, 6) of windowed slices (slices, 3, size, size).

        A head reads them as one series; then its logits follow, and those of the study as one more row.
        """
        with torch.inference_mode():
            parts = [self.network(batch) for batch in torch.split(images, _BATCH)]
            logits, embeddings = (torch.cat(some) for some in zip(*parts, strict=True))
            if self.head is not None:
                logits, study = self.head(embeddings, torch.from_numpy(_positions_mm(len(images))))
                logits = torch.cat([logits, study.unsqueeze(0)])
        return np.asarray(logits.numpy(), np.float32)


def engines_here() -> tuple[EngineName, ...]:
    """List the engines that this machine has."""
    return ("torch", "openvino", "cuda") if torch.cuda.is_available() else ("torch", "openvino")


def check_parity(trained: TrainingNetwork, bundle: ModelBundle, images: Tensor) -> list[EngineParity]:
    """Compare every engine of this machine with the training network.

    Args:
        trained: In evaluation mode.
        bundle: As the node would load it.
        images: (slices, 3, size, size), windowed validation slices.

    Raises:
        TrainingError: an engine differs by more than 0.01 in probability; names it.
    """
    threads = torch.get_num_threads()
    expected = trained.score(images)
    try:
        found = [_compare(bundle, open_engine(bundle, name), images, expected) for name in engines_here()]
    finally:
        torch.set_num_threads(threads)  # an engine sets them for the whole process
    for one in found:
        if not one.largest_difference <= LARGEST_DIFFERENCE:
            raise TrainingError(
                f"engine {one.engine} ({one.device}) differs from the training network by {one.largest_difference:.4f} "
                f"in probability on {one.slices} validation slices; at most {LARGEST_DIFFERENCE} is allowed. Nothing "
                "was written. Store float32 weights; if it still differs, the network is too sensitive to rounding"
            )
    return found


def _compare(bundle: ModelBundle, engine: Engine, images: Tensor, expected: Floats) -> EngineParity:
    logits, embeddings = engine.score(images)
    if bundle.manifest.sequence_head is not None:
        slice_logits, study_logits = run_sequence_head(bundle, embeddings, _positions_mm(len(images)))
        logits = np.concatenate([slice_logits, study_logits[np.newaxis]])
    temperature = bundle.manifest.temperature
    difference = np.abs(_probabilities(logits, temperature) - _probabilities(expected, temperature)).max()
    return EngineParity(engine.name, engine.device, len(images), float(difference))


def _probabilities(logits: Floats, temperature: Mapping[str, float]) -> NDArray[np.float64]:
    """Calibrate, but by no temperature above 1, which would hide a difference."""
    return calibrate(logits.astype(np.float64), {name: min(value, 1.0) for name, value in temperature.items()})


def _positions_mm(slices: int) -> Floats:
    return np.arange(slices, dtype=np.float32) * np.float32(_SPACING_MM)
