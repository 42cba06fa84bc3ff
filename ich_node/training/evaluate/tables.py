"""An evaluation as tables of words: for the page, for the model card, and for whoever prints it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Final

from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.evaluate.evaluation import CalibrationFigures, Evaluation, Figure, LevelResult

UNKNOWN: Final = "–"
PHANTOM_NOTICE: Final = (
    "Synthetic phantoms: software test only. These figures say that the program runs, and nothing about patients."
)


@dataclass(frozen=True, slots=True)
class Table:
    """A heading, a header row, rows of words, and what must be said with them."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def summary_table(evaluation: Evaluation) -> Table:
    """Give what a reader wants first."""
    level, conditions = evaluation.headline, evaluation.conditions
    found = level.classes["any"].figures
    point = evaluation.operating_points["any"]
    rows = [
        (f"AUC of any hemorrhage, per {level.level}", in_words(found["auc"])),
        (f"Sensitivity at the low threshold, per {level.level}", in_words(found["sensitivity_low"])),
        (f"Specificity at the low threshold, per {level.level}", in_words(found["specificity_low"])),
        (f"Sensitivity at the high threshold, per {level.level}", in_words(found["sensitivity_high"])),
        (f"Specificity at the high threshold, per {level.level}", in_words(found["specificity_high"])),
        ("Weighted log loss, per slice (lower is better)", in_words(evaluation.slices.weighted_log_loss)),
        ("The same before temperature scaling", _optional(evaluation.slices.weighted_log_loss_uncalibrated)),
        ("The same of class priors alone", f"{evaluation.slices.weighted_log_loss_of_priors:.3f}"),
    ]
    notes = [point.in_words("Chosen for any")]
    if evaluation.studies is None:
        notes.append("The data hold no whole studies: every figure is of single slices, not of studies.")
    if conditions.phantoms_only:
        notes.insert(0, PHANTOM_NOTICE)
    return Table("Main figures", ("", "95 % interval in brackets"), tuple(rows), tuple(notes))


def level_tables(level: LevelResult, title: str) -> list[Table]:
    """Give two tables of one level: what does not depend on thresholds, and what does."""
    few = [name for name in HEMORRHAGE_CLASSES if level.classes[name].few_cases]
    notes = [f"Few cases (figures are uncertain): {', '.join(few)}."] if few else []
    notes += _figure_notes(level)
    unit = "studies" if level.level == "study" else "slices"
    ranked = ("auc", "average_precision", "brier")
    cut = (
        "sensitivity_low",
        "specificity_low",
        "sensitivity_high",
        "specificity_high",
        "sensitivity_half",
        "specificity_half",
    )
    return [
        Table(
            f"{title}: ranking and probability",
            ("Class", f"Positive {unit}", "Patients with it", "AUC", "Average precision", "Brier score"),
            tuple(_class_rows(level, ranked, counts=True)),
            (f"{level.cases} {unit} of {level.patients} patients; {level.resamples} resamples of patients.", *notes),
        ),
        Table(
            f"{title}: sensitivity and specificity",
            ("Class", "Sens. (low)", "Spec. (low)", "Sens. (high)", "Spec. (high)", "Sens. (0.5)", "Spec. (0.5)"),
            tuple(_class_rows(level, cut, counts=False)),
            ("Low: whatever is not called negative. High: whatever is called positive.",),
        ),
    ]


def source_table(evaluation: Evaluation) -> Table:
    """Give the figures of ``any`` for each source."""
    rows = []
    for source, result in evaluation.sources.items():
        for level in (result.slices, result.studies):
            if level is not None:
                found = level.classes["any"]
                figures = (
                    found.figures[name] for name in ("auc", "sensitivity_low", "specificity_low", "specificity_high")
                )
                loss = in_words(level.weighted_log_loss) if level.level == "slice" else UNKNOWN
                count = f"{level.cases} ({found.positives})"
                rows.append((source, level.level, count, *(in_words(one) for one in figures), loss))
    header = ("Source", "Per", "Cases (positive)", "AUC", "Sens. (low)", "Spec. (low)", "Spec. (high)", "Log loss")
    return Table("Any hemorrhage, per source", header, tuple(rows))


