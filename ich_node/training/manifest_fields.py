"""What a run and its evaluation put into the manifest of a bundle."""

from collections.abc import Iterator
from typing import Any, Final

from ich_node.model.manifest import Metric, TrainingData
from ich_node.model.network import SequenceHeadSettings
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.evaluate.evaluation import Evaluation, Figure, LevelResult
from ich_node.training.run_folder import RunInfo

_METRICS: Final = (
    "auc",
    "average_precision",
    "sensitivity_low",
    "specificity_low",
    "sensitivity_high",
    "specificity_high",
)


def manifest_fields(
    run: RunInfo, evaluation: Evaluation, head: SequenceHeadSettings | None, head_trained_on: str = ""
) -> dict[str, Any]:
    """Give all fields of ``Manifest`` that follow from what was trained and measured."""
    return {
        "trained": True,
        "backbone": run.backbone,
        "preprocessing": run.preprocessing,
        "sequence_head": head,
        "temperature": evaluation.temperature,
        "thresholds": evaluation.thresholds,
        "thresholds_basis": _basis(evaluation) + (f"; sequence head trained on {head_trained_on}" if head else ""),
        "operating_points": evaluation.operating_points,
        "training_data": tuple(
            TrainingData(name=one.name, terms=one.terms, slices=one.slices, patients=one.patients) for one in run.data
        ),
        "metrics": tuple(_metrics(evaluation)),
    }


def _basis(evaluation: Evaluation) -> str:
    one = evaluation.conditions
    cases = f"{one.studies} studies" if evaluation.studies else f"{one.slices} slices, there being no studies,"
    basis = f"out-of-fold scores of {cases} of {one.patients} patients ({', '.join(one.sources)})"
    return f"SYNTHETIC PHANTOMS, a software test and no clinical figure: {basis}" if one.phantoms_only else basis


def _metrics(evaluation: Evaluation) -> Iterator[Metric]:
    mark = "SYNTHETIC PHANTOMS (software test): " if evaluation.conditions.phantoms_only else ""
    everything = ", ".join(evaluation.conditions.sources)
    for level in (evaluation.slices, evaluation.studies):
        if level is not None:
            yield from _level_metrics(level, f"{mark}{everything}, out of fold")
    if len(evaluation.sources) > 1:
        for source, result in evaluation.sources.items():
            for level in (result.slices, result.studies):
                if level is not None:
                    figure = level.classes["any"].figures["auc"]
                    yield from _metric(f"{level.level} any auc", f"{source}, out of fold", figure)


def _level_metrics(level: LevelResult, data: str) -> Iterator[Metric]:
    where = f"{data}: {level.cases} {'studies' if level.level == 'study' else 'slices'} of {level.patients} patients"
    yield from _metric(f"{level.level} weighted log loss", where, level.weighted_log_loss)
    for name in HEMORRHAGE_CLASSES:
        for figure in _METRICS:
            yield from _metric(f"{level.level} {name} {figure}", where, level.classes[name].figures[figure])


def _metric(name: str, data: str, figure: Figure) -> Iterator[Metric]:
    if figure.value is not None:
        yield Metric(name=name.replace("_", " "), data=data, value=figure.value, low=figure.low, high=figure.high)
