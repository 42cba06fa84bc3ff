"""Commands about who may use the web pages and the REST API."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from ich_node.cli.node import Commands, audit_command, open_queue, read_config, with_config
from ich_node.errors import AccountError

if TYPE_CHECKING:
    from ich_node.database import Database

_ROLES = ("viewer", "reader", "operator", "administrator")


def add_commands(commands: Commands) -> None:
    """Add user and token."""
    _add_user(commands)
    _add_token(commands)


def _add_user(commands: Commands) -> None:
    text = "say who may log in to the web pages, and as what"
    user = commands.add_parser("user", help=text, description=text)
    kinds = user.add_subparsers(title="commands", metavar="COMMAND", required=True)

    text = "make an account; its password is asked for"
    add = kinds.add_parser("add", help=text, description=text)
    add.add_argument("name", metavar="NAME")
    add.add_argument("--role", required=True, choices=_ROLES, help="what it may do; each may do what those before may")
    add.set_defaults(run=_user_add)
    text = "list the accounts"
    listing = kinds.add_parser("list", help=text, description=text)
    listing.set_defaults(run=_user_list)
    text = "give an account another role"
    role = kinds.add_parser("role", help=text, description=text)
    role.add_argument("name", metavar="NAME")
    role.add_argument("role", choices=_ROLES, metavar="ROLE", help=", ".join(_ROLES))
    role.set_defaults(run=_user_role)
    text = "give an account another password, which is asked for; it is logged out everywhere"
    password = kinds.add_parser("password", help=text, description=text)
    password.add_argument("name", metavar="NAME")
    password.set_defaults(run=_user_password)
    for parser in (add, password):
        parser.add_argument("--password-stdin", action="store_true", help="read it from standard input, one line")
    text = "let an account in no more, and log it out; its name stays in the records"
    disable = kinds.add_parser("disable", help=text, description=text)
    disable.add_argument("name", metavar="NAME")
    disable.set_defaults(run=_user_disable)
    text = "let an account in again that was disabled, or locked after wrong passwords"
    enable = kinds.add_parser("enable", help=text, description=text)
    enable.add_argument("name", metavar="NAME")
    enable.set_defaults(run=_user_enable)
    for parser in (add, listing, role, password, disable, enable):
        with_config(parser)


def _add_token(commands: Commands) -> None:
    text = "say which programs may use the REST API, and as what"
    token = commands.add_parser("token", help=text, description=text)
    kinds = token.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "make a token for a program, and show it this once"
    add = kinds.add_parser("add", help=text, description=text)
    add.add_argument("name", metavar="NAME", help="of the program")
    add.add_argument("--role", required=True, choices=_ROLES, help="what it may do; each may do what those before may")
    add.set_defaults(run=_token_add)
    text = "list the tokens, without what they are"
    listing = kinds.add_parser("list", help=text, description=text)
    listing.set_defaults(run=_token_list)
    text = "let a token be used no more"
    revoke = kinds.add_parser("revoke", help=text, description=text)
    revoke.add_argument("name", metavar="NAME")
    revoke.set_defaults(run=_token_revoke)
    for parser in (add, listing, revoke):
        with_config(parser)


def _user_add(options: argparse.Namespace) -> int:
    from ich_node.accounts import Role, add_account

    password = _new_password(options)
    return _change(
        options, "user-add", lambda database: add_account(database, options.name, Role(options.role), password),
        f"{options.name} may log in as {options.role}", Role=options.role,
    )  # fmt: skip


def _user_role(options: argparse.Namespace) -> int:
    from ich_node.accounts import Role, change_role

    return _change(
        options, "user-role", lambda database: change_role(database, options.name, Role(options.role)),
        f"{options.name} is {options.role} from the next request on", Role=options.role,
    )  # fmt: skip


def _user_password(options: argparse.Namespace) -> int:
    from ich_node.accounts import change_password

    password = _new_password(options)
    return _change(
        options, "user-password", lambda database: change_password(database, options.name, password),
        f"{options.name} has another password, and is logged out everywhere",
    )  # fmt: skip


def _user_disable(options: argparse.Namespace) -> int:
    from ich_node.accounts import disable_account

    said = f"{options.name} can log in no more"
    return _change(options, "user-disable", lambda database: disable_account(database, options.name), said)


def _user_enable(options: argparse.Namespace) -> int:
    from ich_node.accounts import enable_account

    said = f"{options.name} can log in"
    return _change(options, "user-enable", lambda database: enable_account(database, options.name), said)


def _change(
    options: argparse.Namespace, command: str, change: Callable[[Database], object], said: str, **details: str
) -> int:
    config = read_config(options)
    database = open_queue(config)
    try:
        change(database)
    except AccountError as error:
        sys.stderr.write(f"ich-node {command.replace('-', ' ')}: {error}\n")
        return 1
    audit_command(config, command, Name=options.name, **details)
    sys.stdout.write(f"{said}\n")
    return 0


def _user_list(options: argparse.Namespace) -> int:
    from ich_node.accounts import list_accounts

    accounts = list_accounts(open_queue(read_config(options)))
    for one in accounts:
        locked = one.locked_until is not None and one.locked_until > time.time()
        state = "disabled" if one.disabled else f"locked until {_minute(one.locked_until)}" if locked else ""
        sys.stdout.write(f"{one.name:24} {one.role:14} since {_minute(one.created_at)}  {state}".rstrip() + "\n")
    if not accounts:
        sys.stdout.write("nobody may log in yet: ich-node user add NAME --role administrator\n")
    return 0


def _token_add(options: argparse.Namespace) -> int:
    from ich_node.accounts import Role, add_token

    config = read_config(options)
    try:
        token = add_token(open_queue(config), options.name, Role(options.role))
    except AccountError as error:
        sys.stderr.write(f"ich-node token add: {error}\n")
        return 1
    audit_command(config, "token-add", Name=options.name, Role=options.role)
    sys.stdout.write(f"{token}\n")
    sys.stderr.write("it is shown this once: send it as the header  Authorization: Bearer TOKEN\n")
    return 0


def _token_list(options: argparse.Namespace) -> int:
    from ich_node.accounts import list_tokens

    for one in list_tokens(open_queue(read_config(options))):
        used = f"used {_minute(one.used_at)}" if one.used_at else "never used"
        state = f"revoked {_minute(one.revoked_at)}" if one.revoked_at else used
        sys.stdout.write(f"{one.name:24} {one.role:14} since {_minute(one.created_at)}  {state}\n")
    return 0


def _token_revoke(options: argparse.Namespace) -> int:
    from ich_node.accounts import revoke_token

    config = read_config(options)
    if not revoke_token(open_queue(config), options.name):
        sys.stderr.write(f"ich-node token revoke: there is no token {options.name} that can be used\n")
        return 1
    audit_command(config, "token-revoke", Name=options.name)
    sys.stdout.write(f"{options.name} can be used no more\n")
    return 0


def _new_password(options: argparse.Namespace) -> str:
    """Ask for a password, twice; never by an argument, which every user of the machine can read."""
    if options.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass(f"Password of {options.name}: ")
    if getpass.getpass("The same again: ") != password:
        raise AccountError("the two are not the same; nothing was changed")
    return password


def _minute(at: float | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M}"
