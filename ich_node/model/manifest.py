"""What the manifest of a model bundle states: everything that turns pixels into a finding, but the weights."""

import math
import re
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ich_node.model.network import SequenceHeadSettings
from ich_node.records import HEMORRHAGE_CLASSES, quantized_in_words
from ich_node.windowing import Preprocessing

WEIGHT_SUFFIX = ".safetensors"
_ALLOWED_SUFFIXES = (WEIGHT_SUFFIX, ".md", ".txt")
QUANTIZED_STEM = "slice-network-int8"
_QUANTIZED_FILE = re.compile(QUANTIZED_STEM + r"(\.xml|-\d{2}-of-\d{2}\.bin)")
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

    def in_words(self) -> str:
        """Say it in one line."""
        interval = "" if self.low is None or self.high is None else f" (95 % {self.low:.4g} to {self.high:.4g})"
        return f"{self.name} on {self.data}: {self.value:.4g}{interval}"


class OperatingPoint(_Record):
    """What was measured of a class at its two thresholds, on cases that the network had not seen."""

    level: Literal["study", "slice"]
    """``slice`` where there were no studies to choose on."""
    positives: int = Field(ge=0)
    negatives: int = Field(ge=0)
    target_sensitivity: float = Field(gt=0, lt=1)
    sensitivity: float | None = None
    """At ``low``: the share of positives that are not called negative. None without positives."""
    sensitivity_low: float | None = None
    """Lower end of its exact 95 % interval (Clopper and Pearson 1934)."""
    meets_bound: bool = False
    """``sensitivity_low`` reaches the target; else only ``sensitivity`` does, if there are positives at all."""
    specificity: float | None = None
    """At ``low``: the share of negatives that are called negative. None without negatives."""
    target_specificity: float = Field(gt=0, lt=1)
    sensitivity_at_high: float | None = None
    """The share of positives that are called positive."""
    specificity_at_high: float | None = None
    """The share of negatives that are not called positive."""

    def in_words(self, name: str) -> str:
        """Say in one line how far the lower threshold of class ``name`` can be trusted."""
        cases = _cases(self.positives, "positive", self.level)
        if self.sensitivity is None or self.sensitivity_low is None:
            return f"{name}: no positive {_plural(self.level)} to choose on, always indeterminate"
        met = "met" if self.meets_bound else "NOT met"
        specificity = "not known" if self.specificity is None else _down(self.specificity)
        return (
            f"{name}: sensitivity {_down(self.sensitivity)} (lower bound {_down(self.sensitivity_low)}, "
            f"target {self.target_sensitivity:g} {met}: {cases}), "
            f"specificity {specificity} ({_cases(self.negatives, 'negative', self.level)})"
        )


def _down(share: float) -> str:
    """Write a share with two digits, rounded down: 0.949 is not 0.95."""
    return f"{math.floor(100 * share + 1e-9) / 100:.2f}"


def _cases(count: int, kind: str, level: str) -> str:
    return f"{count} {kind} {level if count == 1 else _plural(level)}"


def _plural(level: str) -> str:
    return "studies" if level == "study" else "slices"


class QuantizedFigures(_Record):
    """How far the network in 8 bits is from the same network in float32."""

    compared_on: str
    """Which slices; none of them set a range."""
    slices: int = Field(ge=1)
    largest_difference: float = Field(ge=0, le=1)
    """In calibrated probability, of any class on any slice."""
    mean_difference: float = Field(ge=0, le=1)
    """Mean over slices of the largest difference of a class."""
    studies: int = Field(ge=0)
    equal_decisions: int = Field(ge=0)
    """Studies that came out positive, indeterminate or negative as in float32."""
    device: str
    """What it was measured on."""

    @model_validator(mode="after")
    def _counts_studies(self) -> "QuantizedFigures":
        if self.equal_decisions > self.studies:
            raise ValueError("more studies came out the same than there were")
        return self

    def in_words(self) -> str:
        """Say it in one line."""
        return quantized_in_words(self.model_dump())


class QuantizedNetwork(_Record):
    """The slice network in 8 bits, which the bundle holds beside the other one for the engine ``openvino-int8``."""

    made_by: str
    """Programs and versions."""
    recipe: str
    """How it was quantized."""
    calibrated_on: str
    """Which slices set the ranges of its activations."""
    figures: QuantizedFigures | None = None
    """Without them it is not used."""


def is_quantized_file(name: str) -> bool:
    """Tell whether a file of this name is of the network in 8 bits."""
    return _QUANTIZED_FILE.fullmatch(name) is not None


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
    operating_points: dict[str, OperatingPoint] | None = None
    """Per class, what was measured at the thresholds; None where nothing was, as of an untrained model."""
    activation_maps: bool = False
    """The last layer reads a mean over places, so the network itself says where its score comes from."""
    training_data: tuple[TrainingData, ...] = ()
    metrics: tuple[Metric, ...] = ()
    quantized: QuantizedNetwork | None = None
    """What is known of the network in 8 bits; None where the bundle holds none."""
    files: dict[str, str]
    """SHA-256 of every other file of the bundle, by its name."""

    @field_validator("classes")
    @classmethod
    def _has_our_order(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if classes != HEMORRHAGE_CLASSES:
            raise ValueError(f"the class order must be {', '.join(HEMORRHAGE_CLASSES)}")
        return classes

    @field_validator("temperature", "thresholds", "operating_points")
    @classmethod
    def _names_every_class(cls, per_class: dict[str, Any] | None) -> dict[str, Any] | None:
        if per_class is not None and set(per_class) != set(HEMORRHAGE_CLASSES):
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
            if not (name.endswith(_ALLOWED_SUFFIXES) or is_quantized_file(name)):
                raise ValueError(f"{name}: only safetensors weights are loaded, no pickle and nothing else")
            if not _SHA256.fullmatch(sha256):
                raise ValueError(f"{name}: {sha256!r} is no SHA-256")
        return files
