"""Was the configuration changed since a process last started with it?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from ich_node.audit.message import Thing, resource
from ich_node.config import Config
from ich_node.durable import replace_durably
from ich_node.errors import IchNodeError
from ich_node.log import EventLog

_LAST: Final = "configuration.json"
_LOCK: Final = "configuration.lock"
_MOST_KEYS: Final = 40

log = EventLog("audit")


def note_configuration(directory: Path, config: Config) -> Thing | None:
    """Keep the configuration as the last one; give what is to be recorded where it is another than before.

    The keys that changed are named, not their values. Of several processes that start together one finds the change.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(directory / _LOCK):
            return _compare(directory / _LAST, config)
    except (OSError, IchNodeError) as error:
        log.error("the configuration cannot be compared with the last one", error)
        return None


def _compare(path: Path, config: Config) -> Thing | None:
    content = json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()
    before = path.read_bytes() if path.exists() else b""
    if content == before:
        return None
    replace_durably(path, [content])
    path.chmod(0o600)
    changed = sorted(dict(_flat(json.loads(before or b"{}"))).items() ^ dict(_flat(json.loads(content))).items())
    keys = list(dict.fromkeys(key for key, _ in changed)) if before else ["(first start)"]
    return resource(
        "ich-node:configuration",
        Keys=", ".join(keys[:_MOST_KEYS]),
        Before=hashlib.sha256(before).hexdigest() if before else "",
        After=hashlib.sha256(content).hexdigest(),
    )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Give every key with its value as text: ``destination.0.port``."""
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(inner, f"{name}.{key}".strip("."))
    else:
        yield name, json.dumps(value)
