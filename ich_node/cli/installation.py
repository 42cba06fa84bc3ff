"""The command that says who this installation is, and settles it for a copy or a move."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime

from ich_node.cli.node import Commands, audit_command, read_config, with_config


def add_commands(commands: Commands) -> None:
    """Add installation."""
    text = "show who this installation is; say of a copied or moved state folder which of the two it is"
    parser = commands.add_parser("installation", help=text, description=text)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--new", action="store_true", help="be another installation: this is a copy, or begins anew")
    choice.add_argument("--here", action="store_true", help="stay the same: it was moved or restored, and is only here")
    with_config(parser)
    parser.set_defaults(run=_installation)


def _installation(options: argparse.Namespace) -> int:
    from ich_node.database import open_database, prepare_database, read_installation, settle_installation

    config = read_config(options)
    database = open_database(config.database_url, config.database.busy_timeout_s)
    if options.new or options.here:
        settle_installation(database, config.state_directory, host_directory=config.host_directory, anew=options.new)
    else:
        prepare_database(database, config.state_directory, host_directory=config.host_directory)
    database.close()
    installation = read_installation(config.state_directory)
    assert installation is not None, "the file was just written"
    since = datetime.fromtimestamp(installation.created_at).astimezone()
    sys.stdout.write(f"{installation.installation_uid}\nsince {since:%Y-%m-%d %H:%M}, in {installation.directory}\n")
    if options.new or options.here:
        audit_command(config, "installation-new" if options.new else "installation-here")
        sys.stdout.write("restart the node: its processes read this when they start\n")
    return 0
