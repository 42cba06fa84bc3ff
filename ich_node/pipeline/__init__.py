"""The straight line from slices to a report. Read this first.

read ▶ plan planes ▶ window ▶ score, while slices arrive (``arriving``); then one patient? ▶ eligible? ▶ chosen? ▶
whole? ▶ triage (``analysis``) ▶ report (``reporting``).
"""

from ich_node.pipeline.analysis import (
    Analysis,
    Assessment,
    analyse_series,
    assess_series,
    eligible_slices,
)
from ich_node.pipeline.arriving import is_worth_scoring, plan_series, score_planes
from ich_node.pipeline.model import Model, open_model
from ich_node.pipeline.reporting import fingerprint, report, study_context

__all__ = [
    "Analysis",
    "Assessment",
    "Model",
    "analyse_series",
    "assess_series",
    "eligible_slices",
    "fingerprint",
    "is_worth_scoring",
    "open_model",
    "plan_series",
    "report",
    "score_planes",
    "study_context",
]