def lesion_table(evaluation: Evaluation) -> Table:
    """Give how many hemorrhages of each size are found."""
    rows = [
        (
            f"{size.from_mm2:g} to {size.to_mm2:g} mm²" if size.to_mm2 else f"from {size.from_mm2:g} mm²",
            size.level,
            str(size.positives),
            in_words(size.sensitivity_low),
            in_words(size.sensitivity_high),
        )
        for size in evaluation.lesion_sizes
    ]
    notes = () if rows else ("No source states the size of its hemorrhages.",)
    header = ("Area in the slice", "Per", "Positive", "Sensitivity (low)", "Sensitivity (high)")
    return Table("Any hemorrhage, per size", header, tuple(rows), notes)


def disturbance_table(evaluation: Evaluation) -> Table:
    """Give what noise and a shifted level do."""
    rows = tuple(
        (
            f"{one.noise:g} ({one.noise_hu:g} HU)" if one.noise else "none",
            f"{one.level_hu:+g} HU" if one.level_hu else "as it is",
            f"{one.slices} ({one.positives})",
            share(one.mean_difference),
            share(one.auc_any),
        )
        for one in evaluation.disturbances
    )
    header = ("Noise added, times the usual", "Level", "Slices (positive)", "Probability differs by", "AUC")
    notes = (
        "On slices held out, in the mean without sign. A usual thick slice has a noise of 4 HU, a thin one three times "
        "as much.",
    )
    return Table(
        "Any hemorrhage, with noise and another level",
        header,
        rows,
        notes if rows else ("Not measured; `ich-train evaluate --disturb` does.",),
    )


def calibration_table(evaluation: Evaluation) -> Table:
    """Give calibration before and after temperature scaling."""
    rows = []
    for name, one in evaluation.calibration.items():
        figures = (_calibration_words(part) for part in (one.before, one.after, one.studies))
        rows.append((name, f"{one.temperature:.3g}", *(word for words in figures for word in words)))
    notes = [f"{name}: temperature {one.note}." for name, one in evaluation.calibration.items() if one.note]
    return Table(
        "Calibration",
        (
            "Class",
            "Temperature",
            "ECE before",
            "Brier before",
            "ECE after",
            "Brier after",
            "ECE, study",
            "Brier, study",
        ),
        tuple(rows),
        (
            "ECE: expected calibration error over 15 bins of equal mass, per slice. After: by temperatures that the "
            "other folds gave, so not flattered. Study: of the probability that the node shows, with the shipped "
            "temperature.",
            *notes,
        ),
    )


def operating_point_table(evaluation: Evaluation) -> Table:
    """Give the thresholds and what they rest on."""
    rows = []
    for name, point in evaluation.operating_points.items():
        pair, crossed = evaluation.thresholds[name], evaluation.cross_fitted[name]
        met = "yes" if point.meets_bound else "NO"
        rows.append(
            (
                name,
                point.level,
                f"{pair.low:.3g} / {pair.high:.3g}",
                f"{point.positives} / {point.negatives}",
                share(point.sensitivity),
                f"{share(point.sensitivity_low)} ({met})",
                share(point.specificity),
                f"{share(crossed.sensitivity_low)} / {share(crossed.specificity_low)}",
                f"{share(point.sensitivity_at_high)} / {share(point.specificity_at_high)}",
            )
        )
    conditions = evaluation.conditions
    return Table(
        "Operating points",
        (
            "Class", "Chosen per", "Low / high", "Positive / negative", "Sensitivity", "Lower bound (target met)",
            "Specificity", "Cross-fitted", "Sens. / spec. at high",
        ),
        tuple(rows),
        (
            f"Target: the exact lower 95 % bound of sensitivity at the low threshold reaches "
            f"{conditions.target_sensitivity:g}; with none missed that needs {_needed(conditions.target_sensitivity)} "
            f"positives. Where there are fewer, sensitivity itself reaches it.",
            "Cross-fitted: sensitivity / specificity of each fold by the low threshold that the other folds chose.",
            "Between the thresholds the answer is indeterminate.",
        ),
    )  # fmt: skip


