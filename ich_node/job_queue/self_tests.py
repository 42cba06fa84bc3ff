"""The node's own tests: asked for, reserved, run, ended, and what is remembered of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydicom.uid import generate_uid
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from ich_node.database import Database, SelfTestRow, SeriesRow, StudyRow, new_id
from ich_node.database.of_patients import series_of_patients
from ich_node.records import OPEN_SERIES, SeriesState
from ich_node.records.self_tests import SelfTestToRun, SelfTestVerdict

_KEPT_DAYS: Final = 90.0
_SECONDS_A_DAY: Final = 86400.0


@dataclass(frozen=True, slots=True)
class SelfTestLook:
    """What the database says of a test's study."""

    revision: int = 0
    """Of its report; 0 while there is none."""
    triage: str | None = None
    reason: str | None = None
    complete: bool | None = None
    finding: Mapping[str, Any] | None = None
    model: Mapping[str, Any] | None = None
    steps: Mapping[str, float] | None = None
    ended: str = ""
    """How its series ended that got no result."""
    slices: int = 0


def ask_self_test(database: Database, asked_by: str, *, accepts_score: bool = False) -> tuple[int, bool]:
    """Have a test run soon; give its number, and whether it is a new one: none is asked for while one waits or runs."""
    values = {"study_instance_uid": str(generate_uid(prefix=None)), "asked_at": time.time(), "asked_by": asked_by,
              "accepts_score": accepts_score}  # fmt: skip
    with database.writing() as connection:
        known = connection.execute(select(SelfTestRow.id).where(_UNFINISHED).limit(1)).scalar()
        if known is not None:
            return known, False
        return new_id(connection.execute(insert(SelfTestRow).values(values))), True


def next_self_test(database: Database) -> SelfTestToRun | None:
    """Give the test that waits, and reserve its study: from now on the receiver takes it."""
    waits = select(SelfTestRow).where(_UNFINISHED, SelfTestRow.started_at.is_(None)).order_by(SelfTestRow.id).limit(1)
    with database.reading() as connection:
        row = connection.execute(waits).first()
    if row is None:
        return None
    with database.writing() as connection:
        begun = update(SelfTestRow).where(SelfTestRow.id == row.id).values(started_at=time.time())
        connection.execute(begun)
    return SelfTestToRun(row.id, row.study_instance_uid, row.accepts_score)


def is_reserved(database: Database, study_instance_uid: str) -> bool:
    """Say whether this is the study of a test that runs."""
    with database.reading() as connection:
        return is_reserved_within(connection, study_instance_uid)


def is_reserved_within(connection: Connection, study_instance_uid: str) -> bool:
    """Say it within a transaction."""
    reserved = select(SelfTestRow.id).where(
        SelfTestRow.study_instance_uid == study_instance_uid, _UNFINISHED, SelfTestRow.started_at.is_not(None)
    )
    return connection.execute(reserved).first() is not None


def look_at_self_test(database: Database, study_instance_uid: str) -> SelfTestLook:
    """Read how far the study of a test has come."""
    with database.reading() as connection:
        rows = connection.execute(
            select(SeriesRow, StudyRow.revision, StudyRow.reason.label("says_why"), StudyRow.triage.label("says"))
            .join(StudyRow, StudyRow.id == SeriesRow.study_id)
            .where(StudyRow.study_instance_uid == study_instance_uid)
        ).all()
    if not rows:
        return SelfTestLook()
    series = rows[0]
    without = series.state not in (*OPEN_SERIES, SeriesState.CONCLUDED)
    return SelfTestLook(
        revision=series.revision, triage=series.says, reason=series.says_why, complete=series.complete,
        finding=series.finding, model=series.model, steps=series.steps,
        ended=": ".join(filter(None, (series.state, series.reason, series.detail))) if without else "",
        slices=len((series.finding or {}).get("slices", ())),
    )  # fmt: skip


def open_series_of_patients(database: Database) -> int:
    """Count what is before a test."""
    of_patients = (SeriesRow.state.in_(OPEN_SERIES), series_of_patients())
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(SeriesRow).where(*of_patients)).scalar_one()


def expected_score(database: Database, model_sha256: str) -> float | None:
    """Give what the phantom scored in the last test that passed with this model; None where none has."""
    last = select(SelfTestRow.probability).where(
        SelfTestRow.passed.is_(True), SelfTestRow.model_sha256 == model_sha256, SelfTestRow.probability.is_not(None)
    )
    with database.reading() as connection:
        return connection.execute(last.order_by(SelfTestRow.id.desc()).limit(1)).scalar()


def end_self_test(database: Database, test_id: int, verdict: SelfTestVerdict) -> None:
    """Note how a test ended; nothing more of its study is taken."""
    values = {
        "finished_at": time.time(), "passed": verdict.passed, "fault": verdict.fault or None,
        "seconds": verdict.seconds, "steps": dict(verdict.steps or {}), "triage": verdict.triage,
        "probability": verdict.probability, "model_sha256": verdict.model_sha256,
    }  # fmt: skip
    with database.writing() as connection:
        connection.execute(update(SelfTestRow).where(SelfTestRow.id == test_id, _UNFINISHED).values(values))


def end_self_tests_of_the_dead(database: Database, fault: str) -> int:
    """End what runs, since whoever ran it is gone; return how many. What waits goes on waiting."""
    running = update(SelfTestRow).where(_UNFINISHED, SelfTestRow.started_at.is_not(None))
    with database.writing() as connection:
        return connection.execute(running.values(finished_at=time.time(), passed=False, fault=fault)).rowcount


def forget_old_self_tests(database: Database) -> int:
    """Forget what was found more than 90 days ago, and tests that were stopped; return how many."""
    past = SelfTestRow.finished_at < time.time() - _KEPT_DAYS * _SECONDS_A_DAY
    old = or_(past, and_(SelfTestRow.finished_at.is_not(None), SelfTestRow.passed.is_(None)))
    with database.writing() as connection:
        return connection.execute(delete(SelfTestRow).where(old, SelfTestRow.cleaned)).rowcount


_UNFINISHED: Final[ColumnElement[bool]] = SelfTestRow.finished_at.is_(None)
