"""Commands of a site's own thresholds: sign off, show, remove."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ich_node.cli.node import Commands, audit_command, read_config, with_config
from ich_node.cli.terminal import printable, who_says_so

if TYPE_CHECKING:
    from ich_node.model.site_thresholds import SiteThresholds

_RESTART = "restart the worker, which takes thresholds when it starts"
_LONGEST_REASON = 200


def add_commands(commands: Commands) -> None:
    """Add thresholds sign-off, show and remove."""
    text = "the site's own thresholds, which a validation proposes"
    thresholds = commands.add_parser("thresholds", help=text, description=text)
    actions = thresholds.add_subparsers(title="actions", metavar="ACTION", required=True)
    text = "let the node use proposed thresholds, for the model that was validated; that is recorded"
    sign = actions.add_parser("sign-off", help=text, description=text)
    sign.add_argument("file", type=Path, metavar="FILE", help="thresholds.proposed.json of ich-node validate")
    text = "say which thresholds the site signed off, who did, and on what they rest"
    show = actions.add_parser("show", help=text, description=text)
    text = "use the model's own thresholds again; that is recorded"
    remove = actions.add_parser("remove", help=text, description=text)
    for parser, run in ((sign, _sign_off), (show, _show), (remove, _remove)):
        if parser is not show:
            parser.add_argument("--reason", required=True, metavar="TEXT", help="why; it is recorded")
            parser.add_argument("--by", metavar="NAME", help="who says so (default: the user of this command)")
        with_config(parser)
        parser.set_defaults(run=run)


def _sign_off(options: argparse.Namespace) -> int:
    from ich_node.model.site_thresholds import SITE_THRESHOLDS, read_thresholds, sign_off
    from ich_node.state_folder import make_state_folder

    reason = _reason(options)
    if not reason:
        return 2
    config, by, proposed = read_config(options), who_says_so(options.by), read_thresholds(options.file)
    make_state_folder(config.state_directory)
    signed = sign_off(proposed, config.state_directory, by, reason, time.time())
    audit_command(config, "thresholds-sign-off", By=by, Name=signed.model.name, Version=signed.model.version,
                  Sha256=signed.model.sha256, Reason=reason, Thresholds=_pairs(signed))  # fmt: skip
    sys.stdout.write(f"{config.state_directory / SITE_THRESHOLDS} written; {_RESTART}\n")
    return 0


def _show(options: argparse.Namespace) -> int:
    from ich_node.model.site_thresholds import signed_thresholds

    found = signed_thresholds(read_config(options).state_directory)
    sys.stdout.write(
        printable(_in_words(found)) if found is not None else "none: the model's own thresholds are used\n"
    )
    return 0


def _remove(options: argparse.Namespace) -> int:
    from ich_node.model.site_thresholds import remove_thresholds

    reason = _reason(options)
    if not reason:
        return 2
    config, by = read_config(options), who_says_so(options.by)
    if not remove_thresholds(config.state_directory):
        sys.stderr.write("ich-node thresholds: there are none to remove\n")
        return 1
    audit_command(config, "thresholds-remove", By=by, Reason=reason)
    sys.stdout.write(f"removed; {_RESTART}\n")
    return 0


def _reason(options: argparse.Namespace) -> str:
    reason = printable(" ".join(options.reason.split()))[:_LONGEST_REASON]
    if not reason:
        sys.stderr.write("ich-node thresholds: the reason is empty\n")
    return reason


def _pairs(found: SiteThresholds) -> str:
    return ", ".join(f"{name} {pair.low:g}/{pair.high:g}" for name, pair in found.thresholds.items())


def _in_words(found: SiteThresholds) -> str:
    signed, data = found.signed_off, found.data
    assert signed is not None, "signed_thresholds gives signed ones"
    lines = [
        f"{signed.in_words()}: {signed.reason}",
        f"for {found.model.name} {found.model.version} ({found.model.sha256}), and no other model",
        f"on {data.studies} studies, {data.positives} with hemorrhage; labels {data.labels[:12]}",
    ]
    for name, pair in found.thresholds.items():
        source = "of this site" if name in found.site_classes else "as before"
        lines.append(f"  low {pair.low:g}, high {pair.high:g} ({source}); {found.measured(name)}")
    return "\n".join(lines) + "\n"
