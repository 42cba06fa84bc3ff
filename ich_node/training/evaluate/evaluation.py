"""What an evaluation says, as ``evaluation.json`` holds it: stable names, shares from 0 to 1, areas in mm².

A figure that cannot be told is null and says why in ``note``. Every interval is of 95 %, by bootstrap over patients.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ich_node.errors import TrainingError
from ich_node.model.manifest import OperatingPoint, Thresholds


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Record):
    """A measured value with its 95 % interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


class ClassResult(_Record):
    """One class at one level."""

    positives: int
    negatives: int
    positive_patients: int
    few_cases: bool
    """Fewer positive patients than can carry a figure."""
    figures: dict[str, Figure]
    """``auc``, ``average_precision``, ``brier``, ``log_loss``, and ``sensitivity_`` and ``specificity_`` of ``low``
    (not negative), ``high`` (positive) and ``half`` (0.5)."""


class LevelResult(_Record):
    """All classes, on slices or on studies."""

    level: Literal["slice", "study"]
    cases: int
    patients: int
    resamples: int
    """That the intervals rest on; fewer than were asked for where there are very many cases."""
    weighted_log_loss: Figure
    """Calibrated: on slices with temperatures of the other folds, on studies with those that are shipped."""
    weighted_log_loss_uncalibrated: Figure | None = None
    """On slices: of the logits as they are."""
    weighted_log_loss_of_priors: float
    """Of who answers every case with the frequencies of the classes in these very cases."""
    classes: dict[str, ClassResult]


class SourceResult(_Record):
    """One source of data by itself."""

    slices: LevelResult
    studies: LevelResult | None


class LesionSize(_Record):
    """How many of the hemorrhages of one size are found."""

    level: Literal["slice", "study"]
    """Of a study, the size in its slice with the largest."""
    from_mm2: float
    to_mm2: float | None
    positives: int
    patients: int
    sensitivity_low: Figure
    sensitivity_high: Figure


class ReliabilityBin(_Record):
    """Cases with about the same probability."""

    cases: int
    mean_probability: float
    observed: float
    """The share of them that is positive."""


class CalibrationFigures(_Record):
    """How far probabilities can be taken at their word."""

    expected_calibration_error: float
    """Over 15 bins of equal mass."""
    brier: float
    log_loss: float
    reliability: tuple[ReliabilityBin, ...]


class ClassCalibration(_Record):
    """One class before and after temperature scaling, on slices."""

    temperature: float
    """That is shipped, fitted on all."""
    note: str
    fold_temperatures: dict[str, float]
    """Per fold, fitted on the others; ``after`` is measured with these."""
    before: CalibrationFigures
    after: CalibrationFigures
    studies: CalibrationFigures | None
    """Of the studies' own probabilities, with the shipped temperature."""


class CrossFitted(_Record):
    """What thresholds do to cases that had no part in choosing them: each fold by the thresholds of the others."""

    sensitivity_low: float | None
    specificity_low: float | None
    sensitivity_high: float | None
    specificity_high: float | None


class Prevalence(_Record):
    """What a site with so many positives among its studies would see, for ``any``."""

    prevalence: float
    answer: Literal["not negative", "positive"]
    """What counts as an alert: from the low threshold on, or from the high one."""
    ppv: Figure
    npv: Figure
    alerts_per_100: Figure


class Confusion(_Record):
    """Truth against the three answers."""

    level: Literal["slice", "study"]
    positive: tuple[int, int, int]
    """Positive cases that are called negative, indeterminate, positive."""
    negative: tuple[int, int, int]


class WorstCase(_Record):
    """A slice where ``any`` is most wrong."""

    source: str
    image_id: str
    probability: float
    labels: tuple[str, ...]
    """The classes that it shows."""


class Disturbance(_Record):
    """What noise or a shifted level does to the probability of ``any``, on slices held out."""

    noise: float
    """Added, in multiples of that of a usual thick slice; a thin one has three times as much."""
    noise_hu: float
    """Its standard deviation."""
    level_hu: float
    """That every value is shifted by."""
    slices: int
    positives: int
    mean_difference: float
    """From the probability of the slice as it is, without sign."""
    auc_any: float | None


class Conditions(_Record):
    """What was measured, and how."""

    made_by: str
    runs: tuple[str, ...]
    slices: int
    patients: int
    patients_known: bool
    """False: for some slices the group of near-duplicates or the image stands in for the patient."""
    studies: int
    folds: tuple[int, ...]
    sources: dict[str, int]
    """Slices of each."""
    phantoms_only: bool
    """Synthetic phantoms alone: a test of the software, no clinical figure."""
    phantoms_left_out: int
    sequence_head: bool
    network: str = ""
    """Fingerprint of the kind of network; what is exported must have the same. Empty where it is not known."""
    resamples: int
    seed: int
    target_sensitivity: float
    target_specificity: float
    versions: dict[str, str]


class Evaluation(_Record):
    """The whole of ``evaluation.json``."""

    format_version: Literal[1] = 1
    conditions: Conditions
    slices: LevelResult
    studies: LevelResult | None
    """None where the data hold no whole studies."""
    sources: dict[str, SourceResult]
    lesion_sizes: tuple[LesionSize, ...]
    """Empty where no size is known."""
    temperature: dict[str, float]
    thresholds: dict[str, Thresholds]
    operating_points: dict[str, OperatingPoint]
    cross_fitted: dict[str, CrossFitted]
    calibration: dict[str, ClassCalibration]
    prevalences: tuple[Prevalence, ...]
    confusion: dict[str, Confusion]
    missed: tuple[WorstCase, ...]
    """Positive slices with the lowest probability of ``any``."""
    false_alarms: tuple[WorstCase, ...]
    disturbances: tuple[Disturbance, ...] = ()
    """Empty where they were not asked for; the first is the slices as they are."""
    warnings: tuple[str, ...]

    @property
    def headline(self) -> LevelResult:
        """Studies where there are any, else slices."""
        return self.studies or self.slices


def read_evaluation(path: Path) -> Evaluation:
    """Read ``evaluation.json``.

    Raises:
        TrainingError: it is missing, or of another version of this program.
    """
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise TrainingError(f"{path}: not there; run `ich-train evaluate` first") from None
    except ValidationError as error:
        raise TrainingError(f"{path}: not understood ({error.error_count()} faults); evaluate anew") from None
