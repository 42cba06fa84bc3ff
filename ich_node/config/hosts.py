"""What must fit where a node has several hosts, and where a host has not every role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ich_node.config.database_section import is_on_server


def faults_of_hosts(values: dict[str, Any]) -> Iterator[str]:
    """Name what keeps hosts from sharing a node. Looks at raw values."""
    node, database, web = (_section(values, name) for name in ("node", "database", "web"))
    own, shared = node.get("host_directory"), node.get("state_directory", "var")
    if own and not is_on_server(str(database.get("url", ""))):
        yield "node.host_directory: hosts share a database on a server; set database.url to PostgreSQL"
    if own and own == shared:
        yield "node.host_directory: is this host's alone; node.state_directory is shared by all"
    if node.get("roles") == [] and web.get("enabled") is not True:
        yield "node.roles = []: this host would do nothing"


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name)
    return section if isinstance(section, dict) else {}
