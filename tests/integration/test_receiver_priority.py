"""What the receiver enters of how soon a slice is to be analysed: the site's rules, the header, the request."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from ich_node.receive.scp import storing
from ich_node.records import ReceivedInstance
from tests.ct_series import as_file, ct_slice
from tests.integration.receiving import association, running

URGENT = {"level": 10, "requested": ["HIGH", "STAT"]}
EMERGENCY_ROOM = {"level": 20, "station_name": "CT_ER*"}
LATER = {"level": -10, "requested": ["LOW", "ROUTINE"]}
MEDIUM_PRIORITY, HIGH_PRIORITY, LOW_PRIORITY = 0, 1, 2


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[ReceivedInstance]:
    """What the receiver hands to the queue."""
    seen: list[ReceivedInstance] = []
    register = storing.register_instance

    def watch(database: Any, received: ReceivedInstance, **options: Any) -> Any:
        seen.append(received)
        return register(database, received, **options)

    monkeypatch.setattr(storing, "register_instance", watch)
    return seen


def send(port: int, instance: Dataset, priority: int) -> None:
    with association(port) as to:
        assert to.send_c_store(instance, priority=priority).Status == 0x0000


@pytest.mark.parametrize(
    ("header", "request_priority", "level"),
    [
        ({}, MEDIUM_PRIORITY, 0),
        ({}, HIGH_PRIORITY, 10),
        ({}, LOW_PRIORITY, -10),
        ({"RequestedProcedurePriority": "STAT"}, LOW_PRIORITY, 10),
        ({"RequestedProcedurePriority": "routine"}, HIGH_PRIORITY, -10),
        ({"StationName": "ct_er1"}, LOW_PRIORITY, 20),
    ],
)
def test_the_header_decides_before_the_request_and_the_highest_level_counts(
    tmp_path: Path, entered: list[ReceivedInstance], header: dict[str, Any], request_priority: int, level: int
) -> None:
    with running(tmp_path, priority=[URGENT, EMERGENCY_ROOM, LATER]) as node:
        send(node.port, _part10(**header), request_priority)
    assert [one.priority for one in entered] == [level]


@pytest.mark.parametrize(("age_h", "old"), [(23, False), (25, True), (-1, False), (None, False)])
def test_a_slice_acquired_long_ago_is_old(
    tmp_path: Path, entered: list[ReceivedInstance], age_h: float | None, old: bool
) -> None:
    moment = time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() - (age_h or 0) * 3600))
    dates = [f"{what}Date" for what in ("Acquisition", "Content", "Series", "Study")]
    header: dict[str, Any] = dict.fromkeys(dates)
    if age_h is not None:
        header |= {"AcquisitionDateTime": f"{moment}+0000"}
    with running(tmp_path) as node:
        send(node.port, _part10(**header), MEDIUM_PRIORITY)
    assert [one.old for one in entered] == [old]


def _part10(**header: Any) -> Dataset:
    instance = ct_slice(1, **header)
    as_file(instance)
    return instance
