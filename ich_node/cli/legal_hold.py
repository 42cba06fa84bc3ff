"""Commands of legal holds: studies of which nothing is deleted."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime

from ich_node.cli.node import Commands, audit_command, open_queue, read_config, with_config
from ich_node.cli.terminal import printable, who_says_so


def add_commands(commands: Commands) -> None:
    """Add legal-hold set, lift and list."""
    text = "keep everything of a study, whatever its days"
    hold = commands.add_parser("legal-hold", help=text, description=text)
    kinds = hold.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "hold a study: retention deletes nothing of it"
    place = kinds.add_parser("set", help=text, description=text)
    place.add_argument("uid", metavar="UID", help="Study Instance UID")
    place.add_argument("--reason", required=True, metavar="TEXT", help="why; it is shown by ich-node status")
    place.set_defaults(run=_set)
    text = "lift the hold of a study: its days count again"
    lift = kinds.add_parser("lift", help=text, description=text)
    lift.add_argument("uid", metavar="UID", help="Study Instance UID")
    lift.set_defaults(run=_lift)
    for parser in (place, lift):
        parser.add_argument("--by", metavar="NAME", help="who says so (default: the user of this command)")
    text = "list the holds"
    listing = kinds.add_parser("list", help=text, description=text)
    listing.add_argument("--all", action="store_true", help="those that were lifted, too")
    listing.set_defaults(run=_list)
    for parser in (place, lift, listing):
        with_config(parser)


def _set(options: argparse.Namespace) -> int:
    from ich_node.operating import hold_study

    if not options.reason.strip():
        sys.stderr.write("ich-node legal-hold set: the reason is empty\n")
        return 2
    reason = printable(" ".join(options.reason.split()))
    config = read_config(options)
    placed = hold_study(config, open_queue(config), options.uid, reason, who_says_so(options.by))
    if placed:
        audit_command(config, "legal-hold-set", options.uid, Reason=reason, By=who_says_so(options.by))
    nothing = "no such study here, or it is held already: ich-node legal-hold list"
    sys.stdout.write("held: nothing of it is deleted\n" if placed else f"{nothing}\n")
    return 0 if placed else 1


def _lift(options: argparse.Namespace) -> int:
    from ich_node.operating import lift_study

    config = read_config(options)
    lifted = lift_study(config, open_queue(config), options.uid, who_says_so(options.by))
    if lifted:
        audit_command(config, "legal-hold-lift", options.uid, By=who_says_so(options.by))
    sys.stdout.write("lifted: its days count again\n" if lifted else "this study is not held\n")
    return 0 if lifted else 1


def _list(options: argparse.Namespace) -> int:
    from ich_node.job_queue.legal_holds import list_holds

    for hold in list_holds(open_queue(read_config(options)), lifted_too=options.all):
        lifted = f"; lifted {_day(hold.lifted_at)} by {hold.lifted_by}" if hold.lifted_at else ""
        since = f"since {_day(hold.placed_at)} by {hold.placed_by}"
        sys.stdout.write(f"{hold.study_instance_uid}  {since}: {hold.reason}{lifted}\n")
    return 0


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%d %b %Y %H:%M}"
