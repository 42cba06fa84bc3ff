"""The CT of a day is asked for so that a PACS which cuts its answers is noticed, over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest
from pydicom import Dataset

from ich_node.association import Patience
from ich_node.errors import DestinationUnavailable
from ich_node.query_retrieve import DayOfPacs, WantedSeries, list_day
from ich_node.records import Destination, ListedSeries
from tests.unit.test_query_retrieve import PENDING, answering

DAY = date(2024, 2, 29)
CANCELLED, OUT_OF_RESOURCES = 0xFE00, 0xA700
Answers = Callable[[Dataset], Iterator[tuple[int, Dataset | None]]]


def ask(port: int, wanted: WantedSeries | None = None, asked: list[bytes] | None = None) -> DayOfPacs:
    pacs, told = Destination("query", "PACS", "127.0.0.1", port), [] if asked is None else asked
    return list_day(
        pacs, "ICH_ARCHIVE", DAY, wanted or WantedSeries(), Patience(2.0, 2.0), told.append, lambda _seconds: None
    )


def dataset(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def study(number: int, second: int, **values: Any) -> Dataset:
    time = f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}"
    usual = {"StudyInstanceUID": f"1.2.{number}", "StudyDate": "20240229", "StudyTime": time, "ModalitiesInStudy": "CT"}
    return dataset(**usual | values)


def series_of(uid: str, **values: Any) -> Dataset:
    usual = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "Modality": "CT"}
    return dataset(**usual | {"NumberOfSeriesRelatedInstances": 12} | values)


def holding(studies: list[Dataset], most: int = 10_000, how: int = 0, matches_time: bool = True) -> Answers:
    """Answer as a PACS with some studies, which gives no more than some of them.

    Args:
        how: status in which a cut answer ends.
    """

    def answer(query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        if query.QueryRetrieveLevel == "SERIES":
            yield PENDING, series_of(query.StudyInstanceUID)
            return
        begin, _, end = str(query.StudyTime or "000000-235959.999999").partition("-")
        fitting = [one for one in studies if not matches_time or begin <= one.StudyTime <= end]
        for one in fitting[:most]:
            yield PENDING, one
        if len(fitting) > most and how:
            yield how, None

    return answer


@pytest.mark.parametrize("how", [0, OUT_OF_RESOURCES])
def test_a_pacs_that_cuts_its_answers_loses_no_study(how: int) -> None:
    studies = [study(number, 28_800 + number * 37) for number in range(45)]
    with answering(holding(studies, most=25, how=how)) as port:
        day = ask(port)
    assert {one.study_instance_uid for one in day.series} == {f"1.2.{number}" for number in range(45)}
    assert len(day.series) == 45
    assert day.doubts == ()


def test_a_short_answer_is_believed_and_asked_for_once() -> None:
    asked: list[bytes] = []
    with answering(holding([study(number, number) for number in range(5)])) as port:
        day = ask(port, asked=asked)
    assert day.series[0] == ListedSeries("1.2.0", "1.2.0.1", 12)
    assert len(asked) == 1 + 5, "the studies, and the series of each"
    assert b"20240229" in asked[0]


def test_where_the_time_is_not_matched_it_is_said_that_studies_may_be_missing() -> None:
    studies = [study(number, number * 60) for number in range(60)]
    with answering(holding(studies, most=40, how=CANCELLED, matches_time=False)) as port:
        day = ask(port)
    assert len(day.series) == 40
    (doubt,) = day.doubts
    assert doubt == "the PACS cut its answer, and does not match StudyTime; some may be missing"


def test_studies_without_a_time_are_listed_and_others_of_their_kind_are_in_doubt() -> None:
    untimed = [study(100 + number, 0, StudyTime="") for number in range(3)]
    timed = [study(number, 28_800 + number * 37) for number in range(45)]

    def answer(query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        if query.QueryRetrieveLevel == "SERIES" or query.get("StudyTime"):  # no range matches an empty value
            yield from holding(timed, most=25)(query)
            return
        for one in (*untimed, *timed)[:25]:
            yield PENDING, one

    with answering(answer) as port:
        day = ask(port)
    assert {one.study_instance_uid for one in day.series} == {str(one.StudyInstanceUID) for one in untimed + timed}
    assert day.doubts == ("the PACS has studies without a StudyTime, and cuts its answers; some may be missing",)


def test_many_studies_of_one_second_are_in_doubt() -> None:
    with answering(holding([study(number, 3600) for number in range(30)], most=25, how=CANCELLED)) as port:
        day = ask(port)
    assert len(day.series) == 25
    assert any("of one second" in one for one in day.doubts)


def test_what_a_pacs_does_not_match_is_sorted_out_here() -> None:
    studies = [
        study(1, 1), study(2, 2, ModalitiesInStudy=["MR", "PR"]), study(3, 3, StudyDate="20240301"),
        study(4, 4, StudyDescription="CT ABDOMEN"), study(5, 5, ModalitiesInStudy=None, StudyDescription="ct Head"),
        study(6, 6, StudyInstanceUID=""),
    ]  # fmt: skip

    def answer(query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        if query.QueryRetrieveLevel == "STUDY":
            yield from ((PENDING, one) for one in studies)
            return
        uid = query.StudyInstanceUID
        yield PENDING, series_of(uid)
        yield PENDING, series_of(uid, SeriesInstanceUID=f"{uid}.2", Modality="SR")
        yield PENDING, series_of(uid, SeriesInstanceUID=f"{uid}.3", BodyPartExamined="CHEST")
        yield PENDING, series_of("1.2.99", SeriesInstanceUID="1.2.99.1")

    with answering(answer) as port:
        day = ask(port, WantedSeries("*HEAD*", "HEAD"))
    assert [(one.study_instance_uid, one.series_instance_uid) for one in day.series] == [
        ("1.2.1", "1.2.1.1"), ("1.2.5", "1.2.5.1"),
    ]  # fmt: skip
    assert day.doubts == ("an answer of the PACS has no valid StudyInstanceUID",)


def test_images_are_counted_where_their_number_is_left_out() -> None:
    def answer(query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        if query.QueryRetrieveLevel == "STUDY":
            yield PENDING, study(1, 1)
        elif query.QueryRetrieveLevel == "SERIES":
            yield PENDING, series_of(query.StudyInstanceUID, NumberOfSeriesRelatedInstances=None)
        else:
            for number in range(7):
                yield PENDING, dataset(SeriesInstanceUID=query.SeriesInstanceUID, SOPInstanceUID=f"1.2.1.1.{number}")

    with answering(answer) as port:
        assert [one.images for one in ask(port).series] == [7]


def test_a_failure_without_an_answer_is_no_empty_day() -> None:
    def answer(_query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        yield OUT_OF_RESOURCES, None

    with answering(answer) as port, pytest.raises(DestinationUnavailable, match="0xA700"):
        ask(port)
