"""What accounts and tokens have in common: names, and secrets that are kept as a hash."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from ich_node.errors import AccountError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,63}")


def check_name(name: str) -> None:
    """See whether a name may be one.

    Raises:
        AccountError: it has other characters, or too many or too few.
    """
    if not _NAME.fullmatch(name):
        raise AccountError("a name has 2 to 64 letters, digits, dots, hyphens and underscores")


def hash_token(token: str) -> str:
    """Hash a token; it is random and long, so that nothing slow is needed."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
