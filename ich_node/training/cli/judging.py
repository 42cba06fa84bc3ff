"""``ich-train evaluate`` and ``export``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ich_node.errors import TrainingError
from ich_node.training.cli.words import Commands, figure, open_data, say

if TYPE_CHECKING:
    from ich_node.training.evaluate import Evaluation
    from ich_node.training.prepared import PreparedSet, SliceRow


def add_commands(commands: Commands) -> None:
    """Add evaluate, export."""
    _add_evaluate(commands)
    _add_export(commands)


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser("evaluate", help="measure what runs said of the slices that they held out")
    evaluate.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="one run for each fold")
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR", help="for evaluation.html and .json")
    evaluate.add_argument("--data", type=Path, action="append", default=[], metavar="DIR",
                          help="prepared set, for pictures of the worst cases; repeat")  # fmt: skip
    evaluate.add_argument("--sequence", action="store_true", help="measure the sequence head's scores")
    evaluate.add_argument("--restoration", action="store_true",
                          help="also score slices known in true HU from their restored brain window")  # fmt: skip
    evaluate.add_argument("--disturb", type=int, default=0, metavar="N",
                          help="also score N slices of each run with noise and at other levels")  # fmt: skip
    evaluate.add_argument("--target-sensitivity", type=float, default=0.95, metavar="X",
                          help="of studies at the low threshold, by its lower bound (default 0.95)")  # fmt: skip
    evaluate.add_argument("--target-specificity", type=float, default=0.95, metavar="X",
                          help="at the high threshold (default 0.95)")  # fmt: skip
    evaluate.add_argument("--prevalence", type=float, action="append", metavar="X", help="for PPV and NPV; repeat")
    evaluate.add_argument("--resamples", type=int, default=1000, metavar="N", help="of patients (default 1000)")
    evaluate.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from ich_node.training.evaluate import EvaluationSettings, evaluate, write_evaluation
    from ich_node.training.look import PreparedSlices
    from ich_node.training.predictions import read_predictions
    from ich_node.training.run_folder import HELD_OUT, network_of
    from ich_node.training.sequence.scores import read_refined_scores

    if not (0 < options.target_sensitivity < 1 and 0 < options.target_specificity < 1 and options.resamples > 0):
        raise TrainingError("targets lie between 0 and 1, and at least one resample is needed")
    if not all(0 < share < 1 for share in options.prevalence or ()):
        raise TrainingError("a prevalence lies between 0 and 1, such as 0.05")
    predictions = read_predictions(run / HELD_OUT for run in options.runs)
    refined = read_refined_scores(options.runs, predictions) if options.sequence else None
    settings = EvaluationSettings(
        target_sensitivity=options.target_sensitivity,
        target_specificity=options.target_specificity,
        resamples=options.resamples,
        seed=options.seed,
    )
    if options.prevalence:
        settings = dataclasses.replace(settings, prevalences=tuple(options.prevalence))
    networks = {network_of(run) for run in options.runs}
    if len(networks) > 1:
        raise TrainingError("these runs differ in more than their fold; give the folds of one model")
    evaluation = evaluate(
        predictions, settings, refined=refined, runs=[run.name for run in options.runs], network=networks.pop()
    )
    if options.disturb:
        evaluation = _with_disturbances(evaluation, options)
    picture = PreparedSlices(open_data(options)).brain_picture if options.data else None
    files = write_evaluation(options.out, evaluation, predictions, refined=refined, picture=picture)
    for warning in evaluation.warnings:
        say(f"warning: {warning}")
    if options.restoration:
        _check_restoration(options)
    auc = evaluation.headline.classes["any"].figures["auc"]
    sys.stdout.write(f"{files.html}\nAUC any, by {evaluation.headline.level}: {figure(auc.value)}\n")
    return 0


def _with_disturbances(evaluation: Evaluation, options: argparse.Namespace) -> Evaluation:
    from ich_node.training.disturbance import measure_disturbances

    found = measure_disturbances(options.runs, open_data(options), evaluation.temperature, options.disturb)
    return evaluation.model_copy(update={"disturbances": found})


def _check_restoration(options: argparse.Namespace) -> None:
    from ich_node.training.restoration_check import check_restoration

    outcome = check_restoration(options.runs, open_data(options))
    (options.out / "restoration.json").write_text(json.dumps(dataclasses.asdict(outcome), indent=1) + "\n")
    sys.stdout.write(
        f"{outcome.slices} slices in true HU, {outcome.positives} positive, from their restored brain window: "
        f"probability of any differs by {outcome.mean_difference:.3f} on average, AUC {figure(outcome.auc_true)} -> "
        f"{figure(outcome.auc_restored)}\n"
    )


def _add_export(commands: Commands) -> None:
    export = commands.add_parser("export", help="write the model bundle that the node uses")
    export.add_argument("run_directory", type=Path, metavar="RUN", help="run whose network ships")
    export.add_argument("directory", type=Path, metavar="BUNDLE", help="folder of the bundle, such as models/mine")
    export.add_argument("--evaluation", type=Path, required=True, metavar="FILE", help="evaluation.json of the folds")
    export.add_argument("--data", type=Path, action="append", required=True, metavar="DIR",
                        help="prepared set: the engines are compared on some of its slices; repeat")  # fmt: skip
    export.add_argument("--name", required=True, metavar="NAME", help="of the model")
    export.add_argument("--model-version", required=True, metavar="VERSION", help="such as 1.0.0")
    export.add_argument("--sequence", action="store_true", help="with the run's sequence head")
    export.add_argument("--float32", action="store_true", help="store weights whole (default: float16)")
    export.add_argument("--notes", type=Path, metavar="FILE",
                        help="Markdown for the model card: how it was made, where it is weak")  # fmt: skip
    export.add_argument("--slices", type=int, default=32, metavar="N", help="to compare engines on (default 32)")
    export.add_argument("--replace", action="store_true", help="a bundle that is there")
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from ich_node.training.evaluate import read_evaluation
    from ich_node.training.export import ExportSettings, export_bundle
    from ich_node.training.look import PreparedSlices
    from ich_node.training.sequence.stage import read_head

    data = open_data(options)
    rows = _unseen(options.run_directory, data)
    settings = ExportSettings(
        options.name,
        options.model_version,
        stored="float32" if options.float32 else "float16",
        replace=options.replace,
        notes=_read_notes(options.notes),
    )
    exported = export_bundle(
        options.run_directory,
        read_evaluation(options.evaluation),
        options.directory,
        PreparedSlices(data).some_hu(rows, options.slices),
        settings,
        read_head(options.run_directory) if options.sequence else None,
    )
    for warning in exported.warnings:
        say(f"warning: {warning}")
    for engine in exported.parity:
        sys.stdout.write(
            f"{engine.engine} ({engine.device}): differs by at most {engine.largest_difference:.4f} in probability "
            f"from the training network on {engine.slices} slices\n"
        )
    sys.stdout.write(f"{exported.directory}: {exported.manifest.name} {exported.manifest.version}\n")
    return 0


def _read_notes(path: Path | None) -> str:
    try:
        return path.read_text() if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"--notes {path}: cannot be read ({error})") from None


def _unseen(run: Path, data: Sequence[PreparedSet]) -> list[SliceRow]:
    """Slices that a run held out; all of them where it held none out."""
    from ich_node.training.fit.settings import read_settings
    from ich_node.training.run_folder import demand_data

    demand_data(run, data)
    rows = [row for one in data for row in one.rows]
    fold = read_settings(run).fold
    return [row for row in rows if fold is None or row.fold == fold]
