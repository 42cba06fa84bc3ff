"""Links that acknowledge an alert: whoever has the link may answer, nobody can guess one."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from ich_node.config import Config
from ich_node.secret_files import read_or_make_key

KEY_FILE: Final = "web.key"


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
        SecretFileError: the key cannot be made or read, or others can read it.
    """
    if not config.web.enabled:
        return None
    return AlertLinks(config.web.public_url, read_or_make_key(config.state_directory / KEY_FILE))
