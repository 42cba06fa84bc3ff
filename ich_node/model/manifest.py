"""What the manifest of a model bundle states: everything that turns pixels into a finding, but the weights."""

import re
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ich_node.model.network import SequenceHeadSettings
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.windowing import Preprocessing

WEIGHT_SUFFIX = ".safetensors"
_ALLOWED_SUFFIXES = (WEIGHT_SUFFIX, ".md", ".txt")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Thresholds(_Record):
    """Probability below ``low`` is negative, from ``high`` on positive, between them indeterminate."""

    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _is_ordered(self) -> "Thresholds":
        if self.low > self.high:
            raise ValueError("low must not exceed high")
        return self


class TrainingData(_Record):
    """A set of images that the weights rest on."""

    name: str
    terms: str
    """Of use, as its publisher states them."""
    slices: int | None = Field(default=None, ge=0)
    patients: int | None = Field(default=None, ge=0)


class Metric(_Record):
    """A measured figure with its 95 % confidence interval."""

    name: str
    data: str
    """What it was measured on."""
    value: float
    low: float | None = None
    high: float | None = None


class Manifest(_Record):
    """The whole of ``manifest.json``."""

    format_version: Literal[1] = 1
    name: str = Field(min_length=1, max_length=64)
    version: str = Field(min_length=1, max_length=32)
    trained: bool
    backbone: str
    """As timm names it."""
    classes: tuple[str, ...] = HEMORRHAGE_CLASSES
    preprocessing: Preprocessing
    sequence_head: SequenceHeadSettings | None = None
    temperature: dict[str, float]
    """Per class; a logit is divided by it before the sigmoid."""
    thresholds: dict[str, Thresholds]
    thresholds_basis: str
    """What the thresholds rest on."""
    training_data: tuple[TrainingData, ...] = ()
    metrics: tuple[Metric, ...] = ()
    files: dict[str, str]
    """SHA-256 of every other file of the bundle, by its name."""

    @field_validator("classes")
    @classmethod
    def _has_our_order(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if classes != HEMORRHAGE_CLASSES:
            raise ValueError(f"the class order must be {', '.join(HEMORRHAGE_CLASSES)}")
        return classes

    @field_validator("temperature", "thresholds")
    @classmethod
    def _names_every_class(cls, per_class: dict[str, Any]) -> dict[str, Any]:
        if set(per_class) != set(HEMORRHAGE_CLASSES):
            raise ValueError(f"one entry for each of {', '.join(HEMORRHAGE_CLASSES)} is needed")
        return per_class

    @field_validator("temperature")
    @classmethod
    def _is_positive(cls, temperature: dict[str, float]) -> dict[str, float]:
        if not all(0 < value < 100 for value in temperature.values()):
            raise ValueError("temperatures lie above 0 and below 100")
        return temperature

    @field_validator("files")
    @classmethod
    def _holds_plain_safe_files(cls, files: dict[str, str]) -> dict[str, str]:
        for name, sha256 in files.items():
            if PurePosixPath(name).name != name or "\\" in name or name.startswith("."):
                raise ValueError(f"{name!r} is no plain file name")
            if not name.endswith(_ALLOWED_SUFFIXES):
                raise ValueError(f"{name}: only safetensors weights are loaded, no pickle and nothing else")
            if not _SHA256.fullmatch(sha256):
                raise ValueError(f"{name}: {sha256!r} is no SHA-256")
        return files
