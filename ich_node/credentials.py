"""Names of the configuration that stand for a credential which systemd hands to the unit.

``credential:NAME`` is what ``LoadCredential=NAME:FILE`` of systemd.exec(5) put into the unit's own folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from ich_node.errors import SecretFileError

CREDENTIAL: Final = "credential:"
_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
_NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,200}")


def is_credential(path: Path | str) -> bool:
    """Say whether a name stands for a credential of the unit."""
    return str(path).startswith(CREDENTIAL)


def secret_path(path: Path | str) -> Path:
    """Give the file behind a name of the configuration.

    Raises:
        SecretFileError: the unit was given no such credential.
    """
    if not is_credential(path):
        return Path(path)
    name = str(path).removeprefix(CREDENTIAL)
    if not _NAME.fullmatch(name):
        raise SecretFileError(path, "a credential's name has letters, digits, -, _ and . only")
    directory = os.environ.get(_DIRECTORY)
    found = Path(directory, name) if directory else None
    if found is None or not found.exists():
        raise SecretFileError(path, f"this unit was given no such credential; LoadCredential={name}:FILE in a drop-in")
    return found


def secret_path_or_name(path: Path | str) -> Path:
    """Give the file behind a name, or the name itself where this process was not given it: who reads it, says so."""
    try:
        return secret_path(path)
    except SecretFileError:
        return Path(path)
