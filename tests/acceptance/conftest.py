"""One running node for all acceptance tests: the real commands, beside a small PACS, Orthanc and dcmtk's storescp."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ich_node.pacs import SmallPacs
from tests.orthanc import ORTHANC, Orthanc
from tests.running import STORESCP, NodeProcesses, settings, storescp_in


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc | None]:
    """Orthanc with an empty storage; None where it is not installed."""
    if ORTHANC is None:
        yield None
        return
    with Orthanc().running(tmp_path_factory.mktemp("orthanc"), DicomAlwaysAllowFind=True) as server:
        yield server


@dataclass
class DcmtkStorescp:
    """A running storescp and the folder it stores in."""

    port: int
    folder: Path


@pytest.fixture(scope="session")
def storescp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DcmtkStorescp | None]:
    """dcmtk's storescp; None where it is not installed."""
    if not Path(STORESCP).exists():
        yield None
        return
    folder = tmp_path_factory.mktemp("dcmtk") / "storescp"
    with storescp_in(folder, "--fork") as port:
        yield DcmtkStorescp(port, folder)


@pytest.fixture(scope="session")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallPacs]:
    """The destination that every report of the shared node goes to."""
    with SmallPacs(tmp_path_factory.mktemp("pacs")) as running:
        yield running


@pytest.fixture(scope="session")
def node(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_bundle: Path,
    pacs: SmallPacs,
    orthanc: Orthanc | None,
    storescp: DcmtkStorescp | None,
) -> Iterator[NodeProcesses]:
    """The three roles as processes, with the tiny model; tests may kill a role and start it again."""
    folder = tmp_path_factory.mktemp("node")
    destinations = [("pacs", pacs.port)]
    destinations += [("orthanc", orthanc.dicom_port)] if orthanc else []
    destinations += [("storescp", storescp.port)] if storescp else []
    values = settings(folder / "state", tiny_bundle, destinations=destinations, node={"log_level": "DEBUG"},
                      series={"quiet_s": 0.3, "max_wait_s": 12})  # fmt: skip  # killed roles are back within 12 s
    with NodeProcesses(folder, values) as running:
        yield running
