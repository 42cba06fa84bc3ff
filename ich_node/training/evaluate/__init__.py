"""Scores of slices → metrics with intervals, calibration, operating points, a page to read.

===================== ===========================================================================================
``evaluating.py``     the whole line: read this first
``scored.py``         which slices count, and their calibrated scores
``cases.py``          slices and studies, as they are measured
``calibration.py``    temperatures, and what they mend
``levels.py``         the figures of all classes, per source, per lesion size, at other prevalences
``class_figures.py``  the figures of one class, for a point and for resamples
``bootstrap.py``      intervals by drawing patients
``log_loss.py``       the challenge's score
``answers.py``        what the thresholds answer, and where they are wrong
``evaluation.py``     the record that all this ends in: ``evaluation.json``
``charts.py``         curves, reliability and confusion as pictures
``contact_sheet.py``  the worst cases as pictures
``tables.py``         the record as tables of words
``page.py``           the record as one page to read: ``evaluation.html``
``report_files.py``   both on disk
===================== ===========================================================================================
"""

from ich_node.training.evaluate.cases import RefinedScores
from ich_node.training.evaluate.evaluating import evaluate
from ich_node.training.evaluate.evaluation import Evaluation, read_evaluation
from ich_node.training.evaluate.report_files import write_evaluation
from ich_node.training.evaluate.settings import EvaluationSettings

__all__ = ["Evaluation", "EvaluationSettings", "RefinedScores", "evaluate", "read_evaluation", "write_evaluation"]
