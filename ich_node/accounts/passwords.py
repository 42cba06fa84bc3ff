"""Passwords, as argon2id keeps them (RFC 9106). The one home of argon2."""

from __future__ import annotations

from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ich_node.errors import AccountError

SHORTEST_PASSWORD: Final = 12
LONGEST_PASSWORD: Final = 256
_FEWEST_SIGNS: Final = 5
"""Different ones, in a password."""

_hasher = PasswordHasher()


def check_password(name: str, password: str) -> None:
    """See whether a password may be one. Length is what counts (NIST SP 800-63B 3.1.1.2).

    Raises:
        AccountError: it is too short, too long, or too easy to guess.
    """
    if len(password) < SHORTEST_PASSWORD:
        raise AccountError(f"a password has {SHORTEST_PASSWORD} characters or more")
    if len(password) > LONGEST_PASSWORD:
        raise AccountError(f"a password has {LONGEST_PASSWORD} characters at most")
    if name.casefold() in password.casefold() or len(set(password)) < _FEWEST_SIGNS:
        raise AccountError("a password does not hold the name, nor a few characters again and again")


def hash_password(password: str) -> str:
    """Hash a password; it takes some 50 ms and 64 MiB."""
    return _hasher.hash(password)


def fits(password_hash: str, password: str) -> bool:
    """Say whether a password is the one that was hashed."""
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(password_hash: str) -> bool:
    """Say whether a password would be hashed with more effort today."""
    return _hasher.check_needs_rehash(password_hash)


def waste_time() -> None:
    """Take as long as for a wrong password, so that nobody can tell which names there are."""
    fits(_nobodys(), "wrong")


@cache
def _nobodys() -> str:
    return hash_password("nobody's")
