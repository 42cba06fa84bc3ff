"""``ich-train fit``, ``compare`` and ``sequence``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_node.training.cli.words import Commands, figure, open_data, pair, parsed, say, whole_numbers

if TYPE_CHECKING:
    from ich_node.training.fit import FitSettings


def add_commands(commands: Commands) -> None:
    """Add fit, compare, sequence."""
    _add_fit(commands)
    _add_compare(commands)
    _add_sequence(commands)


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
        changes["rates"] = dict(map(pair, options.rate))
    for key, value in map(pair, options.set):
        place = changes
        *path, last = key.split(".")
        for name in path:
            place = place.setdefault(name, {})
        place[last] = parsed(value)
    return make_settings(options.preset, changes)


def _fit(options: argparse.Namespace) -> int:
    from ich_node.training.fit import fit

    fit(_settings(options), open_data(options), options.directory, options.device)
    return 0


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
    folds = whole_numbers(options.folds)
    settings, data = _settings(options), open_data(options)
    rows = compare(backbones, settings, folds, data, options.directory, device=options.device, say=say)
    sys.stdout.write(as_markdown(rows))
    return 0


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

    settings = SequenceSettings.of({name: parsed(value) for name, value in map(pair, options.set)})
    ships_with = options.ships_with or options.runs[0]
    with join_processes(options.device) as processes:
        outcome = train_sequence_stage(
            options.runs,
            ships_with,
            open_data(options),
            settings,
            in_sample=options.in_sample,
            device=processes.device,
        )
    verdict = "better than" if outcome.better else "NOT better than"
    sys.stdout.write(
        f"{outcome.series} series, {outcome.positive_series} positive; out of fold by patient the head is {verdict} "
        f"the rule of the three highest slices:\n"
        f"  study AUC any {figure(outcome.study_auc_rule)} -> {figure(outcome.study_auc)}\n"
        f"  slice log loss {outcome.slice_log_loss_alone:.4f} -> {outcome.slice_log_loss:.4f}\n"
    )
    return 0
