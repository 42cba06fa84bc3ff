"""``ich-train prepare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ich_node.errors import TrainingError
from ich_node.training.cli.words import Commands, pair, say

if TYPE_CHECKING:
    from ich_node.training.prepare.lot import Source


def add_commands(commands: Commands) -> None:
    """Add prepare."""
    _add_prepare(commands)


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
        folds=options.folds, seed=options.seed, processes=options.processes, terms=dict(map(pair, options.terms))
    )
    data = prepare(_sources(options), options.directory, settings, say)
    for name, counts in data.manifest.counts.items():
        say(f"{name}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    if data.manifest.repairs:
        say("repaired: " + ", ".join(f"{name} {count}" for name, count in data.manifest.repairs.items()))
    if data.manifest.left_out:
        say(f"{len(data.manifest.left_out)} left out; {options.directory / 'prepared.json'} names them and says why")
    return 0


def _sources(options: argparse.Namespace) -> list[Source]:
    from ich_node.training.prepare import CoarsePositives, find_images, find_phantoms, find_rsna, find_studies

    if len(options.labels) != len(options.studies):
        raise TrainingError("give one --labels TABLE for each --studies NAME=PATH")
    side = {} if options.side is None else {"side_px": options.side}
    coarse = CoarsePositives(options.study_positives)
    sources = [find_rsna(place, options.rsna_labels, **side) for place in options.rsna]
    for (name, place), table in zip(map(pair, options.studies), options.labels, strict=True):
        sources.append(find_studies(Path(place), table, name, coarse_positives=coarse, **side))
    sources += [find_images(table, **side) for table in options.images]
    if options.phantoms:
        sources.append(find_phantoms(options.phantoms, options.seed, **side))
    if not sources:
        raise TrainingError("name at least one source: --rsna, --studies, --images or --phantoms")
    return sources
