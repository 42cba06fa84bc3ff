"""Every figure of every class on one set of cases, with intervals from one drawing of patients."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.intervals.exact import lower_bound
from ich_node.model.manifest import Thresholds
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.evaluate.bootstrap import draw_patients, with_interval
from ich_node.training.evaluate.cases import Cases
from ich_node.training.evaluate.class_figures import Ranking, point_figures, rank, resampled_figures
from ich_node.training.evaluate.evaluation import ClassResult, Figure, LesionSize, LevelResult, Prevalence, SourceResult
from ich_node.training.evaluate.log_loss import case_losses, loss_of_priors
from ich_node.training.evaluate.settings import EvaluationSettings

LESION_BINS_MM2: Final = (0.0, 50.0, 150.0, 500.0, 1500.0, None)
"""Areas of a slice: 50 mm² is a spot 8 mm wide, 1500 mm² one of 44 mm."""

_HALF: Final = 0.5
_EXACT: Final = "where a share is 0 or 1 its interval is the exact one, counted in patients"
Resampled = dict[str, NDArray[np.float64]]
"""By figure, its value in each resample (resamples,)."""


def measure_level(
    cases: Cases,
    thresholds: Mapping[str, Thresholds],
    settings: EvaluationSettings,
    losses: Mapping[str, NDArray[np.float64]] | None = None,
) -> LevelResult:
    """Measure all classes on cases.

    Args:
        cases: At least one.
        thresholds: Per class.
        settings: How.
        losses: Of each case, (cases,): ``weighted_log_loss`` and ``weighted_log_loss_uncalibrated``, where they are
            not those of the probabilities in ``cases``.
    """
    wanted = losses or {"weighted_log_loss": case_losses(cases.labels, cases.probabilities)}
    named = {name: _thresholds_by_name(thresholds[name]) for name in HEMORRHAGE_CLASSES}
    whole, per_class = _resample(cases, named, wanted, settings)
    figures = {name: with_interval(float(loss.mean()), whole[name]) for name, loss in wanted.items()}
    return LevelResult(
        level=cases.level,
        cases=len(cases),
        patients=len(np.unique(cases.patients)),
        resamples=settings.resamples_of(len(cases)),
        weighted_log_loss=figures["weighted_log_loss"],
        weighted_log_loss_uncalibrated=figures.get("weighted_log_loss_uncalibrated"),
        weighted_log_loss_of_priors=loss_of_priors(cases.labels.mean(axis=0)),
        classes={
            name: _class_result(cases, number, named[name], per_class[name], settings)
            for number, name in enumerate(HEMORRHAGE_CLASSES)
        },
    )


def measure_sources(
    slices: Cases,
    studies: Cases | None,
    thresholds: Mapping[str, Thresholds],
    settings: EvaluationSettings,
    losses: Mapping[str, NDArray[np.float64]],
) -> dict[str, SourceResult]:
    """Measure each source of data by itself; ``losses`` are of all slices, see :func:`measure_level`."""
    results = {}
    for source in sorted(set(slices.sources.tolist())):
        own = slices.sources == source
        of_source = studies.select(studies.sources == source) if studies else None
        own_losses = {name: loss[own] for name, loss in losses.items()}
        results[source] = SourceResult(
            slices=measure_level(slices.select(own), thresholds, settings, own_losses),
            studies=measure_level(of_source, thresholds, settings) if of_source else None,
        )
    return results


def measure_lesion_sizes(
    cases: Cases, thresholds: Mapping[str, Thresholds], settings: EvaluationSettings
) -> list[LesionSize]:
    """Measure how many hemorrhages of each size are found, where sizes are known; sizes without any are left out."""
    results = []
    for smallest, largest in pairwise(LESION_BINS_MM2):
        size = cases.lesion_mm2
        inside = (size > 0) & (size >= (smallest or 0.0)) & (size < (largest or np.inf)) & (cases.labels[:, 0] > 0)
        if inside.any():
            found = measure_level(cases.select(inside), thresholds, settings).classes["any"]
            results.append(
                LesionSize(
                    level=cases.level,
                    from_mm2=smallest or 0.0,
                    to_mm2=largest,
                    positives=found.positives,
                    patients=found.positive_patients,
                    sensitivity_low=found.figures["sensitivity_low"],
                    sensitivity_high=found.figures["sensitivity_high"],
                )
            )
    return results


def measure_prevalences(
    cases: Cases, thresholds: Mapping[str, Thresholds], settings: EvaluationSettings
) -> list[Prevalence]:
    """Tell what sites with other shares of positive studies would see, for ``any``."""
    named = {"any": _thresholds_by_name(thresholds["any"])}
    point = point_figures(cases.probabilities[:, 0], cases.labels[:, 0], named["any"])
    resampled = _resample(cases, named, {}, settings)[1]["any"]
    return [
        Prevalence(prevalence=share, answer=answer, **_at_prevalence(share, end, point, resampled))
        for share in settings.prevalences
        for answer, end in (("not negative", "low"), ("positive", "high"))
    ]


def _at_prevalence(share: float, end: str, point: Mapping[str, float], resampled: Resampled) -> dict[str, Figure]:
    """Bayes' rule at the threshold ``end``, for the point and for each resample."""
    exact = _predictive_values(share, np.array([point[f"sensitivity_{end}"]]), np.array([point[f"specificity_{end}"]]))
    drawn = _predictive_values(share, resampled[f"sensitivity_{end}"], resampled[f"specificity_{end}"])
    return {name: with_interval(float(exact[name][0]), drawn[name]) for name in exact}


