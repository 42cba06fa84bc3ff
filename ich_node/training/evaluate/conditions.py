"""What was measured, and how: what a figure is worth without this is nothing."""

import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

import numpy as np

from ich_node import __version__
from ich_node.training.evaluate.evaluation import Conditions
from ich_node.training.evaluate.scored import PHANTOM, Scored
from ich_node.training.evaluate.settings import EvaluationSettings

_LIBRARIES: Final = ("numpy", "scipy", "scikit-learn", "matplotlib")


def describe_conditions(
    scored: Scored, settings: EvaluationSettings, sequence_head: bool, runs: Sequence[str], network: str
) -> Conditions:
    """State data, drawing, targets and versions."""
    rows = scored.predictions.rows
    return Conditions(
        made_by=f"ich-node {__version__}",
        runs=tuple(runs),
        slices=len(rows),
        patients=len(np.unique(scored.slices.patients)),
        patients_known=all(row.patient_id for row in rows),
        studies=len(scored.studies) if scored.studies else 0,
        folds=tuple(sorted({row.fold for row in rows})),
        sources=dict(sorted(Counter(row.source for row in rows).items())),
        phantoms_only=all(row.kind == PHANTOM for row in rows),
        phantoms_left_out=scored.phantoms_left_out,
        sequence_head=sequence_head,
        network=network,
        resamples=settings.resamples,
        seed=settings.seed,
        target_sensitivity=settings.target_sensitivity,
        target_specificity=settings.target_specificity,
        versions={"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    )
