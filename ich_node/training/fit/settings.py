"""Everything a run depends on, and the presets that fill it."""

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ich_node.errors import TrainingError
from ich_node.model.network import DEFAULT_BACKBONE
from ich_node.training.run_folder import CONFIG
from ich_node.windowing import Preprocessing


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Augmentation(_Record):
    """How far a slice is changed at each reading; each amount is drawn evenly between the ends. 0 is off."""

    rotation_degrees: float = Field(default=20.0, ge=0, le=180)
    scale: float = Field(default=0.15, ge=0, lt=1)
    shift_fraction: float = Field(default=0.08, ge=0, le=0.5)
    """Of the head box's side."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of left for right."""
    erase: float = Field(default=0.25, ge=0, le=1)
    """Probability that a rectangle of 2 to 10 % of the image is blackened."""
    level_hu: float = Field(default=6.0, ge=0)
    width_fraction: float = Field(default=0.15, ge=0, lt=1)
    noise_hu: float = Field(default=12.0, ge=0)
    """Largest standard deviation; thin slices are three times noisier than the usual 4 HU (model.md, scanners)."""
    blur_px: float = Field(default=1.0, ge=0, le=2)
    """Largest standard deviation."""
    brain_for_other_windows: float = Field(default=0.0, ge=0, le=1)
    """Probability, for the subdural and the soft tissue channel each, that it shows the brain window instead: then no
    source is told apart by what its images hold beyond the brain window."""


NO_AUGMENTATION: Final = Augmentation(
    rotation_degrees=0, scale=0, shift_fraction=0, flip=0, erase=0, level_hu=0, width_fraction=0, noise_hu=0, blur_px=0
)


def channels_of(neighbours: int) -> int:
    """Three windows of the slice itself and of so many on either side."""
    return 3 * (1 + 2 * neighbours)


class FitSettings(_Record):
    """The resolved configuration of a run, kept beside its weights."""

    preset: str = "best"
    name: str = "ich"
    seed: int = 0
    # the network
    backbone: str = DEFAULT_BACKBONE
    """As timm names it."""
    pretrained: bool = False
    """Start from timm's ImageNet weights, fetched from its hub."""
    init: str | None = None
    """Start from the weights of this run folder or bundle."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    size_px: int = Field(default=299, ge=32, le=1024)
    early_size_px: int | None = Field(default=None, ge=32, le=1024)
    """Of the first part of the run: small images cost little and teach most of what there is to learn first
    (arXiv 2104.00298). None: as ``size_px``."""
    early_fraction: float = Field(default=0.4, ge=0, le=1)
    """Of all steps, at ``early_size_px``."""
    final_size_px: int | None = Field(default=None, ge=32, le=1024)
    """Of the last part of the run; the size that the model is used at. None: as ``size_px``."""
    final_fraction: float = Field(default=0.2, ge=0, le=1)
    """Of all steps, at ``final_size_px``."""
    neighbours: Literal[0, 1] = 0
    """1: the slice before and the one after are shown too, as six more channels."""
    preprocessing: Preprocessing = Preprocessing()
    """All but ``size_px``, which the run sets."""
    augmentation: Augmentation = Augmentation()
    # what is seen
    fold: int | None = None
    """Held out and scored at the end; None trains on everything."""
    rates: dict[str, float] = {}
    """How much oftener than once an epoch slices are drawn, by source or by what the source gave (``kind``)."""
    positive_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of draws with any hemorrhage; the logits are corrected for it. None: as the data are."""
    patient_share: float | None = Field(default=None, gt=0, le=1)
    """No known patient gets more than this share of an epoch."""
    allow_empty: tuple[str, ...] = ()
    """Classes that may be without a positive slice."""
    # the schedule
    epochs: int = Field(default=5, ge=1)
    draws: int | None = Field(default=None, ge=1)
    """Slices in an epoch; None: as many as there are to train on."""
    batch: int = Field(default=32, ge=2)
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    any_weight: float = Field(default=2.0, gt=0)
    """Of ``any`` in the loss, as the RSNA challenge weighs it; the subtypes count 1."""
    ema: float | None = Field(default=0.999, gt=0, lt=1)
    """Decay of the moving average of the weights that is validated and kept; None: off."""
    clip_norm: float | None = Field(default=None, gt=0)
    # the machine
    precision: Literal["bf16", "f32"] = "bf16"
    compile: bool = False
    resident_gib: float = Field(default=8.0, ge=0)
    """Sets up to this size lie on the device; larger ones are read from the disk as they are needed."""
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    validate_epochs: int = Field(default=1, ge=1)
    """Every so many epochs the slices held out are scored."""
    validation_slices: int | None = Field(default=None, ge=1)
    """Of those held out, how many are scored between epochs; all of them are at the end."""

    @field_validator("allow_empty", mode="before")
    @classmethod
    def _takes_one_word(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _knows_its_rates(self) -> "FitSettings":
        if any(rate < 0 for rate in self.rates.values()):
            raise ValueError("a rate is 0 or more")
        return self

    @property
    def used_at_px(self) -> int:
        """Side of the images that the finished network is used with."""
        return self.final_size_px or self.size_px

    @property
    def channels(self) -> int:
        return channels_of(self.neighbours)


PRESETS: Final[dict[str, dict[str, Any]]] = {
    # What the project started from.
    "seed": {
        "optimizer": "adam", "learning_rate": 1e-5, "weight_decay": 0.0, "schedule": "constant", "warmup_fraction": 0.0,
        "any_weight": 1.0, "ema": None, "precision": "f32", "augmentation": NO_AUGMENTATION, "pretrained": True,
        "epochs": 5, "size_px": 299,
    },
    # For weights that were trained before: what the best solutions of RSNA 2019 agree on.
    "best": {
        "pretrained": True, "learning_rate": 1e-4, "weight_decay": 0.01, "epochs": 5, "ema": 0.999, "clip_norm": 1.0,
        "size_px": 299,
    },
    # From random weights.
    "scratch": {
        "learning_rate": 1e-3, "weight_decay": 0.05, "warmup_fraction": 0.05, "epochs": 40, "dropout": 0.3,
        "ema": 0.999, "clip_norm": 1.0, "size_px": 299,
    },
}  # fmt: skip


def read_settings(directory: Path) -> FitSettings:
    """Read the settings of a run.

    Raises:
        TrainingError: there is no run, or one of another version.
    """
    try:
        return FitSettings(**json.loads((directory / CONFIG).read_text())["settings"])
    except FileNotFoundError:
        raise TrainingError(f"{directory}: no run is here; give the folder that `ich-train fit` made") from None
    except (ValueError, KeyError) as error:
        raise TrainingError(f"{directory / CONFIG}: of another version ({error}); train the run again") from None


def make_settings(preset: str, changes: dict[str, Any]) -> FitSettings:
    """Resolve a preset and what is to differ from it.

    Raises:
        TrainingError: there is no such preset or setting, or a value is out of range; all faults are named.
    """
    if preset not in PRESETS:
        raise TrainingError(f"there is no preset {preset!r}; one of {', '.join(PRESETS)}")
    given = {**PRESETS[preset], **changes, "preset": preset}
    if given.get("init") and "pretrained" not in changes:
        given["pretrained"] = False
    try:
        return FitSettings(**given)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise TrainingError(f"settings of the run: {faults}") from None
