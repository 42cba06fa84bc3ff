"""What readers say of findings, counted: figures with intervals, over time, per station and subtype."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ich_node.concordance import Concordance, Period, Proportion, concordance_of
from ich_node.concordance.figures import Group
from ich_node.database import Database, FeedbackRow, SeriesRow, StudyRow
from ich_node.job_queue.feedback import give_feedback
from ich_node.queries.feedback import spoken_answers
from ich_node.records import HEMORRHAGE_CLASSES, Presence, Triage
from tests.unit.concluding import conclude
from tests.unit.queueing import open_queue

POSITIVE, INDETERMINATE, NEGATIVE = Triage.POSITIVE, Triage.INDETERMINATE, Triage.NEGATIVE


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_queue(tmp_path)
    yield opened
    opened.close()


def answered(database: Database, study: int, triage: Triage, *present: str, station: str = "CT1") -> str:
    """Have the node say something of a study; give its UID."""
    assert conclude(database, triage, study=study, number=study)
    presence = {one: Presence.PRESENT if one in present else Presence.ABSENT for one in HEMORRHAGE_CLASSES}
    uid = f"1.2.{study}"
    mine = SeriesRow.series_instance_uid == f"1.2.{study}.1"
    values: dict[str, Any] = {"finding": {"presence": presence}, "station_name": station}
    with database.writing() as connection:
        connection.execute(update(SeriesRow).where(mine).values(values))
    return uid


def says(database: Database, uid: str, reader: str, hemorrhage: bool | None = None, *classes: str) -> None:
    """Have a reader agree, or say what there is."""
    agrees = hemorrhage is None
    given = give_feedback(database, uid, reader, agrees=agrees, classes=classes or (("any",) if hemorrhage else ()))
    assert given is not None


def concordance(database: Database, period: Period = Period.MONTH) -> Concordance:
    return concordance_of(spoken_answers(database), period)


def counted(one: Proportion) -> tuple[int, int]:
    return one.count, one.of


def named(groups: tuple[Group, ...]) -> dict[str, Group]:
    return {one.name: one for one in groups}


# ---------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (10, 10, 0.7225, 1.0), (0, 10, 0.0, 0.2775)],
)
def test_intervals_are_those_that_newcombe_printed(count: int, of: int, low: float, high: float) -> None:
    """R. G. Newcombe, Stat. Med. 17 (1998) 857-872, table I, method 3, for 81/263 and 15/148."""
    assert Proportion(count, of).interval == pytest.approx((low, high), abs=6e-5)


def test_of_nothing_nothing_is_said() -> None:
    assert Proportion(0, 0).value is None
    assert Proportion(0, 0).interval is None


# ------------------------------------------------------------------------------------------------ figures


def test_nobody_has_spoken_yet(database: Database) -> None:
    answered(database, 1, POSITIVE)

    found = concordance(database)

    assert (found.studies, found.words, found.all.known) == (0, 0, 0)
    assert found.all.sensitivity.value is None
    assert found.periods == found.stations == found.disagreements == ()


def test_figures_of_feedback_made_by_hand(database: Database) -> None:
    for study in (1, 2, 3):
        says(database, answered(database, study, POSITIVE, "any"), "eva")
    says(database, answered(database, 4, POSITIVE, "any"), "eva", False)
    for study in (5, 6):
        says(database, answered(database, study, NEGATIVE), "eva")
    says(database, answered(database, 7, NEGATIVE), "eva", True, "subdural")

    found = concordance(database)

    assert (found.studies, found.readers, found.all.known) == (7, 1, 7)
    assert counted(found.all.sensitivity) == (3, 4)
    assert counted(found.all.specificity) == (2, 3)
    assert counted(found.all.positive_predictive_value) == (3, 4)
    assert counted(found.all.negative_predictive_value) == (2, 3)
    assert [one.study_instance_uid for one in found.disagreements] == ["1.2.7", "1.2.4"]


def test_indeterminate_answers_find_nothing_and_rule_nothing_out(database: Database) -> None:
    says(database, answered(database, 1, INDETERMINATE), "eva", True, "subdural")
    says(database, answered(database, 2, INDETERMINATE), "eva", False)
    says(database, answered(database, 3, INDETERMINATE), "eva")

    found = concordance(database)

    assert (found.all.known, found.unsaid, found.differing) == (2, 1, 0)
    assert counted(found.all.sensitivity) == counted(found.all.specificity) == (0, 1)
    assert counted(found.all.positive_predictive_value) == counted(found.all.negative_predictive_value) == (0, 0)


def test_of_a_reader_who_changes_his_mind_the_newest_word_counts(database: Database) -> None:
    uid = answered(database, 1, POSITIVE, "any")
    says(database, uid, "eva")
    says(database, uid, "eva", False)

    found = concordance(database)

    assert (found.words, found.all.known) == (1, 1)
    assert counted(found.all.positive_predictive_value) == (0, 1)

    says(database, uid, "eva")
    assert counted(concordance(database).all.positive_predictive_value) == (1, 1)
    assert concordance(database).disagreements == ()


def test_an_answer_of_which_readers_differ_is_in_no_figure_and_is_listed(database: Database) -> None:
    uid = answered(database, 1, POSITIVE, "any")
    says(database, uid, "eva")
    says(database, uid, "jan", False)
    says(database, answered(database, 2, POSITIVE, "any"), "jan")

    found = concordance(database)

    assert (found.readers, found.words, found.differing, found.all.known) == (2, 3, 1, 1)
    assert counted(found.all.positive_predictive_value) == (1, 1)
    (disputed,) = found.disagreements
    assert disputed.study_instance_uid == uid
    assert [(word.reader, word.agrees) for word in disputed.words] == [("eva", True), ("jan", False)]


def test_each_revision_is_an_answer_of_its_own(database: Database) -> None:
    uid = answered(database, 1, NEGATIVE)
    says(database, uid, "eva", True, "subdural")
    with database.writing() as connection:
        connection.execute(update(StudyRow).values(revision=2, triage=POSITIVE))
    says(database, uid, "eva")

    found = concordance(database)

    assert (found.studies, found.answers, found.all.known) == (1, 2, 2)
    assert counted(found.all.sensitivity) == (1, 2), "what was missed at first stays missed"


def test_figures_go_by_week_or_month_and_by_station(database: Database) -> None:
    for study, day in ((1, "2026-10-30"), (2, "2026-11-02"), (3, "2026-11-08"), (4, "2026-11-09")):
        uid = answered(database, study, POSITIVE, "any", station="CT2" if study == 4 else "CT1")
        says(database, uid, "eva", *([False] if study == 2 else []))
        at = datetime.fromisoformat(f"{day}T23:59:00").replace(tzinfo=UTC).timestamp()
        with database.writing() as connection:
            connection.execute(update(FeedbackRow).where(FeedbackRow.id == study).values(given_at=at))

    months, weeks = (named(concordance(database, one).periods) for one in (Period.MONTH, Period.WEEK))

    assert {name: counted(one.figures.positive_predictive_value) for name, one in months.items()} == {
        "2026-10-01": (1, 1), "2026-11-01": (2, 3),
    }  # fmt: skip
    assert {name: counted(one.figures.positive_predictive_value) for name, one in weeks.items()} == {
        "2026-10-26": (1, 1), "2026-11-02": (1, 2), "2026-11-09": (1, 1),
    }  # fmt: skip
    stations = named(concordance(database).stations)
    assert {name: one.figures.known for name, one in stations.items()} == {"CT1": 3, "CT2": 1}


def test_subtypes_are_compared_where_it_is_known_what_both_said(database: Database) -> None:
    says(database, answered(database, 1, POSITIVE, "any", "subdural"), "eva")
    says(database, answered(database, 2, POSITIVE, "any", "subdural"), "eva", True, "epidural")
    says(database, answered(database, 3, NEGATIVE), "eva")
    says(database, answered(database, 4, POSITIVE, "any"), "eva")  # no subtype was named: nobody knows which

    subtypes = named(concordance(database).subtypes)

    assert set(subtypes) == set(HEMORRHAGE_CLASSES) - {"any"}
    subdural, epidural = subtypes["subdural"].figures, subtypes["epidural"].figures
    assert (subdural.known, epidural.known) == (3, 3)
    assert (counted(subdural.sensitivity), counted(subdural.positive_predictive_value)) == ((1, 1), (1, 2))
    assert (counted(epidural.sensitivity), counted(epidural.specificity)) == ((0, 1), (2, 2))


def test_of_earlier_revisions_no_subtype_is_known(database: Database) -> None:
    uid = answered(database, 1, POSITIVE, "any", "subdural")
    says(database, uid, "eva")
    with database.writing() as connection:
        connection.execute(update(StudyRow).values(revision=2))

    found = concordance(database)

    assert found.all.known == 1
    assert named(found.subtypes)["subdural"].figures.known == 0


def test_ten_thousand_words_are_counted(database: Database) -> None:
    answered(database, 1, POSITIVE, "any")
    values = {
        "study_id": 1, "triage": "positive", "reader": "eva", "agrees": True, "hemorrhage": True, "classes": [],
        "slices": [], "note": "", "given_at": time.time(),
    }  # fmt: skip
    with database.writing() as connection:
        connection.execute(FeedbackRow.__table__.insert(), [values | {"revision": one} for one in range(10_000)])

    assert concordance(database).all.known == 10_000
