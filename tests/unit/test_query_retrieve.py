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
from ich_node.query_retrieve import (
    STUDY_ROOT_FIND,
    StudyOfPatient,
    count_instances,
    find_earlier_studies,
    read_study_of_patient,
)
from ich_node.records import Destination, EarlierStudies
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


# --------------------------------------------------------------------------- earlier studies of a patient


NOW = StudyOfPatient("4711", "HOSPITAL", "19500102", STUDY, "20260312", "101500")


def earlier(*matches: dict[str, Any], study: StudyOfPatient = NOW) -> EarlierStudies | None:
    """Ask a PACS that answers a study of 2026-01-05 with some changes, for each of the matches."""
    values = {"PatientID": "4711", "StudyInstanceUID": "2.25.1", "StudyDate": "20260105", "ModalitiesInStudy": "CT"}

    def answer(_: Dataset) -> Iterator[tuple[int, Dataset]]:
        for one in matches:
            ds = Dataset()
            for keyword, value in (values | one).items():
                setattr(ds, keyword, value)
            yield PENDING, ds

    with answering(answer) as port:
        return find_earlier_studies(Destination("query", "PACS", "127.0.0.1", port), "ICH_NODE", study, SHORT)


def test_earlier_ct_studies_of_the_patient_are_counted_once_each() -> None:
    newer = {"StudyInstanceUID": "2.25.2", "StudyDate": "20260301", "ModalitiesInStudy": ["CT", "SR"]}
    assert earlier({}, newer, {}) == EarlierStudies(2, "20260301")
    assert earlier() == EarlierStudies(0)


def test_the_query_names_the_patient_and_the_time() -> None:
    asked: list[Dataset] = []

    def answer(identifier: Dataset) -> Iterator[tuple[int, Dataset]]:
        asked.append(identifier)
        yield from ()

    with answering(answer) as port:
        find_earlier_studies(Destination("query", "PACS", "127.0.0.1", port), "ICH_NODE", NOW, SHORT)
    (one,) = asked
    assert {element.keyword: element.value or "" for element in one} == {
        "QueryRetrieveLevel": "STUDY", "PatientID": "4711", "IssuerOfPatientID": "HOSPITAL", "PatientBirthDate": "",
        "StudyInstanceUID": "", "StudyDate": "-20260312", "StudyTime": "", "ModalitiesInStudy": "CT",
    }  # fmt: skip


@pytest.mark.parametrize(
    "match",
    [
        {"StudyInstanceUID": STUDY, "StudyDate": "20260312"},
        {"ModalitiesInStudy": "MR"},
        {"StudyDate": "20260313"},
        {"StudyDate": "20260312", "StudyTime": "101500"},
    ],
    ids=["this study", "no CT", "later", "not earlier that day"],
)
def test_what_is_no_earlier_ct_study(match: dict[str, Any]) -> None:
    assert earlier(match) == EarlierStudies(0)


def test_an_earlier_study_of_the_same_day_counts() -> None:
    assert earlier({"StudyDate": "20260312", "StudyTime": "0900"}) == EarlierStudies(1, "20260312")


@pytest.mark.parametrize(
    "match",
    [
        {"PatientID": "4712"},
        {"PatientID": ""},
        {"IssuerOfPatientID": "OTHER"},
        {"PatientBirthDate": "19611111"},
        {"ModalitiesInStudy": None},
        {"StudyDate": ""},
        {"StudyDate": "20260312", "StudyTime": ""},
        {"StudyInstanceUID": ""},
    ],
    ids=["other patient", "nobody", "other issuer", "other birth date", "no modality", "no date", "no time", "no UID"],
)
def test_an_answer_in_doubt_never_counts_and_never_means_that_there_is_none(match: dict[str, Any]) -> None:
    assert earlier(match) is None
    assert earlier(match, {}) == EarlierStudies(1, "20260105")


def test_an_image_says_what_is_asked_about(tmp_path: Path) -> None:
    (image,) = write_series(tmp_path, PhantomSettings(slices=1, rows=32, patient_id="Ä1", study_instance_uid=STUDY))
    study = read_study_of_patient(image)
    assert study is not None
    assert (study.patient_id, study.patient_birth_date, study.study_instance_uid) == ("Ä1", "19500101", STUDY)
    assert len(study.study_date) == 8
    assert read_study_of_patient(tmp_path / "none.dcm") is None
    (image,) = write_series(tmp_path / "nobody", PhantomSettings(slices=1, rows=32, patient_id=""))
    assert read_study_of_patient(image) is None
