"""The evaluation on disk: ``evaluation.json`` for programs and ``evaluation.html`` for people."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ich_node.durable import replace_durably
from ich_node.training.evaluate.cases import RefinedScores
from ich_node.training.evaluate.contact_sheet import Picture
from ich_node.training.evaluate.evaluation import Evaluation
from ich_node.training.evaluate.page import render_page
from ich_node.training.evaluate.scored import score_cases
from ich_node.training.predictions import Predictions

EVALUATION_JSON: Final = "evaluation.json"
EVALUATION_HTML: Final = "evaluation.html"


@dataclass(frozen=True, slots=True)
class EvaluationFiles:
    """What was written."""

    json: Path
    html: Path


def write_evaluation(
    directory: Path,
    evaluation: Evaluation,
    predictions: Predictions,
    *,
    refined: RefinedScores | None = None,
    picture: Picture | None = None,
) -> EvaluationFiles:
    """Write both files.

    Args:
        directory: Made if need be.
        evaluation: Of these very predictions.
        predictions: For curves and pictures.
        refined: What the evaluation was made with.
        picture: Gives the brain window of a row, (rows, columns) uint8; without it the worst cases are a list.
    """
    directory.mkdir(parents=True, exist_ok=True)
    scored, _ = score_cases(predictions, evaluation.temperature, refined)
    page = render_page(evaluation, scored.slices, scored.studies, scored.predictions.rows, picture)
    files = EvaluationFiles(directory / EVALUATION_JSON, directory / EVALUATION_HTML)
    replace_durably(files.json, [f"{evaluation.model_dump_json(indent=1)}\n".encode()])
    replace_durably(files.html, [page.encode()])
    return files
