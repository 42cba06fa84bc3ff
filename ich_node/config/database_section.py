"""The section of the configuration that says where the queue lives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, model_validator

from ich_node.config.values import PositiveSeconds, Section

_POSTGRESQL: Final = "postgresql+psycopg://"


def is_on_server(url: str) -> bool:
    """Say whether a URL names a database that several hosts can share."""
    return url.startswith(_POSTGRESQL)


def _database_url(value: str) -> str:
    if not value or value.startswith("sqlite:///"):
        return value
    if not value.startswith(_POSTGRESQL):
        raise ValueError(
            f"must be empty (SQLite in the state folder), sqlite:///PATH or {_POSTGRESQL}USER@HOST:PORT/DATABASE"
        )
    try:
        parts = urlsplit(value)
        has_password = parts.password is not None or "password" in parts.query
        well = parts.port != 0 and len(parts.path) > 1
    except ValueError:  # a port beyond 65535, a bracket without its end
        has_password, well = False, False
    if has_password:
        raise ValueError("must hold no password: others may read this file; put it into a file, see password_file")
    if not well:
        raise ValueError(f"must name a database: {_POSTGRESQL}USER@HOST:PORT/DATABASE")
    return value


class DatabaseSettings(Section):
    """``[database]``: where the queue lives."""

    url: Annotated[str, AfterValidator(_database_url)] = ""
    password_file: str = ""
    busy_timeout_s: PositiveSeconds = 30

    @model_validator(mode="after")
    def _password_has_a_use(self) -> DatabaseSettings:
        if self.password_file and not is_on_server(self.url):
            raise ValueError("password_file needs a url of PostgreSQL")
        return self

    def location(self, state_directory: Path) -> str:
        """Give the URL that the database is opened by: it names the file of the password, and never holds one."""
        url = self.url or f"sqlite:///{state_directory / 'ich-node.sqlite'}"
        if not self.password_file:
            return url
        return f"{url}{'&' if '?' in url else '?'}password_file={quote(self.password_file, safe='')}"
