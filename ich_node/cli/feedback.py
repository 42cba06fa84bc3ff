"""Commands about what readers say of findings."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ich_node.cli.node import Commands, open_queue, read_config, with_config


def add_commands(commands: Commands) -> None:
    """Add feedback export."""
    text = "what readers say of findings"
    feedback = commands.add_parser("feedback", help=text, description=text)
    kinds = feedback.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "write it as a table of labels for `ich-train prepare --labels`: UIDs and labels alone; that is recorded"
    export = kinds.add_parser("export", help=text, description=text)
    export.add_argument("file", type=Path, metavar="FILE", help="a new file")
    export.set_defaults(run=_export)
    with_config(export)


def _export(options: argparse.Namespace) -> int:
    from ich_node.audit import open_trail
    from ich_node.concordance import label_table
    from ich_node.queries.feedback import spoken_answers

    config = read_config(options)
    table = label_table(spoken_answers(open_queue(config)))
    try:
        descriptor = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        sys.stderr.write(f"ich-node feedback export: {options.file}: {error.strerror}\n")
        return 2
    trail = open_trail(config, "feedback")
    trail.labels_exported(options.file.absolute().as_uri(), table.studies)
    trail.close()
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(table.csv)
    left_out = f"; {table.left_out} left out: readers differ, or do not say which subtype" if table.left_out else ""
    sys.stdout.write(f"{len(table.studies)} studies written to {options.file}{left_out}\n")
    return 0
