"""One running node for all acceptance tests: the real commands, beside a small PACS, Orthanc and dcmtk's storescp."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ich_node.pacs import SmallPacs
from tests.running import NodeProcesses, free_port, settings, wait_for

ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
STORESCP = "/usr/bin/storescp"


@dataclass
class Orthanc:
    """A running Orthanc, asked through its REST API."""

    dicom_port: int
    http_port: int

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            return json.load(answer)

    def tags(self, sop_instance_uid: str) -> dict[str, Any]:
        """Give the tags of one stored object by keyword; empty where it never came."""
        query = {"Level": "Instance", "Query": {"SOPInstanceUID": sop_instance_uid}}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/tools/find", data=json.dumps(query).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found = json.load(answer)
        return dict(self.get(f"/instances/{found[0]}/simplified-tags")) if found else {}


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc | None]:
    """Orthanc with an empty storage; None where it is not installed."""
    if ORTHANC is None:
        yield None
        return
    folder = tmp_path_factory.mktemp("orthanc")
    server = Orthanc(free_port(), free_port())
    configuration = {
        "Name": "ich-node test", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
        "DicomAet": "PACS", "DicomPort": server.dicom_port, "HttpPort": server.http_port, "Plugins": [],
        "DicomAlwaysAllowStore": True, "DicomAlwaysAllowFind": True, "DicomCheckCalledAet": False,
        "AuthenticationEnabled": False, "RemoteAccessAllowed": False,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    environment = os.environ | {"TCP_NODELAY": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log, env=environment)
    try:
        wait_for(lambda: _answers(server), "Orthanc is up")
        yield server
    finally:
        process.terminate()
        process.wait()


def _answers(server: Orthanc) -> bool:
    try:
        return bool(server.get("/system"))
    except OSError:
        return False


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
    receiver = DcmtkStorescp(free_port(), tmp_path_factory.mktemp("storescp"))
    command = [STORESCP, "--fork", "-od", str(receiver.folder), str(receiver.port)]
    process = subprocess.Popen(command, env=os.environ | {"TCP_NODELAY": "1"}, stdout=subprocess.DEVNULL)
    try:
        yield receiver
    finally:
        process.terminate()
        process.wait()


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
