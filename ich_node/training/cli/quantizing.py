"""``ich-train quantize``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ich_node.errors import TrainingError
from ich_node.training.cli.words import Commands, open_data


def add_commands(commands: Commands) -> None:
    """Add quantize."""
    text = "write a bundle with its network in 8 bits beside the other one, for the engine openvino-int8"
    quantize = commands.add_parser("quantize", help=text, description=text)
    quantize.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle whose network is quantized")
    quantize.add_argument("directory", type=Path, metavar="OUT", help="folder of the new bundle")
    quantize.add_argument("--data", type=Path, action="append", required=True, metavar="DIR",
                          help="prepared set; repeat")  # fmt: skip
    quantize.add_argument("--model-version", required=True, metavar="VERSION", help="of the new bundle, such as 1.1.0")
    quantize.add_argument("--fold", type=int, default=0, metavar="K",
                          help="the networks are compared on it; the others set the ranges (default 0)")  # fmt: skip
    quantize.add_argument("--slices", type=int, default=300, metavar="N", help="that set the ranges (default 300)")
    quantize.add_argument("--compare", type=int, default=2000, metavar="N",
                          help="to compare on, at most, whole studies first (default 2000)")  # fmt: skip
    quantize.add_argument("--replace", action="store_true", help="a bundle that is there, such as BUNDLE itself")
    quantize.set_defaults(run=_quantize)


def _quantize(options: argparse.Namespace) -> int:
    from ich_node.training.look import PreparedSlices, choose_some, choose_whole
    from ich_node.training.quantize import QuantizeSettings, quantize_bundle

    data = open_data(options)
    slices = PreparedSlices(data)
    rows = [row for one in data for row in one.rows]
    compared = choose_whole([row for row in rows if row.fold == options.fold], options.compare)
    if not compared:
        raise TrainingError(f"--fold {options.fold}: the prepared sets have no such fold")
    calibration = choose_some([row for row in rows if row.fold != options.fold], options.slices)
    settings = QuantizeSettings(options.model_version, options.replace)
    manifest = quantize_bundle(options.bundle, options.directory, calibration, compared, slices.hu, settings)
    assert manifest.quantized is not None, "it was made"
    assert manifest.quantized.figures is not None, "they were measured"
    sys.stdout.write(f"{manifest.quantized.figures.in_words()}\n")
    sys.stdout.write(f"{options.directory}: {manifest.name} {manifest.version}\n")
    return 0
