"""Accounts of people: made by a command, and used at the login page."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, insert, select, update

from ich_node.accounts.naming import check_name
from ich_node.accounts.passwords import check_password, fits, hash_password, is_outdated, waste_time
from ich_node.accounts.roles import Role
from ich_node.database import AccountRow, Database, SessionRow
from ich_node.errors import AccountError

FREE_TRIES: Final = 5
"""Wrong passwords in a row before an account is locked for a while."""
FIRST_LOCK_S: Final = 60.0
LONGEST_LOCK_S: Final = 3600.0
_MOST_DOUBLINGS: Final = 30
"""A float holds no power of 2 that grows without an end."""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may log in."""

    id: int
    name: str
    role: Role
    created_at: float
    disabled: bool
    locked_until: float | None


@dataclass(frozen=True, slots=True)
class Login:
    """How a try to log in ended."""

    account: Account | None
    """None: the name or the password is wrong, or the account may not be used now."""
    locked_s: float = 0.0
    """So long no password of this account is looked at."""
    why: str = ""
    """For the audit trail, never for who tried."""


def add_account(database: Database, name: str, role: Role, password: str) -> Account:
    """Make an account.

    Raises:
        AccountError: the name or the password will not do, or the name is taken.
    """
    check_name(name)
    check_password(name, password)
    values = {"name": name, "role": role, "password_hash": hash_password(password), "created_at": time.time()}
    with database.writing() as connection:
        if connection.execute(select(AccountRow.id).where(AccountRow.name == name)).first() is not None:
            raise AccountError(f"there is an account {name} already")
        connection.execute(insert(AccountRow).values(values))
    return _find(database, name)


def list_accounts(database: Database) -> list[Account]:
    """List all accounts by name."""
    with database.reading() as connection:
        return [_account(row) for row in connection.execute(select(AccountRow).order_by(AccountRow.name)).all()]


def change_role(database: Database, name: str, role: Role) -> None:
    """Give an account another role, from its next request on.

    Raises:
        AccountError: there is no such account, or no administrator would be left.
    """
    _change(database, name, {"role": role})


def change_password(database: Database, name: str, password: str) -> None:
    """Give an account another password; whoever is logged in with the old one is logged out.

    Raises:
        AccountError: there is no such account, or the password will not do.
    """
    check_password(name, password)
    _change(database, name, {"password_hash": hash_password(password), "failures": 0, "locked_until": None}, out=True)


def disable_account(database: Database, name: str) -> None:
    """Let nobody in by an account any more; its name stays in the records.

    Raises:
        AccountError: there is no such account, or no administrator would be left.
    """
    _change(database, name, {"disabled": True}, out=True)


def enable_account(database: Database, name: str) -> None:
    """Let an account in again, whether it was disabled or locked.

    Raises:
        AccountError: there is no such account.
    """
    _change(database, name, {"disabled": False, "failures": 0, "locked_until": None})


def log_in(database: Database, name: str, password: str) -> Login:
    """See whether name and password are those of an account that may be used.

    After `FREE_TRIES` wrong passwords the account is locked for a minute, then twice as long after each further one,
    for an hour at most. It takes about as long for a name that there is not; that one is locked says that it exists.
    """
    now = time.time()
    with database.reading() as connection:
        row = connection.execute(select(AccountRow).where(AccountRow.name == name)).first()
    if row is None:
        waste_time()
        return Login(None, why="no such account")
    if row.locked_until is not None and row.locked_until > now:
        waste_time()
        return Login(None, row.locked_until - now, "locked after wrong passwords")
    if not fits(row.password_hash, password):
        return _note_failure(database, row.id, now)
    if row.disabled:
        return Login(None, why="the account is disabled")
    changes: dict[str, Any] = {"failures": 0, "locked_until": None}
    if is_outdated(row.password_hash):
        changes["password_hash"] = hash_password(password)
    same = (AccountRow.id == row.id, AccountRow.password_hash == row.password_hash, AccountRow.disabled.is_(False))
    with database.writing() as connection:
        if not connection.execute(update(AccountRow).where(*same).values(changes)).rowcount:
            return Login(None, why="the account was changed meanwhile")
    return Login(_account(row))


def _note_failure(database: Database, account_id: int, now: float) -> Login:
    with database.writing() as connection:
        mine = AccountRow.id == account_id
        failures = connection.execute(select(AccountRow.failures).where(mine)).scalar_one() + 1
        over = failures - FREE_TRIES
        locked_s = min(FIRST_LOCK_S * 2.0 ** min(over, _MOST_DOUBLINGS), LONGEST_LOCK_S) if over >= 0 else 0.0
        values = {"failures": failures, "locked_until": now + locked_s if locked_s else None}
        connection.execute(update(AccountRow).where(mine).values(values))
    return Login(None, locked_s, "wrong password")


def _change(database: Database, name: str, values: dict[str, Any], *, out: bool = False) -> None:
    with database.writing() as connection:
        row = connection.execute(select(AccountRow).where(AccountRow.name == name)).first()
        if row is None:
            raise AccountError(f"there is no account {name}")
        stays = values.get("role", row.role) == Role.ADMINISTRATOR and not values.get("disabled", row.disabled)
        if row.role == Role.ADMINISTRATOR and not row.disabled and not stays:
            others = select(AccountRow.id).where(
                AccountRow.role == Role.ADMINISTRATOR, AccountRow.disabled.is_(False), AccountRow.id != row.id
            )
            if connection.execute(others).first() is None:
                raise AccountError(f"{name} is the only administrator: make another first")
        connection.execute(update(AccountRow).where(AccountRow.id == row.id).values(values))
        if out:
            connection.execute(delete(SessionRow).where(SessionRow.account_id == row.id))


def _find(database: Database, name: str) -> Account:
    with database.reading() as connection:
        return _account(connection.execute(select(AccountRow).where(AccountRow.name == name)).one())


def _account(row: Any) -> Account:
    return Account(row.id, row.name, Role(row.role), row.created_at, row.disabled, row.locked_until)
