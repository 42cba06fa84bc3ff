"""Every command of the node. ``main`` reads the words and calls one function; commands import what they need."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence

from ich_node import __version__
from ich_node.cli import (
    accounts,
    alerts,
    archive,
    audit,
    drift,
    feedback,
    installation,
    legal_hold,
    models,
    node,
    operate,
    self_test,
    status,
    study,
    thresholds,
    validate,
)
from ich_node.errors import AlreadyRunning, ConfigError, IchNodeError, ModelError
from ich_node.log import silence_libraries

EXIT_FAILURE = 1
EXIT_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h: starting again will not help (``RestartPreventExitStatus=78``)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = build_parser().parse_args(arguments)
    silence_libraries()
    if not options.imports_more:
        gc.enable()
    try:
        exit_status: int = options.run(options)
    except (ConfigError, ModelError, AlreadyRunning) as error:
        sys.stderr.write(f"ich-node: {error}\n")
        return EXIT_CONFIGURATION
    except IchNodeError as error:
        sys.stderr.write(f"ich-node: {error}\n")
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return 130
    return exit_status


def build_parser() -> argparse.ArgumentParser:
    """Describe every command; the documentation is tested against it."""
    parser = argparse.ArgumentParser(
        prog="ich-node",
        description="Find intracranial hemorrhage on head CT. Research software, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"ich-node {__version__}")
    parser.set_defaults(imports_more=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    node.add_commands(commands)
    status.add_command(commands)
    drift.add_command(commands)
    operate.add_commands(commands)
    self_test.add_command(commands)
    alerts.add_commands(commands)
    installation.add_commands(commands)
    audit.add_commands(commands)
    accounts.add_commands(commands)
    legal_hold.add_commands(commands)
    feedback.add_commands(commands)
    models.add_commands(commands)
    validate.add_command(commands)
    thresholds.add_commands(commands)
    study.add_commands(commands)
    archive.add_command(commands)
    return parser