def _predictive_values(
    share: float, sensitivity: NDArray[np.float64], specificity: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    true_alerts, false_alerts = share * sensitivity, (1 - share) * (1 - specificity)
    silent, missed = (1 - share) * specificity, share * (1 - sensitivity)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "ppv": true_alerts / (true_alerts + false_alerts),
            "npv": silent / (silent + missed),
            "alerts_per_100": 100 * (true_alerts + false_alerts),
        }


def _resample(
    cases: Cases,
    named: Mapping[str, Mapping[str, float]],
    losses: Mapping[str, NDArray[np.float64]],
    settings: EvaluationSettings,
) -> tuple[Resampled, dict[str, Resampled]]:
    """Give the losses over all cases, and the figures of each class in ``named``, in every resample."""
    columns = {name: HEMORRHAGE_CLASSES.index(name) for name in named}
    rankings: dict[str, Ranking] = {
        name: rank(cases.probabilities[:, column], cases.labels[:, column]) for name, column in columns.items()
    }
    whole: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    parts: dict[str, dict[str, list[NDArray[np.float64]]]] = {name: defaultdict(list) for name in named}
    for times in draw_patients(cases.patients, settings.resamples_of(len(cases)), settings.seed):
        for name, loss in losses.items():
            whole[name].append(times @ loss / times.sum(axis=1))
        for name, ranking in rankings.items():
            for figure, values in resampled_figures(times, ranking, named[name]).items():
                parts[name][figure].append(values)
    return _joined(whole), {name: _joined(figures) for name, figures in parts.items()}


def _joined(parts: Mapping[str, list[NDArray[np.float64]]]) -> Resampled:
    return {name: np.concatenate(blocks) for name, blocks in parts.items()}


def _class_result(
    cases: Cases, number: int, thresholds: Mapping[str, float], resampled: Resampled, settings: EvaluationSettings
) -> ClassResult:
    labels = cases.labels[:, number]
    point = point_figures(cases.probabilities[:, number], labels, thresholds)
    patients = len(np.unique(cases.patients[labels > 0]))
    return ClassResult(
        positives=int((labels > 0).sum()),
        negatives=int((labels <= 0).sum()),
        positive_patients=patients,
        few_cases=patients < settings.few_patients,
        figures={name: _figure(name, value, resampled[name], cases.patients, labels) for name, value in point.items()},
    )


def _figure(
    name: str,
    value: float,
    resampled: NDArray[np.float64],
    patients: NDArray[np.intp],
    labels: NDArray[np.int8],
) -> Figure:
    """Put an interval to a figure; a bootstrap cannot tell that of a share of 0 or 1, so there it is the exact one."""
    kind = name.partition("_")[0]
    if kind not in ("sensitivity", "specificity") or value not in (0.0, 1.0):
        return with_interval(value, resampled)
    count = len(np.unique(patients[labels > 0 if kind == "sensitivity" else labels <= 0]))
    end = lower_bound(count, count)
    low, high = (end, 1.0) if value == 1.0 else (0.0, 1.0 - end)
    return Figure(value=value, low=low, high=high, note=_EXACT)


def _thresholds_by_name(pair: Thresholds) -> dict[str, float]:
    return {"low": pair.low, "high": pair.high, "half": _HALF}
