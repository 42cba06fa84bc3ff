"""Destinations that are dcmtk's storescp, in the moods that a PACS can have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.outbox import Outbox, outbox
from tests.running import STORESCP, free_port, leaks_a_socket, storescp_in

pytestmark = pytest.mark.skipif(not Path(STORESCP).exists(), reason="dcmtk's storescp is not installed")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Outbox]:
    """An outbox with one study and one destination, where nobody listens yet."""
    with outbox(tmp_path / "state", free_port()) as one:
        one.add_study()
        yield one


@leaks_a_socket
def test_storescp_that_refuses_associations_is_paused_and_delivered_to_when_it_answers(
    box: Outbox, tmp_path: Path
) -> None:
    port = box.config.destination[0].port
    with storescp_in(tmp_path / "in", "--refuse", port=port):
        box.deliver_until(lambda: box.status().paused_destinations, "the destination is paused")
        assert box.status().deliveries == {"PENDING": 1}
    with storescp_in(tmp_path / "in", port=port):
        arrives_once(box, tmp_path / "in")
    assert not box.status().paused_destinations


@leaks_a_socket
@pytest.mark.parametrize("mood", ["--abort-during", "--abort-after"])
def test_storescp_that_aborts_gets_the_report_when_it_does_not(box: Outbox, tmp_path: Path, mood: str) -> None:
    port = box.config.destination[0].port
    with storescp_in(tmp_path / "in", mood, port=port):
        box.deliver_until(lambda: box.deliveries()[0].attempts >= 2, "two attempts")
        assert box.deliveries()[0].error
        assert box.deliveries()[0].state != "DELIVERED"
    with storescp_in(tmp_path / "in", port=port):
        arrives_once(box, tmp_path / "in")


def arrives_once(box: Outbox, folder: Path) -> None:
    (delivery,) = box.deliver_until_state("DELIVERED")
    stored = {str(dcmread(path).SOPInstanceUID) for path in folder.iterdir()}
    assert stored == {delivery.sop_instance_uid}, "however often it was sent, it is one object"
