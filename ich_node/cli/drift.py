"""``ich-node drift``: what the newest look for drift found, or what one would find now."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from ich_node.cli.node import Commands, open_queue, read_config, with_config
from ich_node.cli.terminal import printable

if TYPE_CHECKING:
    from ich_node.web.drift_page import DriftPage, Group


def add_command(commands: Commands) -> None:
    """Add drift."""
    text = "say whether series of each station and kernel still look, and end, as they did"
    drift = commands.add_parser("drift", help=text, description=text)
    drift.add_argument("--json", action="store_true", help="everything, for programs")
    drift.add_argument("--look", action="store_true", help="look now, and keep nothing of it")
    drift.set_defaults(run=_drift)
    with_config(drift)


def _drift(options: argparse.Namespace) -> int:
    from ich_node.drift import look_from_json
    from ich_node.drift_watch import look_now
    from ich_node.queries.drift import newest_look, set_references
    from ich_node.web.drift_page import drift_page

    config = read_config(options)
    database, rules = open_queue(config), config.drift.rules
    stored = None if options.look else newest_look(database)
    if stored is None and not options.look:
        sys.stdout.write("null\n" if options.json else "nobody has looked yet: ich-node drift --look\n")
        return 0
    if stored is None:
        look = look_now(database, rules)
    else:
        look = look_from_json(stored.looked_at, stored.tests, stored.compared)
    page = drift_page(look, set_references(database), rules)
    sys.stdout.write(json.dumps(dataclasses.asdict(look), indent=2) + "\n" if options.json else _in_words(page))
    return 0


def _in_words(page: DriftPage) -> str:
    at = datetime.fromtimestamp(page.look.looked_at).astimezone()
    lines = [f"looked {at:%Y-%m-%d %H:%M}, {page.look.tests} comparisons"]
    for group in page.groups:
        lines += _group(group)
    lines += [f"{one.name}: {one.verdict}" for one in page.waiting]
    if page.look.left_out:
        lines.append(f"{page.look.left_out} stations and kernels with the fewest series were not looked at")
    if not (page.groups or page.waiting):
        lines.append("no series was measured yet")
    return printable("\n".join(lines)) + "\n"


def _group(group: Group) -> list[str]:
    head = f"{group.name}: {'DRIFT: ' if group.found else ''}{group.verdict}"
    counts = f"  {group.look.reference_count} series in the reference, {group.look.recent_count} compared with it"
    rows = [
        f"  {row.name}: {row.reference[0]}, now {row.recent[0]} ({row.change}, chance {row.p}): {row.verdict}"
        for row in group.rows
    ]
    return [head, counts, *rows]
