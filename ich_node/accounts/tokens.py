"""Tokens of programs that use the REST API: one for each, shown once, kept as a hash."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import insert, select, update

from ich_node.accounts.naming import check_name, hash_token
from ich_node.accounts.roles import Role
from ich_node.database import ApiTokenRow, Database
from ich_node.errors import AccountError, StorageUnavailable

_PREFIX: Final = "ich_"
"""By which scanners for secrets find one that was published by mistake."""
_NOTE_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A program that may use the API."""

    name: str
    role: Role
    created_at: float
    revoked_at: float | None
    used_at: float | None
    """About when; None: never."""


def add_token(database: Database, name: str, role: Role) -> str:
    """Make a token for a program, and return it: it is not kept, and cannot be shown again.

    Raises:
        AccountError: the name will not do, or is taken.
    """
    check_name(name)
    token = _PREFIX + secrets.token_urlsafe(32)
    values = {"name": name, "role": role, "token_sha256": hash_token(token), "created_at": time.time()}
    with database.writing() as connection:
        if connection.execute(select(ApiTokenRow.id).where(ApiTokenRow.name == name)).first() is not None:
            raise AccountError(f"there is a token {name} already")
        connection.execute(insert(ApiTokenRow).values(values))
    return token


def list_tokens(database: Database) -> list[ApiToken]:
    """List all tokens by name, revoked ones too."""
    with database.reading() as connection:
        return [_api_token(row) for row in connection.execute(select(ApiTokenRow).order_by(ApiTokenRow.name)).all()]


def revoke_token(database: Database, name: str) -> bool:
    """Let a token be used no more. False: there is none of that name, or it was revoked before."""
    mine = update(ApiTokenRow).where(ApiTokenRow.name == name, ApiTokenRow.revoked_at.is_(None))
    with database.writing() as connection:
        return connection.execute(mine.values(revoked_at=time.time())).rowcount > 0


def find_token(database: Database, token: str) -> ApiToken | None:
    """Give whose token it is; None where it is nobody's."""
    mine = ApiTokenRow.token_sha256 == hash_token(token)
    with database.reading() as connection:
        row = connection.execute(select(ApiTokenRow).where(mine, ApiTokenRow.revoked_at.is_(None))).first()
    if row is None:
        return None
    if row.used_at is None or time.time() - row.used_at > _NOTE_EVERY_S:
        with suppress(StorageUnavailable), database.writing() as connection:
            connection.execute(update(ApiTokenRow).where(mine).values(used_at=time.time()))
    return _api_token(row)


def _api_token(row: Any) -> ApiToken:
    return ApiToken(row.name, Role(row.role), row.created_at, row.revoked_at, row.used_at)
