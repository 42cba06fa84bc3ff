"""The configuration as it is in force, for a page. Secrets are files, of which the names are shown alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel

from ich_node.config import Config

_WITH_PASSWORD: Final = re.compile(r"://[^/@]*@")
_MASKED: Final = {("alert_webhook", "url")}
"""Addresses whose path may be as good as a password."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key."""

    key: str
    value: str
    is_default: bool


@dataclass(frozen=True, slots=True)
class SectionInForce:
    """One section, or one table of a kind."""

    title: str
    """As it stands in the file: ``[node]``, ``[[destination]]``."""
    settings: tuple[Setting, ...]


def sections_in_force(config: Config) -> tuple[SectionInForce, ...]:
    """Give every section with every key, those too that the file does not name."""
    return tuple(_sections(config))


def _sections(config: Config) -> Iterator[SectionInForce]:
    for name in Config.model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield SectionInForce(f"[{name}]", _settings(name, value))
        for one in value if isinstance(value, tuple) else ():
            yield SectionInForce(f"[[{name}]]", _settings(name, one))


def _settings(section: str, values: BaseModel) -> tuple[Setting, ...]:
    given = values.model_dump(mode="json")
    return tuple(
        Setting(key, _shown(section, key, given[key]), _is_default(values, key))
        for key in type(values).model_fields
    )  # fmt: skip


def _is_default(values: BaseModel, key: str) -> bool:
    return bool(getattr(values, key) == type(values).model_fields[key].get_default(call_default_factory=True))


def _shown(section: str, key: str, value: Any) -> str:
    if value in (None, "", []):
        return "–"
    text = value if isinstance(value, str) else json.dumps(value)
    if (section, key) in _MASKED:
        place = urlsplit(text)
        return f"{place.scheme}://{place.netloc}/…"
    return _WITH_PASSWORD.sub("://…@", text)
