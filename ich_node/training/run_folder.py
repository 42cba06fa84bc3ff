"""What ``fit`` leaves behind, as ``evaluate`` and ``export`` read it.

=========================== =========================================================================================
``config.json``             resolved settings: ``RunInfo`` and whatever else fit writes down
``final.safetensors``       weights at the end of training, float32, a whole ``SliceNetwork``
``best.safetensors``        weights of the best epoch on the slices held out
``held-out.csv``            scores of the slices held out
=========================== =========================================================================================
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from torch import Tensor

from ich_node.errors import TrainingError
from ich_node.training.prepared import PreparedSet
from ich_node.windowing import Preprocessing

CONFIG: Final = "config.json"
HELD_OUT: Final = "held-out.csv"
Weights = Literal["final", "best"]


class RunData(BaseModel):
    """A source of slices that a run was trained on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    terms: str
    """Of use, as its publisher states them."""
    slices: int | None = None
    patients: int | None = None


class RunInfo(BaseModel):
    """What a run was, as far as others need to know; fit writes more beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    backbone: str
    """As timm names it."""
    size_px: int
    preprocessing: Preprocessing
    neighbours: int = Field(ge=0)
    """Slices on each side that the network sees beside its own."""
    data: tuple[RunData, ...] = ()

    @property
    def fold(self) -> int | None:
        """The fold that was held out; None where the run saw everything."""
        fold = (self.model_extra or {}).get("settings", {}).get("fold")
        return None if fold is None else int(fold)

    @model_validator(mode="after")
    def _has_one_size(self) -> "RunInfo":
        if self.size_px != self.preprocessing.size_px:
            raise ValueError(f"size_px {self.size_px}, but preprocessing makes {self.preprocessing.size_px}")
        return self


def read_run(directory: Path) -> RunInfo:
    """Read the settings of a run.

    Raises:
        TrainingError: they are missing or not understood.
    """
    path = directory / CONFIG
    try:
        return RunInfo.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise TrainingError(f"{path}: not there; give the folder of a run of `ich-train fit`") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise TrainingError(f"{path}: {faults}; run `ich-train fit` again") from None


def network_of(directory: Path) -> str:
    """A fingerprint of what kind of network a run makes: the same for all folds, and for the run on everything.

    Raises:
        TrainingError: the run's settings are missing or not understood.
    """
    run = read_run(directory)
    settings = {name: value for name, value in (run.model_extra or {}).get("settings", {}).items() if name not in _FREE}
    tables = sorted({str((one.model_extra or {}).get("table_sha256", "")) for one in run.data})
    facts = [run.backbone, run.neighbours, run.preprocessing.model_dump(mode="json"), tables, settings]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


OF_THE_MACHINE: Final = frozenset(
    ("resident_gib", "compile", "checkpoint_minutes", "validate_epochs", "validation_slices")
)
"""Settings that say how fast and how often, and change nothing of what is learned."""
_FREE: Final = OF_THE_MACHINE | {"fold", "seed", "name", "init"}
"""Settings in which the runs of one model may differ."""


def demand_data(directory: Path, data: Sequence[PreparedSet]) -> None:
    """Refuse prepared sets that are not those of a run: another table may have other folds.

    Raises:
        TrainingError: they are others.
    """
    wanted = {str((one.model_extra or {}).get("table_sha256", "")) for one in read_run(directory).data} - {""}
    given = {one.manifest.table_sha256 for one in data}
    if wanted and not given <= wanted:
        raise TrainingError(
            f"the prepared sets are not those that {directory} was trained with (another table, perhaps other folds); "
            "give the same --data, or train again"
        )


def read_weights(directory: Path, which: Weights = "final") -> dict[str, Tensor]:
    """Read the weights of a run's slice network, float32.

    Raises:
        TrainingError: they are missing, damaged, or hold NaN.
    """
    path = directory / f"{which}.safetensors"
    try:
        state: dict[str, Tensor] = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise TrainingError(f"{path}: not there; it is written when `ich-train fit` ends") from None
    except SafetensorError as error:
        raise TrainingError(f"{path}: no safetensors file ({error}); run `ich-train fit` again") from None
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise TrainingError(f"{path}: {name} holds NaN or infinity; train the run again")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
