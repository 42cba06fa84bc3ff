"""Styles and scripts. They come with the package; nothing is loaded from elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

_KINDS: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file that pages load."""

    name: str
    content: bytes
    kind: str
    version: str
    """Changes with the content."""

    @property
    def url(self) -> str:
        """Address that stands for this very content: a browser need not ask whether it is still the same."""
        return f"/static/{self.name}?v={self.version}"


@cache
def assets() -> dict[str, Asset]:
    """Read the assets of the package, by name."""
    folder = resources.files("ich_node.web").joinpath("static")
    files = [(one.name, _KINDS.get(one.name.rpartition(".")[2]), one) for one in folder.iterdir()]
    return {name: _asset(name, kind, one.read_bytes()) for name, kind, one in files if kind is not None}


def asset_url(name: str) -> str:
    """Give the address of an asset, for a page."""
    return assets()[name].url


def _asset(name: str, kind: str, content: bytes) -> Asset:
    return Asset(name, content, kind, hashlib.sha256(content).hexdigest()[:16])