def prevalence_table(evaluation: Evaluation) -> Table:
    """Give what sites with other shares of positive studies would see."""
    rows = [
        (
            f"{100 * one.prevalence:g} %",
            one.answer,
            in_words(one.ppv),
            in_words(one.npv),
            in_words(one.alerts_per_100, 1),
        )
        for one in evaluation.prevalences
    ]
    level = "studies" if evaluation.studies else "slices (there are no studies)"
    header = ("Positive of all", "Alert means", "PPV", "NPV", "Alerts per 100")
    return Table(f"Any hemorrhage at other prevalences, {level}", header, tuple(rows))


def conditions_table(evaluation: Evaluation) -> Table:
    """Give what was measured, and how."""
    one = evaluation.conditions
    patients = "" if one.patients_known else " (for some, near-duplicates or the image stand in for the patient)"
    rows = [
        ("Slices", str(one.slices)),
        ("Patients", f"{one.patients}{patients}"),
        ("Studies", str(one.studies)),
        ("Sources", ", ".join(f"{name} ({count} slices)" for name, count in one.sources.items())),
        ("Folds", ", ".join(map(str, one.folds))),
        ("Runs", ", ".join(one.runs) or UNKNOWN),
        (
            "Scores",
            "of the sequence head" if one.sequence_head else "of the slice network; studies pooled as the node does",
        ),
        ("Bootstrap", f"{one.resamples} resamples of patients, seed {one.seed}, percentile intervals of 95 %"),
        ("Program", ", ".join([one.made_by, *(f"{name} {version}" for name, version in one.versions.items())])),
    ]
    if one.phantoms_left_out:
        rows.insert(1, ("Phantom slices left out", str(one.phantoms_left_out)))
    return Table("Conditions", ("", ""), tuple(rows))


def in_words(figure: Figure, digits: int = 3) -> str:
    """Write a figure with its interval, such as ``0.912 (0.880–0.940)``."""
    if figure.value is None:
        return UNKNOWN
    if figure.low is None or figure.high is None:
        return f"{figure.value:.{digits}f}" + (" *" if figure.note else "")
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f}–{figure.high:.{digits}f})"


def _optional(figure: Figure | None) -> str:
    return UNKNOWN if figure is None else in_words(figure)


def share(value: float | None) -> str:
    """Write a share with three digits."""
    return UNKNOWN if value is None else f"{value:.3f}"


def _class_rows(level: LevelResult, figures: Sequence[str], *, counts: bool) -> Iterable[tuple[str, ...]]:
    for name, result in level.classes.items():
        few = " (few cases)" if result.few_cases else ""
        numbers = (str(result.positives), str(result.positive_patients)) if counts else ()
        yield (name + few, *numbers, *(in_words(result.figures[figure]) for figure in figures))


def _figure_notes(level: LevelResult) -> list[str]:
    """Name, for each reason that a figure or interval is missing, the classes it holds for."""
    reasons: dict[str, list[str]] = {}
    for name, result in level.classes.items():
        for note in {figure.note for figure in result.figures.values() if figure.note}:
            reasons.setdefault(note, []).append(name)
    return [f"{', '.join(names)}: {note}." for note, names in reasons.items()]


def _calibration_words(figures: CalibrationFigures | None) -> tuple[str, str]:
    if figures is None:
        return UNKNOWN, UNKNOWN
    return f"{figures.expected_calibration_error:.4f}", f"{figures.brier:.4f}"


def _needed(target: float) -> int:
    """Positives that are needed for the bound when none is missed: the least n with 0.025 ** (1 / n) >= target."""
    return ceil(log(0.025) / log(target))
