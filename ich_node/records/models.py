"""Which model answers, which one scores in silence beside it, and what that one says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from ich_node.records.states import NotAnalysedReason, Triage

MODEL_MANIFEST: Final = "manifest.json"
"""Of a bundle; written last: a folder with a manifest is a whole bundle."""
MODEL_SIGNATURE: Final = f"{MODEL_MANIFEST}.sig"


def quantized_in_words(figures: Mapping[str, Any]) -> str:
    """Say in one line how far a network in 8 bits is from float32; ``figures`` as the manifest states them."""
    return (
        f"in 8 bits a slice differs by at most {figures['largest_difference']:.3f} in probability from float32 "
        f"(mean {figures['mean_difference']:.4f}, {figures['slices']} slices), and {figures['equal_decisions']} of "
        f"{figures['studies']} studies come out the same"
    )


class ModelUse(StrEnum):
    """What a model is used for."""

    ACTIVE = "active"
    """What it says is the node's answer."""
    SILENT = "silent"
    """It scores what the other one has answered; nobody is told but who looks at the page of models."""


class ModelChoiceState(StrEnum):
    """Where the choice of a model stands."""

    REQUESTED = "REQUESTED"
    IN_USE = "IN_USE"
    REFUSED = "REFUSED"
    REPLACED = "REPLACED"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """That a person chose a model."""

    id: int
    use: ModelUse
    directory: Path | None
    """Of the bundle; None: no silent model any more."""
    name: str
    version: str
    sha256: str
    state: ModelChoiceState
    error: str
    reason: str
    chosen_by: str
    chosen_at: float
    settled_at: float | None


WORKER_NOTED_EVERY_S: Final = 30.0
WORKER_GONE_S: Final = 4 * WORKER_NOTED_EVERY_S
"""Without a note for so long a worker does not run any more."""


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """What a worker computes with."""

    engine: str
    device: str
    memory_used: int
    """Bytes: of a GPU all that is in use, of a processor what the worker itself holds."""
    memory_total: int
    """Bytes that there are."""
    model_name: str
    model_version: str
    model_sha256: str
    seen_at: float = 0.0


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """What the silent model says of a series."""

    triage: Triage | None
    reason: NotAnalysedReason | None
    probabilities: Mapping[str, float] | None
    seconds: float
    """Of computing."""
