"""Storage commitment by Orthanc, which answers on an association that it opens to our receiver."""

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

from ich_node.commitment_asker import CommitmentAsker
from ich_node.config import Config
from ich_node.receive import Receiver
from ich_node.routing import configured_destinations
from tests.outbox import Outbox, outbox
from tests.running import free_port, wait_for

ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
pytestmark = pytest.mark.skipif(ORTHANC is None, reason="Orthanc is not installed")


@dataclass
class Site:
    """A node whose destination is an Orthanc that knows it as a modality."""

    box: Outbox
    asker: CommitmentAsker
    http_port: int

    @property
    def config(self) -> Config:
        return self.box.config

    def ask(self, method: str, path: str) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def is_up(self) -> bool:
        try:
            return bool(self.ask("GET", "/system"))
        except OSError:
            return False

    def step(self) -> None:
        self.box.deliverer.step()
        self.asker.step()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    dicom_port, http_port = free_port(), free_port()
    destination = {"name": "orthanc", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": dicom_port,
                   "objects": ["report"], "commitment": True}  # fmt: skip
    peer = {"ae_title": "ORTHANC", "address": "127.0.0.1"}
    delivery = {"response_timeout_s": 30.0, "connect_timeout_s": 10.0, "commitment_stay_s": 0.5}
    with outbox(tmp_path / "state", destination=[destination], peer=[peer], receiver={"allow_any": False},
                delivery=delivery) as box:  # fmt: skip
        receiver = Receiver(box.config, box.database)
        receiver.start()
        configuration = {
            "Name": "commitment test", "StorageDirectory": str(tmp_path / "storage"),
            "IndexDirectory": str(tmp_path / "storage"), "DicomAet": "ORTHANC", "DicomPort": dicom_port,
            "HttpPort": http_port, "Plugins": [], "DicomAlwaysAllowStore": True, "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "DicomModalities": {"node": {"AET": box.config.node.ae_title, "Host": "127.0.0.1", "Port": receiver.port,
                                         "AllowStorageCommitment": True}},
        }  # fmt: skip
        (tmp_path / "orthanc.json").write_text(json.dumps(configuration))
        with (tmp_path / "orthanc.log").open("wb") as log:
            command = [str(ORTHANC), str(tmp_path / "orthanc.json")]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"TCP_NODELAY": "1"})
        try:
            (place,) = configured_destinations(box.config)
            one = Site(box, CommitmentAsker(box.config, box.database, place), http_port)
            wait_for(one.is_up, "Orthanc is up")
            yield one
        finally:
            process.terminate()
            process.wait()
            receiver.stop(drain_s=2.0)


def test_orthanc_commits_to_what_it_holds_and_says_so_of_what_it_lost(site: Site) -> None:
    site.box.add_study()
    site.box.add_study()
    site.box.deliver_until(lambda: site.box.status().deliveries == {"DELIVERED": 2}, "both are delivered")
    lost, kept = site.box.deliveries()
    (instance,) = [
        one for one in site.ask("GET", "/instances")
        if site.ask("GET", f"/instances/{one}/simplified-tags")["SOPInstanceUID"] == lost.sop_instance_uid
    ]  # fmt: skip
    site.ask("DELETE", f"/instances/{instance}")

    errors: set[str] = set()

    def both_are_committed() -> bool:
        site.step()
        errors.update(one.error for one in site.box.deliveries() if one.error)
        return site.box.status().deliveries == {"COMMITTED": 2}

    wait_for(both_are_committed, "the lost one is sent again, and both are committed")

    assert errors == {"the destination does not commit to it: no such object instance (0112H)"}
    attempts = {one.sop_instance_uid: one.attempts for one in site.box.deliveries()}
    assert attempts == {lost.sop_instance_uid: 2, kept.sop_instance_uid: 1}
    assert len(site.ask("GET", "/instances")) == 2
