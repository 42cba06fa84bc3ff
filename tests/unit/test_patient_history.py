"""Which earlier studies of a patient are known, and when a bleed is a known one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from sqlalchemy import insert, select

from ich_node.database import Database, SeriesRow, StudyRow
from ich_node.decode.identity import patient_marks
from ich_node.job_queue import save_read, waiting_instances
from ich_node.patient_history import history_of
from ich_node.records import EarlierBleed, EarlierStudies, InstanceState, PatientHistory, PatientMarks, ReadInstance
from tests.alerting import FINDING
from tests.earlier import marks_of
from tests.postgresql import on_sqlite
from tests.unit.queueing import claim, open_queue, receive, received, rows
from tests.unit.test_alert_queue import plans_of

NOW = time.time()
A_DAY_S = 86400.0
_NUMBERS = count(1)
MARCH_12 = time.mktime((2026, 3, 12, 12, 0, 0, 0, 0, -1))
MARCH_14 = MARCH_12 + 2 * A_DAY_S


@dataclass
class Patients:
    """A database with studies; each test has a patient of its own in it."""

    database: Database
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    patient_id: str = ""

    def add(self, *, who: dict[str, str] | None = None, finding: dict[str, Any] = FINDING, **values: Any) -> int:
        """Enter a study of the patient that is positive, unless ``values`` of the tables say otherwise."""
        marks = marks_of(**{"patient_id": self.patient_id, "issuer": "A", "birth_date": "19500102"} | (who or {}))
        number = next(self.numbers)
        series = {
            "id": number, "study_id": number, "series_instance_uid": f"1.2.{number}.1", "modality": "CT",
            "state": "CONCLUDED", "head_expected": True, "finding": finding, "due_at": 0.0, "first_received_at": NOW,
            "last_received_at": NOW, "calling_ae_title": "CT1", "remote_address": "10.0.0.1",
            "acquired_at": values.pop("acquired_at", NOW - A_DAY_S),
        }  # fmt: skip
        study = {
            "id": number, "study_instance_uid": f"1.2.{number}", "revision": 1, "triage": "positive",
            "rests_on_series_id": number, "created_at": NOW, "reported_at": NOW,
        }  # fmt: skip
        with self.database.writing() as connection:
            connection.execute(insert(StudyRow).values(study | values))
            connection.execute(insert(SeriesRow).values(series | marks))
        return number

    def history(self, study_id: int) -> PatientHistory:
        with self.database.reading() as connection:
            return history_of(connection, connection.execute(select(StudyRow).where(StudyRow.id == study_id)).one())


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patients]:
    database = open_queue(tmp_path_factory.mktemp("patients"))
    yield Patients(database)
    database.close()


@pytest.fixture
def patients(database: Patients) -> Patients:
    database.patient_id = f"P{next(database.numbers)}"
    return database


def test_hemorrhage_that_was_reported_before_is_a_known_bleed(patients: Patients) -> None:
    patients.add()
    known = patients.history(patients.add(acquired_at=NOW))
    assert (known.here, known.known_bleed) == (1, True)
    assert known.bleed == EarlierBleed(NOW, NOW - A_DAY_S)


NONE_HERE, NOT_KNOWN = "first study known here", "earlier studies not known"
NO_BLEED = "1 earlier study known here; no report of hemorrhage that holds"


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ({"triage": "negative"}, NO_BLEED),
        ({"triage": "indeterminate"}, NO_BLEED),
        ({"triage": None}, NO_BLEED),
        ({"finding": FINDING | {"test_model": True}}, NO_BLEED),
        ({"withdrawn": True}, NO_BLEED),
        ({"doubted": True}, NO_BLEED),
        ({"revision": 0, "triage": None, "early_finding": FINDING}, NO_BLEED),
        ({"rests_on_series_id": None}, NO_BLEED),
        ({"acquired_at": NOW + 1}, NONE_HERE),
        ({"acquired_at": NOW}, NONE_HERE),
        ({"who": {"patient_id": "4712"}}, NONE_HERE),
        ({"who": {"issuer": "OTHER"}}, NONE_HERE),
        ({"who": {"patient_id": ""}}, NONE_HERE),
        ({"who": {"birth_date": "19611111"}}, NOT_KNOWN),
        ({"who": {"birth_date": ""}}, NOT_KNOWN),
    ],
)
def test_what_is_no_known_bleed(patients: Patients, before: dict[str, Any], says: str) -> None:
    patients.add(**before)
    known = patients.history(patients.add(acquired_at=NOW))
    assert not known.known_bleed
    assert known.in_words(dated=False) == says


@pytest.mark.parametrize(
    ("reported_at", "known"), [(NOW - 60, True), (NOW + 60, False), (None, False)], ids=["before", "after", "never"]
)
@pytest.mark.parametrize("lacking", ["then", "now"])
def test_without_a_time_of_acquisition_counts_what_was_reported_before_this_study_came(
    patients: Patients, reported_at: float | None, known: bool, lacking: str
) -> None:
    patients.add(acquired_at=None if lacking == "then" else NOW - 1, reported_at=reported_at)
    now = patients.add(acquired_at=None if lacking == "now" else NOW)
    assert patients.history(now).known_bleed is known


@pytest.mark.parametrize("who", [{"patient_id": ""}, {"birth_date": ""}])
def test_of_a_patient_who_is_not_known_nothing_is(patients: Patients, who: dict[str, str]) -> None:
    patients.add(who=who)
    known = patients.history(patients.add(who=who, acquired_at=NOW))
    assert known == PatientHistory()
    assert known.in_words() == NOT_KNOWN


def test_a_study_is_not_its_own_earlier_one(patients: Patients) -> None:
    study_id = patients.add()
    with patients.database.writing() as connection:
        mine = connection.execute(select(SeriesRow).where(SeriesRow.study_id == study_id)).one()._asdict()
        del mine["id"]
        another = mine | {"series_instance_uid": "1.2.2", "acquired_at": NOW - 2 * A_DAY_S}
        connection.execute(insert(SeriesRow).values(another))
    next(patients.numbers)
    assert patients.history(study_id).in_words() == NONE_HERE


@on_sqlite
def test_the_earlier_studies_of_a_patient_are_found_by_an_index(patients: Patients) -> None:
    study_id = patients.add()
    plans = plans_of(patients.database, lambda: patients.history(study_id))
    assert any("INDEX series_by_patient (patient_mark=?)" in plan for plan in plans), plans
    assert not [plan for plan in plans if plan.startswith("SCAN")], plans


# ---------------------------------------------------------------------------------- whose series it is


def read_as(database: Database, **patient: str) -> Any:
    """Read one more image of the one series, whose header names a patient; give the series."""
    header = Dataset()
    for keyword, value in patient.items():
        setattr(header, keyword, value)
    receive(database, received(next(_NUMBERS)))
    (job,) = claim(database, "me")
    read = [ReadInstance(one.id, InstanceState.DECODED, marks=patient_marks(header))
            for one in waiting_instances(database, job.id, 9)]  # fmt: skip
    assert save_read(database, job, "me", read, lease_s=60.0)
    return rows(database, SeriesRow)[0]


def test_the_patient_of_a_series_is_whom_the_image_read_last_names(tmp_path: Path) -> None:
    database = open_queue(tmp_path)
    wrong = {"PatientID": "4711", "IssuerOfPatientID": "A", "PatientBirthDate": "19500102"}
    first = read_as(database, **wrong)
    corrected = read_as(database, **wrong | {"PatientID": "4712"})
    nobody = read_as(database, PatientID="", PatientBirthDate="")
    unborn = read_as(database, PatientID="4712", IssuerOfPatientID="A")
    database.close()
    assert len({first.patient_mark, corrected.patient_mark, None}) == 3
    assert first.birth_mark == corrected.birth_mark is not None
    assert (nobody.patient_mark, nobody.birth_mark) == (corrected.patient_mark, corrected.birth_mark)
    assert (unborn.patient_mark, unborn.birth_mark) == (corrected.patient_mark, None)
    assert PatientMarks().patient_id == "", "nobody is no patient"


# ---------------------------------------------------------------------------------------------- in words


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (PatientHistory(), "earlier studies not known"),
        (PatientHistory(asked_pacs=True), "earlier studies not known"),
        (PatientHistory(0), "first study known here"),
        (PatientHistory(0, asked_pacs=True), "first study known here; earlier studies at the PACS not known"),
        (
            PatientHistory(0, asked_pacs=True, at_pacs=EarlierStudies(0)),
            "first study known here; no earlier CT study at the PACS",
        ),
        (
            PatientHistory(0, asked_pacs=True, at_pacs=EarlierStudies(2, "20260105")),
            "first study known here; 2 earlier CT studies at the PACS, the newest of 2026-01-05",
        ),
        (
            PatientHistory(None, asked_pacs=True, at_pacs=EarlierStudies(1, "20260105")),
            "earlier studies not known; 1 earlier CT study at the PACS, of 2026-01-05",
        ),
        (PatientHistory(1, bleed=EarlierBleed(MARCH_12, MARCH_12)), "hemorrhage was reported on 2026-03-12"),
        (PatientHistory(1, bleed=EarlierBleed(MARCH_12, None)), "hemorrhage was reported on 2026-03-12"),
        (
            PatientHistory(1, bleed=EarlierBleed(MARCH_14, MARCH_12)),
            "hemorrhage was reported on 2026-03-14 for the study of 2026-03-12",
        ),
        (
            PatientHistory(2, newest_here_at=MARCH_12),
            "2 earlier studies known here, the newest of 2026-03-12; no report of hemorrhage that holds",
        ),
    ],
)  # fmt: skip
def test_what_is_known_in_words(known: PatientHistory, words: str) -> None:
    assert known.in_words() == words
    assert not any(one.isdigit() for one in known.in_words(dated=False).replace("1 ", "").replace("2 ", ""))
