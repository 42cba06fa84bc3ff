"""The parts of an installation, as ``requirements.txt`` pins them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
REQUIREMENTS: Final = ROOT / "requirements.txt"
_PIN: Final = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)")


def pinned(requirements: Path = REQUIREMENTS) -> dict[str, str]:
    """Give name and version of every package that an installation gets."""
    pins = {}
    for line in requirements.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _PIN.match(line)
        if found is None:
            raise ValueError(f"{requirements.name}: not pinned: {line}")
        pins[normal(found[1])] = found[2]
    return pins


def normal(name: str) -> str:
    """Write the name of a package as PEP 503 does."""
    return re.sub(r"[-_.]+", "-", name).lower()
