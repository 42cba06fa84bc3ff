"""``ich-train``: every command of the training module. Commands import what they need."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ich_node import __version__
from ich_node.errors import IchNodeError
from ich_node.training.cli import fitting, judging, preparing, quantizing

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
    preparing.add_commands(commands)
    fitting.add_commands(commands)
    judging.add_commands(commands)
    quantizing.add_commands(commands)
    return parser
