"""The warm parent of tortured nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.torture.fork_server import ForkServer, build_shim


@pytest.fixture(scope="module")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Roles are forked from it."""
    with ForkServer(build_shim(tmp_path_factory.mktemp("shim"))) as server:
        yield server
