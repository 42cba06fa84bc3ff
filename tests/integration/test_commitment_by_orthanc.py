"""Storage commitment by Orthanc, which answers on an association that it opens to our receiver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ich_node.commitment_asker import CommitmentAsker
from ich_node.config import Config
from ich_node.receive import Receiver
from ich_node.routing import configured_destinations
from tests.orthanc import Orthanc, needs_orthanc
from tests.outbox import Outbox, outbox
from tests.running import wait_for

pytestmark = needs_orthanc


@dataclass
class Site:
    """A node whose destination is an Orthanc that knows it as a modality."""

    box: Outbox
    asker: CommitmentAsker
    orthanc: Orthanc

    @property
    def config(self) -> Config:
        return self.box.config

    def step(self) -> None:
        self.box.deliverer.step()
        self.asker.step()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    orthanc = Orthanc()
    destination = {"name": "orthanc", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port,
                   "objects": ["report"], "commitment": True}  # fmt: skip
    peer = {"ae_title": "ORTHANC", "address": "127.0.0.1"}
    delivery = {"response_timeout_s": 30.0, "connect_timeout_s": 10.0, "commitment_stay_s": 0.5}
    with outbox(tmp_path / "state", destination=[destination], peer=[peer], receiver={"allow_any": False},
                delivery=delivery) as box:  # fmt: skip
        receiver = Receiver(box.config, box.database)
        receiver.start()
        node = {"AET": box.config.node.ae_title, "Host": "127.0.0.1", "Port": receiver.port,
                "AllowStorageCommitment": True}  # fmt: skip
        try:
            (place,) = configured_destinations(box.config)
            with orthanc.running(tmp_path, DicomAet="ORTHANC", DicomModalities={"node": node}):
                yield Site(box, CommitmentAsker(box.config, box.database, place), orthanc)
        finally:
            receiver.stop(drain_s=2.0)


def test_orthanc_commits_to_what_it_holds_and_says_so_of_what_it_lost(site: Site) -> None:
    site.box.add_study()
    site.box.add_study()
    site.box.deliver_until(lambda: site.box.status().deliveries == {"DELIVERED": 2}, "both are delivered")
    lost, kept = site.box.deliveries()
    (instance,) = site.orthanc.find(str(lost.sop_instance_uid))
    site.orthanc.ask(f"/instances/{instance}", method="DELETE")

    errors: set[str] = set()

    def both_are_committed() -> bool:
        site.step()
        errors.update(one.error for one in site.box.deliveries() if one.error)
        return site.box.status().deliveries == {"COMMITTED": 2}

    wait_for(both_are_committed, "the lost one is sent again, and both are committed")

    assert errors == {"the destination does not commit to it: no such object instance (0112H)"}
    attempts = {one.sop_instance_uid: one.attempts for one in site.box.deliveries()}
    assert attempts == {lost.sop_instance_uid: 2, kept.sop_instance_uid: 1}
    assert len(site.orthanc.ask("/instances")) == 2
