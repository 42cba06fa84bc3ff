"""Commands about the audit trail: show it, check it, write it out. Reading it is recorded in it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_node.cli.node import read_config, with_config

if TYPE_CHECKING:
    from ich_node.config import Config

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = Any


def add_commands(commands: Commands) -> None:
    """Add audit show, audit verify and audit export."""
    text = "show, check or write out the audit trail"
    audit = commands.add_parser("audit", help=text, description=text)
    kinds = audit.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "show who did what, the oldest first; it holds patient IDs, and that it was shown is recorded"
    show = kinds.add_parser("show", help=text, description=text)
    show.add_argument("--json", action="store_true", help="a JSON object per line")
    show.set_defaults(run=_show)
    text = "check that no record was altered, taken out or put in"
    verify = kinds.add_parser("verify", help=text, description=text)
    verify.set_defaults(run=_verify)
    text = "write the messages to a file, one a line, as they go to the server; that is recorded"
    export = kinds.add_parser("export", help=text, description=text)
    export.add_argument("file", type=Path, metavar="FILE", help="a new file")
    export.set_defaults(run=_export)
    for parser in (show, export):
        parser.add_argument("--since", type=_time, metavar="TIME", help="2026-05-01, or 2026-05-01T17:30 (local time)")
    for parser in (show, verify, export):
        with_config(parser)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone()


def _folder(config: Config) -> Path:
    from ich_node.audit.stored import FOLDER

    return config.state_directory / FOLDER


def _show(options: argparse.Namespace) -> int:
    from ich_node.audit.reading import as_words, in_a_line, read_messages

    config = read_config(options)
    _note_use(config, "show")
    for message in read_messages(_folder(config), options.since):
        said = as_words(message)
        sys.stdout.write((json.dumps(said) if options.json else in_a_line(said)) + "\n")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from ich_node.audit.reading import verify

    count, faults, notes = verify(_folder(read_config(options)))
    for line in (*faults, *notes):
        sys.stderr.write(f"{line}\n")
    says = "every record is as it was written" if not faults else f"{len(faults)} of them have faults"
    sys.stdout.write(f"{count} files; {says}\n")
    return 1 if faults else 0


def _export(options: argparse.Namespace) -> int:
    from ich_node.audit.reading import read_messages

    config = read_config(options)
    try:
        descriptor = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        sys.stderr.write(f"ich-node audit export: {options.file}: {error.strerror}\n")
        return 2
    _note_use(config, f"export {options.file}")
    count = 0
    with os.fdopen(descriptor, "wb") as file:
        count = sum(1 for message in read_messages(_folder(config), options.since) if file.write(message + b"\n"))
    sys.stdout.write(f"{count} messages written to {options.file}\n")
    return 0


def _note_use(config: Config, command: str) -> None:
    from ich_node.audit import open_trail

    trail = open_trail(config, "audit")
    trail.log_used(command)
    trail.close()
