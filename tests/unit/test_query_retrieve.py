"""Asking a PACS how many instances a series has, over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt

from ich_node.association import Patience
from ich_node.errors import DestinationRefuses, DestinationUnavailable
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.query_retrieve import STUDY_ROOT_FIND, count_instances
from ich_node.records import Destination
from tests.running import free_port, leaks_a_socket

STUDY, SERIES = "2.25.11", "2.25.12"
FEW = PhantomSettings(slices=5, rows=32, study_instance_uid=STUDY, series_instance_uid=SERIES)
SHORT = Patience(connect_s=2.0, response_s=1.0)
SUCCESS, PENDING = 0x0000, 0xFF00


def ask(port: int, series: str = SERIES, patience: Patience = SHORT) -> int | None:
    return count_instances(Destination("query", "PACS", "127.0.0.1", port), "ICH_NODE", STUDY, series, patience)


def match(**values: Any) -> Dataset:
    ds = Dataset()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, SERIES
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


@contextmanager
def answering(
    answer: Callable[[Dataset], Any], sop_class_uid: str = STUDY_ROOT_FIND, called: str = "PACS"
) -> Iterator[int]:
    """Run a Query SCP whose answers come from a function of the identifier; give its port."""
    entity = AE(ae_title=called)
    entity.require_called_aet = True
    entity.add_supported_context(sop_class_uid)

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        yield from answer(event.identifier)

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        for association in server.active_associations:
            association.abort()
        server.shutdown()


@pytest.mark.parametrize("counts_instances", [True, False])
def test_the_instances_of_a_series_are_counted_by_the_pacs_or_from_its_answers(
    tmp_path: Path, counts_instances: bool
) -> None:
    with SmallPacs(tmp_path / "pacs", counts_instances=counts_instances) as pacs:
        assert ask(pacs.port) is None
        paths = write_series(tmp_path / "series", FEW)
        send_study(paths[:3], "127.0.0.1", pacs.port, "PACS")
        assert ask(pacs.port) == 3
        send_study(paths[2:], "127.0.0.1", pacs.port, "PACS")
        assert ask(pacs.port) == 5
        assert ask(pacs.port, series="2.25.13") is None


@pytest.mark.filterwarnings("ignore:Invalid value for VR IS")
@pytest.mark.parametrize("number", [0, -4, None])
def test_a_number_that_is_none_is_counted_instead(number: int | None) -> None:
    def answer(identifier: Dataset) -> Iterator[tuple[int, Dataset]]:
        if identifier.QueryRetrieveLevel == "SERIES":
            yield PENDING, match(NumberOfSeriesRelatedInstances=number)
        else:
            for uid in ("1.2.1", "1.2.2", "1.2.2"):
                yield PENDING, match(SOPInstanceUID=uid)

    with answering(answer) as port:
        assert ask(port) == 2


def test_answers_about_other_series_do_not_count() -> None:
    def answer(identifier: Dataset) -> Iterator[tuple[int, Dataset]]:
        yield PENDING, match(SeriesInstanceUID="2.25.99", NumberOfSeriesRelatedInstances=500)
        if identifier.SeriesInstanceUID == SERIES:
            yield PENDING, match(NumberOfSeriesRelatedInstances=7)

    with answering(answer) as port:
        assert ask(port) == 7
        assert ask(port, series="2.25.13") is None


def test_a_count_that_breaks_off_is_no_count() -> None:
    out_of_resources = 0xA700

    def answer(identifier: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        if identifier.QueryRetrieveLevel == "SERIES":
            yield PENDING, match()
        else:
            yield PENDING, match(SOPInstanceUID="1.2.1")
            yield out_of_resources, None

    with answering(answer) as port, pytest.raises(DestinationUnavailable, match="0xA700"):
        ask(port)


@pytest.mark.parametrize(
    ("status", "error"), [(0xA900, DestinationRefuses), (0x0124, DestinationRefuses), (0xC001, DestinationUnavailable)]
)
def test_a_pacs_that_refuses_the_query_says_nothing_of_the_series(status: int, error: type[Exception]) -> None:
    with answering(lambda _: iter([(status, None)])) as port, pytest.raises(error, match=f"0x{status:04X}"):
        ask(port)


@leaks_a_socket
def test_a_pacs_that_rejects_us_or_answers_no_query_refuses() -> None:
    with answering(lambda _: iter(()), called="OTHER") as port, pytest.raises(DestinationRefuses, match="rejected"):
        ask(port)
    with (
        answering(lambda _: iter(()), sop_class_uid="1.2.840.10008.1.1") as port,
        pytest.raises(DestinationRefuses, match="presentation context"),
    ):
        ask(port)


@leaks_a_socket
def test_a_pacs_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(DestinationUnavailable, match="no association"):
        ask(free_port())


@leaks_a_socket
def test_a_pacs_that_hangs_is_unavailable_after_our_patience() -> None:
    hanging = threading.Event()

    def answer(_: Dataset) -> Iterator[tuple[int, Dataset]]:
        hanging.wait(30)
        yield from ()

    with answering(answer) as port:
        try:
            with pytest.raises(DestinationUnavailable, match="in time"):
                ask(port)
        finally:
            hanging.set()
