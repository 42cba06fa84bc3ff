"""Links that acknowledge an alert: whoever has the link may answer, nobody can guess one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ich_node.config import Config
from ich_node.durable import sync_directory
from ich_node.errors import StartError

KEY_FILE: Final = "web.key"
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class AlertLinks:
    """Makes links, and tells a true one."""

    public_url: str
    """What links begin with; empty: nobody is sent one."""
    key: bytes = field(repr=False)

    def url(self, identifier: str) -> str:
        """Give the link of an alert; empty where none is sent."""
        return f"{self.public_url}/alerts/{identifier}?token={self.token(identifier)}" if self.public_url else ""

    def token(self, identifier: str) -> str:
        """Give the HMAC-SHA256 (RFC 2104) of an identifier, in 43 characters that a URL holds as they are."""
        digest = hmac.digest(self.key, identifier.encode("utf-8", "replace"), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def fits(self, identifier: str, token: str) -> bool:
        """Say whether a token is that of an identifier; takes as long whether it is or not."""
        return hmac.compare_digest(self.token(identifier).encode(), token.encode("utf-8", "replace"))


def open_links(config: Config) -> AlertLinks | None:
    """Give what makes links, where the node has web pages.

    Raises:
        StartError: the key cannot be made or read.
    """
    if not config.web.enabled:
        return None
    return AlertLinks(config.web.public_url, read_or_make_key(config.state_directory / KEY_FILE))


def read_or_make_key(path: Path) -> bytes:
    """Read the key of the links; the first process that needs it makes it, with mode 0600, and all others get that.

    Raises:
        StartError: it cannot be made or read, or is no key.
    """
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise StartError(f"{path} cannot be used: {error.strerror}") from error
    if len(key) != _KEY_BYTES:
        raise StartError(f"{path} is damaged; delete it: links that were sent before end to work")
    return key


def _make_key(path: Path) -> None:
    """Make the whole file under another name, and name it last: a link to a name that exists fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(part)
    except FileExistsError:
        return
    finally:
        part.unlink(missing_ok=True)
    sync_directory(path.parent)
