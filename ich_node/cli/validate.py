"""``ich-node validate``: the node's answers against a site's own labels, as a report."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ich_node.cli.node import Commands, open_queue, read_config, with_config
from ich_node.cli.terminal import printable

if TYPE_CHECKING:
    from ich_node.config import Config
    from ich_node.validation.pictures import Picture
    from ich_node.validation.validating import Validation, ValidationSettings

REPORT, FIGURES, PROPOSED = "validation.html", "validation.json", "thresholds.proposed.json"


def add_command(commands: Commands) -> None:
    """Add validate."""
    text = "judge answers by a site's own labels, and write a report with proposed thresholds"
    validate = commands.add_parser("validate", help=text, description=text)
    validate.add_argument("--labels", type=Path, required=True, metavar="FILE", help="table of labels (CSV)")
    validate.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the report")
    validate.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        help="what `ich-node score --json` printed or `score-archive` wrote (default: this node's answers)",
    )
    validate.add_argument("--prevalence", type=_share, metavar="P", help="of hemorrhage at the site, between 0 and 1")
    validate.add_argument("--studies-per-shift", type=_positive, metavar="N", help="head CT that come in a shift")
    validate.add_argument("--shift-hours", type=_positive, default=8.0, metavar="H", help="of a shift (default 8)")
    for name in ("sensitivity", "specificity"):
        validate.add_argument(f"--target-{name}", type=_share, default=0.95, metavar="P", help="default 0.95")
    validate.add_argument("--model-sha256", default="", metavar="HEX", help="of the model, or the beginning of it")
    with_config(validate)
    validate.set_defaults(run=_validate)


def _share(text: str) -> float:
    if not 0.0 < (value := float(text)) < 1.0:
        raise argparse.ArgumentTypeError("a number between 0 and 1, such as 0.08")
    return value


def _positive(text: str) -> float:
    if not 0.0 < (value := float(text)) < 1e6:
        raise argparse.ArgumentTypeError("a number above 0")
    return value


def _validate(options: argparse.Namespace) -> int:
    from ich_node.errors import TableFaults

    if options.output.exists() and (not options.output.is_dir() or any(options.output.iterdir())):
        sys.stderr.write(f"ich-node validate: {options.output} holds something already; nothing was changed\n")
        return 2
    config = None if options.scores else read_config(options)
    try:
        validation, pictures, source = _of_scores(options) if config is None else _of_node(options, config)
    except TableFaults as error:
        sys.stderr.write(f"ich-node validate: {printable(str(error))}\n")
        return 2
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        if config is not None:
            _record(config, options.output, sorted(one.study_instance_uid for one in validation.labels.labels))
        proposes = _write(options.output, validation, pictures, source)
    except OSError as error:
        sys.stderr.write(f"ich-node validate: {options.output}: {error.strerror}\n")
        return 1
    sys.stdout.write(printable(_in_words(validation, options.output, proposes=proposes)))
    return 0


def _of_scores(options: argparse.Namespace) -> tuple[Validation, dict[str, Picture], str]:
    from ich_node.validation.labels import read_labels
    from ich_node.validation.scores_file import PARQUET, read_scores
    from ich_node.validation.validating import validate

    labels, results = read_labels(options.labels), read_scores(options.scores)
    source = f"ich-node score --json ({options.scores.name}); station, slice thickness, age and sex are not in it"
    if options.scores.suffix.lower() == PARQUET:
        source = f"ich-node score-archive ({options.scores.name})"
    return validate(labels, results, _settings(options)), {}, source


def _of_node(options: argparse.Namespace, config: Config) -> tuple[Validation, dict[str, Picture], str]:
    from ich_node.decode import DecoderPool
    from ich_node.decoding_rules import decline_by, decode_limits
    from ich_node.stored_files import stored_files
    from ich_node.validation.labels import read_labels
    from ich_node.validation.node_results import node_results
    from ich_node.validation.pictures import pictures_of
    from ich_node.validation.validating import validate

    labels = read_labels(options.labels)
    database, files = open_queue(config), stored_files(config)
    uids = frozenset(one.study_instance_uid for one in labels.labels)
    validation = validate(labels, node_results(database, files, uids), _settings(options))
    with DecoderPool(decode_limits(config), decline_by(config), 1) as decoder:
        pictures = dict(pictures_of(validation.worst, database, files, decoder))
    database.close()
    return validation, pictures, f"the answers of node {config.node.ae_title}, the current revision of each study"


def _settings(options: argparse.Namespace) -> ValidationSettings:
    from ich_node.validation.validating import ValidationSettings

    return ValidationSettings(
        target_sensitivity=options.target_sensitivity,
        target_specificity=options.target_specificity,
        prevalence=options.prevalence,
        studies_per_shift=options.studies_per_shift,
        shift_hours=options.shift_hours,
        model_sha256=options.model_sha256.lower(),
    )


def _record(config: Config, output: Path, studies: list[str]) -> None:
    """Record what leaves the node: UIDs, ages in classes, and pictures of slices."""
    from ich_node.audit import open_trail

    trail = open_trail(config, "validate")
    trail.table_exported(output.absolute().as_uri(), studies, "validation report")
    trail.close()


def _write(output: Path, validation: Validation, pictures: dict[str, Picture], source: str) -> bool:
    """Write the files. False: no thresholds, since it is not known which model answered."""
    from ich_node.validation.as_json import proposed_thresholds, validation_as_json
    from ich_node.validation.page import render_page

    os.umask(0o077)
    at = time.time()
    (output / REPORT).write_text(render_page(validation, pictures, source, at), "utf-8")
    figures = validation_as_json(validation, source, at)
    (output / FIGURES).write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", "utf-8")
    proposed = proposed_thresholds(validation, at)
    if proposed is not None:
        (output / PROPOSED).write_bytes(proposed.to_bytes())
    return proposed is not None


def _in_words(validation: Validation, output: Path, *, proposes: bool) -> str:
    from ich_node.validation.sections import warnings_of
    from ich_node.validation.wording import area_in_words, share_in_words, studies

    any_, matched = validation.classes["any"], validation.matched
    chosen = [name for name, one in validation.proposals.items() if one.chosen_here]
    lines = [
        f"{studies(len(validation.labels.labels))} with a label: {len(matched.analysed)} analysed, "
        f"{len(matched.not_analysed)} not analysed, {len(matched.left_out)} left out; "
        f"{studies(len(matched.unlabelled))} without a label",
        f"sensitivity {share_in_words(any_.positive.sensitivity)}, specificity "
        f"{share_in_words(any_.positive.specificity)}, AUC {area_in_words(any_.area)}",
        *warnings_of(validation),
        *validation.labels.repeats,
        *(f"left out: {one.study_instance_uid}: {one.why}" for one in matched.left_out),
        f"new thresholds are proposed for: {', '.join(chosen) or 'no class; too few studies'}",
        f"{output / REPORT} is to be read" + (f"; {output / PROPOSED} to be signed off" if proposes else ""),
    ]
    return "\n".join(lines) + "\n"
