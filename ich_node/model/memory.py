"""Which models were used here, so that an older version of one does not take its place unseen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from ich_node.durable import replace_durably
from ich_node.errors import ModelError, StartError
from ich_node.records import ModelIdentity

MEMORY: Final = "models.json"
_LOCK: Final = "models.lock"
_VERSION: Final = re.compile(r"v?(\d+(?:\.\d+)*)(.*)", re.DOTALL)


def demand_not_older(state_directory: Path, model: ModelIdentity, *, allow_older: bool) -> str:
    """See that no newer version of this model was used here before.

    Returns:
        What a person should hear of it; empty where there is nothing.

    Raises:
        ModelError: a newer one was, and older ones are not allowed.
        StartError: what was used before cannot be read.
    """
    before = _read(state_directory).get(model.name)
    if before is None or before["sha256"] == model.sha256:
        return ""
    newest, now = str(before["version"]), model.version
    if _age(now) == _age(newest):
        return f"version {now} was used here before with another content: a new one should have a number of its own"
    if _age(now) > _age(newest):
        return ""
    if allow_older:
        return f"version {newest} was used here before; [model] allow_older lets {now} be used"
    raise ModelError(
        f"{model.name} {now} is older than {newest}, which was used here before; where that is meant, set [model] "
        "allow_older = true"
    )


def remember_model(state_directory: Path, model: ModelIdentity) -> None:
    """Note that a model is used, where no newer version of it is noted.

    Raises:
        SpoolFull: there is no room.
        StartError: what was used before cannot be read.
    """
    with FileLock(state_directory / _LOCK):  # workers may start at the same time
        known = _read(state_directory)
        before = known.get(model.name)
        entry = {"version": model.version, "sha256": model.sha256}
        if before == entry or (before is not None and _age(model.version) < _age(str(before["version"]))):
            return
        content = json.dumps(known | {model.name: entry}, indent=1, sort_keys=True) + "\n"
        replace_durably(state_directory / MEMORY, [content.encode()])


def _read(state_directory: Path) -> dict[str, Any]:
    path = state_directory / MEMORY
    try:
        known: dict[str, Any] = json.loads(path.read_bytes())
        if all({"version", "sha256"} <= set(entry) for entry in known.values()):
            return known
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError):
        pass
    raise StartError(f"{path} is damaged; delete it: which models were used here is then not known any more")


def _age(version: str) -> tuple[tuple[int, ...], bool, str]:
    """Order versions: 1.10 is newer than 1.9, 1.0 and 1.0.0 are one, and 1.0 is newer than 1.0rc1."""
    found = _VERSION.fullmatch(version.strip())
    numbers, rest = (found[1], found[2]) if found else ("0", version)
    parts = [int(number) for number in numbers.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts), rest == "", rest
