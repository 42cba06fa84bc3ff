"""Sessions: who is logged in at which browser. The database holds hashes of their tokens, never a token."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import delete, insert, or_, select, update

from ich_node.accounts.naming import hash_token
from ich_node.accounts.people import Account
from ich_node.accounts.roles import Role
from ich_node.database import AccountRow, Database, SessionRow
from ich_node.errors import StorageUnavailable

_NOTE_EVERY_S: Final = 60.0
"""How exactly it is known when a session was last used: one write a minute at most."""
_MOST_PER_ACCOUNT: Final = 20


@dataclass(frozen=True, slots=True)
class SessionRules:
    """When a session ends by itself."""

    idle_s: float
    """After so long without a request of a person."""
    longest_s: float
    """After so long in any case."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is logged in."""

    account: str
    role: Role
    token: str = field(repr=False)

    @property
    def form_token(self) -> str:
        """What every form of this session carries: another site's form cannot know it."""
        digest = hmac.digest(self.token.encode(), b"form", hashlib.sha256)
        return digest.hex()

    def owns(self, form_token: str) -> bool:
        """Say whether a form is one of this session."""
        return hmac.compare_digest(self.form_token.encode(), form_token.encode("utf-8", "replace"))


def begin_session(database: Database, account: Account) -> Session:
    """Log an account in at one more browser; the oldest of too many sessions ends."""
    token, now = secrets.token_urlsafe(32), time.time()
    values = {"token_sha256": hash_token(token), "account_id": account.id, "created_at": now, "seen_at": now}
    with database.writing() as connection:
        mine = select(SessionRow.id).where(SessionRow.account_id == account.id).order_by(SessionRow.id.desc())
        oldest = connection.execute(mine.offset(_MOST_PER_ACCOUNT - 1)).scalars().all()
        connection.execute(delete(SessionRow).where(SessionRow.id.in_(oldest)))
        connection.execute(insert(SessionRow).values(values))
    return Session(account.name, account.role, token)


def find_session(database: Database, token: str, rules: SessionRules, *, by_person: bool = True) -> Session | None:
    """Give the session of a token; None where it has ended, or its account may not be used any more.

    Args:
        by_person: False for what a page asks by itself, which keeps no session alive.
    """
    now = time.time()
    wanted = (
        select(SessionRow, AccountRow.name, AccountRow.role)
        .join(AccountRow, AccountRow.id == SessionRow.account_id)
        .where(SessionRow.token_sha256 == hash_token(token), AccountRow.disabled.is_(False))
    )
    with database.reading() as connection:
        row = connection.execute(wanted).first()
    if row is None or now - row.seen_at > rules.idle_s or now - row.created_at > rules.longest_s:
        return None
    if by_person and now - row.seen_at > min(_NOTE_EVERY_S, rules.idle_s / 2):
        with suppress(StorageUnavailable), database.writing() as connection:
            connection.execute(update(SessionRow).where(SessionRow.id == row.id).values(seen_at=now))
    return Session(row.name, Role(row.role), token)


def end_session(database: Database, token: str) -> None:
    """Log out."""
    with database.writing() as connection:
        connection.execute(delete(SessionRow).where(SessionRow.token_sha256 == hash_token(token)))


def end_sessions_of(database: Database, name: str) -> int:
    """Log an account out everywhere; return from how many browsers."""
    account = select(AccountRow.id).where(AccountRow.name == name).scalar_subquery()
    with database.writing() as connection:
        return connection.execute(delete(SessionRow).where(SessionRow.account_id == account)).rowcount


def forget_old_sessions(database: Database, rules: SessionRules) -> int:
    """Delete sessions that have ended by themselves."""
    now = time.time()
    ended = or_(SessionRow.seen_at < now - rules.idle_s, SessionRow.created_at < now - rules.longest_s)
    with database.writing() as connection:
        return connection.execute(delete(SessionRow).where(ended)).rowcount
