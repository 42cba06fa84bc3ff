"""``ich-train``: every command of the training module. Commands import what they need."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_node import __version__
from ich_node.errors import IchNodeError

if TYPE_CHECKING:
    from ich_node.training.fit import FitSettings
    from ich_node.training.prepare.lot import Source
    from ich_node.training.prepared import PreparedSet, SliceRow

Commands = Any
"""argparse keeps the type of its subparsers private."""

EXIT_FAILURE = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = build_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except IchNodeError as error:
        sys.stderr.write(f"ich-train: {error}\n")
        return EXIT_FAILURE
    except KeyboardInterrupt:
        sys.stderr.write("ich-train: stopped; the same command goes on from here\n")
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "ich_node":
            raise
        sys.stderr.write(f"ich-train: {error.name} is missing; install the training module: pip install '.[train]'\n")
        return EXIT_FAILURE
    return status


def build_parser() -> argparse.ArgumentParser:
    """Describe every command; the documentation is tested against it."""
    parser = argparse.ArgumentParser(
        prog="ich-train", description="Make models that find intracranial hemorrhage on head CT. Research software."
    )
    parser.add_argument("--version", action="version", version=f"ich-train {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_prepare(commands)
    _add_fit(commands)
    _add_compare(commands)
    _add_sequence(commands)
    _add_evaluate(commands)
    _add_export(commands)
    return parser


# ------------------------------------------------------------------------------------------- prepare


def _add_prepare(commands: Commands) -> None:
    prepare = commands.add_parser(
        "prepare", help="read labelled slices into shards; the same command again goes on where it stopped"
    )
    prepare.add_argument("directory", type=Path, metavar="DIR", help="folder of the prepared set")
    sources = prepare.add_argument_group("sources, at least one; each may be repeated")
    sources.add_argument("--rsna", type=Path, action="append", default=[], metavar="PATH",
                         help="RSNA 2019: the folder or zip that holds stage_2_train and its table")  # fmt: skip
    sources.add_argument("--studies", action="append", default=[], metavar="NAME=PATH",
                         help="a folder or zip of DICOM studies; give a --labels for each")  # fmt: skip
    sources.add_argument("--images", type=Path, action="append", default=[], metavar="TABLE",
                         help="slices.csv of ready images, their archives beside it")  # fmt: skip
    sources.add_argument("--phantoms", type=int, metavar="N", help="N synthetic slices")
    prepare.add_argument("--rsna-labels", type=Path, metavar="TABLE", help="stage_2_train.csv, where it lies elsewhere")
    prepare.add_argument("--labels", type=Path, action="append", default=[], metavar="TABLE",
                         help="labels of the --studies, in their order")  # fmt: skip
    prepare.add_argument("--study-positives", choices=("refuse", "leave-out", "all-slices"), default="refuse",
                         help="studies that a table calls positive without naming slices (default refuse)")  # fmt: skip
    prepare.add_argument("--side", type=int, metavar="PX", help="of stored slices (DICOM: 512; images: as they are)")
    prepare.add_argument("--folds", type=int, default=5, metavar="N", help="default 5")
    prepare.add_argument("--seed", type=int, default=0, metavar="N", help="of the folds and the phantoms (default 0)")
    prepare.add_argument("--processes", type=int, default=0, metavar="N", help="default: one for each core")
    prepare.add_argument("--terms", action="append", default=[], metavar="SOURCE=TEXT",
                         help="of use, as its publisher states them; stands in the model card")  # fmt: skip
    prepare.set_defaults(run=_prepare)


def _prepare(options: argparse.Namespace) -> int:
    from ich_node.training.prepare import PrepareSettings, prepare

    settings = PrepareSettings(
        folds=options.folds, seed=options.seed, processes=options.processes, terms=dict(map(_pair, options.terms))
    )
    data = prepare(_sources(options), options.directory, settings, _say)
    for name, counts in data.manifest.counts.items():
        _say(f"{name}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    if data.manifest.repairs:
        _say("repaired: " + ", ".join(f"{name} {count}" for name, count in data.manifest.repairs.items()))
    if data.manifest.left_out:
        _say(f"{len(data.manifest.left_out)} left out; {options.directory / 'prepared.json'} names them and says why")
    return 0


def _sources(options: argparse.Namespace) -> list[Source]:
    from ich_node.errors import TrainingError
    from ich_node.training.prepare import CoarsePositives, find_images, find_phantoms, find_rsna, find_studies

    if len(options.labels) != len(options.studies):
        raise TrainingError("give one --labels TABLE for each --studies NAME=PATH")
    side = {} if options.side is None else {"side_px": options.side}
    coarse = CoarsePositives(options.study_positives)
    sources = [find_rsna(place, options.rsna_labels, **side) for place in options.rsna]
    for (name, place), table in zip(map(_pair, options.studies), options.labels, strict=True):
        sources.append(find_studies(Path(place), table, name, coarse_positives=coarse, **side))
    sources += [find_images(table, **side) for table in options.images]
    if options.phantoms:
        sources.append(find_phantoms(options.phantoms, options.seed, **side))
    if not sources:
        raise TrainingError("name at least one source: --rsna, --studies, --images or --phantoms")
    return sources


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


# ----------------------------------------------------------------------------------------------- fit


def _add_fit(commands: Commands) -> None:
    fit = commands.add_parser("fit", help="train a network on prepared sets; the same command again goes on")
    fit.add_argument("directory", type=Path, metavar="RUN", help="folder of the run")
    fit.add_argument("--fold", type=int, metavar="K", help="held out and scored at the end (default: none)")
    _with_settings(fit)
    fit.set_defaults(run=_fit)


def _with_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data", type=Path, action="append", required=True, metavar="DIR", help="prepared set; repeat"
    )
    command.add_argument("--preset", choices=("seed", "best", "scratch"), default="best", help="default best")
    command.add_argument("--size", type=int, metavar="PX", dest="size_px", help="side of the images")
    command.add_argument("--epochs", type=int, metavar="N", help="passes over the data, or over --draws slices")
    command.add_argument("--draws", type=int, metavar="N", help="slices in an epoch (default: as many as there are)")
    command.add_argument("--batch", type=int, metavar="N", help="slices in a step, over all processes")
    command.add_argument("--learning-rate", type=float, metavar="X", help="at its peak")
    command.add_argument("--rate", action="append", default=[], metavar="NAME=X",
                         help="draw slices of a source or kind X times as often; repeat")  # fmt: skip
    command.add_argument("--pretrained", action=argparse.BooleanOptionalAction, default=None,
                         help="start from ImageNet weights, fetched through timm")  # fmt: skip
    command.add_argument("--init", metavar="DIR", help="start from the weights of a run or a bundle")
    command.add_argument("--backbone", metavar="NAME", help="as timm names it (default inception_resnet_v2)")
    command.add_argument("--seed", type=int, metavar="N", help="default 0")
    command.add_argument("--name", metavar="NAME", help="of the model (default ich)")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                         help="any other setting, such as augmentation.noise_hu=6; repeat")  # fmt: skip
    command.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default auto")


_NAMED = ("size_px", "epochs", "draws", "batch", "learning_rate", "pretrained", "init", "backbone", "seed", "name")


def _settings(options: argparse.Namespace) -> FitSettings:
    from ich_node.training.fit import make_settings

    changes: dict[str, Any] = {name: value for name in _NAMED if (value := getattr(options, name, None)) is not None}
    if getattr(options, "fold", None) is not None:
        changes["fold"] = options.fold
    if options.rate:
        changes["rates"] = dict(map(_pair, options.rate))
    for key, value in map(_pair, options.set):
        place = changes
        *path, last = key.split(".")
        for name in path:
            place = place.setdefault(name, {})
        place[last] = _value(value)
    return make_settings(options.preset, changes)


def _pair(text: str) -> tuple[str, str]:
    from ich_node.errors import TrainingError

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise TrainingError(f"{text!r}: write NAME=VALUE")
    return name, value


def _value(text: str) -> Any:
    """A value as JSON writes it, or as it stands; words with commas are a list."""
    try:
        return json.loads(text)
    except ValueError:
        return text.split(",") if "," in text else text


def _whole_numbers(text: str) -> list[int]:
    from ich_node.errors import TrainingError

    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise TrainingError(f"{text!r}: write whole numbers with commas between them, such as 0,1,2") from None


def _open_data(options: argparse.Namespace) -> list[PreparedSet]:
    from ich_node.training.prepared import open_prepared

    return [open_prepared(directory) for directory in options.data]


def _fit(options: argparse.Namespace) -> int:
    from ich_node.training.fit import fit

    fit(_settings(options), _open_data(options), options.directory, options.device)
    return 0


# ------------------------------------------------------------------------------------------- compare


def _add_compare(commands: Commands) -> None:
    compare = commands.add_parser("compare", help="train several backbones on the same folds and budget")
    compare.add_argument("directory", type=Path, metavar="DIR", help="folder of the runs, the table and the figure")
    compare.add_argument("--folds", default="0", metavar="K,K", help="default 0")
    compare.add_argument("--backbones", metavar="NAME,NAME", help="default: the six of the project's first comparison")
    _with_settings(compare)
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from ich_node.training.compare import BACKBONES, as_markdown, compare

    backbones = options.backbones.split(",") if options.backbones else BACKBONES
    folds = _whole_numbers(options.folds)
    settings, data = _settings(options), _open_data(options)
    rows = compare(backbones, settings, folds, data, options.directory, device=options.device, say=_say)
    sys.stdout.write(as_markdown(rows))
    return 0


# ------------------------------------------------------------------------------------------ sequence


def _add_sequence(commands: Commands) -> None:
    sequence = commands.add_parser("sequence", help="train the head that reads a series in its order, and judge it")
    sequence.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="one run for each fold")
    sequence.add_argument(
        "--data", type=Path, action="append", required=True, metavar="DIR", help="prepared set; repeat"
    )
    sequence.add_argument(
        "--ships-with", type=Path, metavar="RUN", help="run that the head is for (default: the first)"
    )
    sequence.add_argument("--in-sample", action="store_true",
                          help="train it on slices that its network was trained on")  # fmt: skip
    sequence.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as hidden_size=128")
    sequence.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default auto")
    sequence.set_defaults(run=_sequence)


def _sequence(options: argparse.Namespace) -> int:
    from ich_node.training.fit.processes import join_processes
    from ich_node.training.sequence import SequenceSettings, train_sequence_stage

    settings = SequenceSettings.of({name: _value(value) for name, value in map(_pair, options.set)})
    ships_with = options.ships_with or options.runs[0]
    with join_processes(options.device) as processes:
        outcome = train_sequence_stage(
            options.runs,
            ships_with,
            _open_data(options),
            settings,
            in_sample=options.in_sample,
            device=processes.device,
        )
    verdict = "better than" if outcome.better else "NOT better than"
    sys.stdout.write(
        f"{outcome.series} series, {outcome.positive_series} positive; out of fold by patient the head is {verdict} "
        f"the rule of the three highest slices:\n"
        f"  study AUC any {_figure(outcome.study_auc_rule)} -> {_figure(outcome.study_auc)}\n"
        f"  slice log loss {outcome.slice_log_loss_alone:.4f} -> {outcome.slice_log_loss:.4f}\n"
    )
    return 0


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


# ------------------------------------------------------------------------------------------ evaluate


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser("evaluate", help="measure what runs said of the slices that they held out")
    evaluate.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="one run for each fold")
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR", help="for evaluation.html and .json")
    evaluate.add_argument("--data", type=Path, action="append", default=[], metavar="DIR",
                          help="prepared set, for pictures of the worst cases; repeat")  # fmt: skip
    evaluate.add_argument("--sequence", action="store_true", help="measure the sequence head's scores")
    evaluate.add_argument("--restoration", action="store_true",
                          help="also score slices known in true HU from their restored brain window")  # fmt: skip
    evaluate.add_argument("--target-sensitivity", type=float, default=0.95, metavar="X",
                          help="of studies at the low threshold, by its lower bound (default 0.95)")  # fmt: skip
    evaluate.add_argument("--target-specificity", type=float, default=0.95, metavar="X",
                          help="at the high threshold (default 0.95)")  # fmt: skip
    evaluate.add_argument("--prevalence", type=float, action="append", metavar="X", help="for PPV and NPV; repeat")
    evaluate.add_argument("--resamples", type=int, default=1000, metavar="N", help="of patients (default 1000)")
    evaluate.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from ich_node.errors import TrainingError
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
    picture = PreparedSlices(_open_data(options)).brain_picture if options.data else None
    files = write_evaluation(options.out, evaluation, predictions, refined=refined, picture=picture)
    for warning in evaluation.warnings:
        _say(f"warning: {warning}")
    if options.restoration:
        _check_restoration(options)
    auc = evaluation.headline.classes["any"].figures["auc"]
    sys.stdout.write(f"{files.html}\nAUC any, by {evaluation.headline.level}: {_figure(auc.value)}\n")
    return 0


def _check_restoration(options: argparse.Namespace) -> None:
    from ich_node.training.restoration_check import check_restoration

    outcome = check_restoration(options.runs, _open_data(options))
    (options.out / "restoration.json").write_text(json.dumps(dataclasses.asdict(outcome), indent=1) + "\n")
    sys.stdout.write(
        f"{outcome.slices} slices in true HU, {outcome.positives} positive, from their restored brain window: "
        f"probability of any differs by {outcome.mean_difference:.3f} on average, AUC {_figure(outcome.auc_true)} -> "
        f"{_figure(outcome.auc_restored)}\n"
    )


# -------------------------------------------------------------------------------------------- export


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
    export.add_argument("--slices", type=int, default=32, metavar="N", help="to compare engines on (default 32)")
    export.add_argument("--replace", action="store_true", help="a bundle that is there")
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from ich_node.training.evaluate import read_evaluation
    from ich_node.training.export import ExportSettings, export_bundle
    from ich_node.training.look import PreparedSlices
    from ich_node.training.sequence.stage import read_head

    data = _open_data(options)
    rows = _unseen(options.run_directory, data)
    settings = ExportSettings(
        options.name,
        options.model_version,
        stored="float32" if options.float32 else "float16",
        replace=options.replace,
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
        _say(f"warning: {warning}")
    for engine in exported.parity:
        sys.stdout.write(
            f"{engine.engine} ({engine.device}): differs by at most {engine.largest_difference:.4f} in probability "
            f"from the training network on {engine.slices} slices\n"
        )
    sys.stdout.write(f"{exported.directory}: {exported.manifest.name} {exported.manifest.version}\n")
    return 0


def _unseen(run: Path, data: Sequence[PreparedSet]) -> list[SliceRow]:
    """Slices that a run held out; all of them where it held none out."""
    from ich_node.training.run_folder import demand_data
    from ich_node.training.sequence.embeddings import read_settings

    demand_data(run, data)
    rows = [row for one in data for row in one.rows]
    fold = read_settings(run).fold
    return [row for row in rows if fold is None or row.fold == fold]
