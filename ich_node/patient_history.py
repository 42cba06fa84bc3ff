"""What is known of a patient's earlier studies: of this node's own, and what the PACS said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, select

from ich_node.database import SeriesRow, StudyRow
from ich_node.records import OPEN_SERIES, EarlierBleed, EarlierStudies, PatientHistory, Triage

_MOST_SERIES: Final = 500
"""That are looked at, the newest: a test object has thousands."""


def history_of(connection: Connection, study: Any) -> PatientHistory:
    """Find earlier studies of the same patient.

    The same patient is who has the same PatientID, issuer and PatientBirthDate. Who has the same PatientID alone may be
    somebody else (two hospitals that number alike, an identifier for emergencies): of him nothing is said.

    Args:
        study: a whole row of ``study``.
    """
    pacs = None if study.pacs_studies is None else EarlierStudies(study.pacs_studies, study.pacs_newest or "")
    nothing = PatientHistory(asked_pacs=study.history_asked_at is not None, at_pacs=pacs)
    mine = _series_that_says_who(connection, study)
    if mine is None:
        return nothing
    others = _studies_of(connection, study.id, mine.patient_mark)
    same = [one for one in others if mine.birth_mark is not None and one.birth_mark == mine.birth_mark]
    earlier = [one for one in same if _is_earlier(one, mine, study)]
    if mine.birth_mark is None or (not earlier and len(same) < len(others)):
        return nothing
    return PatientHistory(
        here=len(earlier),
        newest_here_at=max((one.acquired_at or one.reported_at for one in earlier), default=None),
        bleed=_newest_bleed(earlier),
        asked_pacs=nothing.asked_pacs,
        at_pacs=pacs,
    )


def _series_that_says_who(connection: Connection, study: Any) -> Any | None:
    """Read the series that the answer rests on; without an answer, the first whose patient is known."""
    rows = connection.execute(
        select(SeriesRow.id, SeriesRow.patient_mark, SeriesRow.birth_mark, SeriesRow.acquired_at)
        .where(SeriesRow.study_id == study.id, SeriesRow.patient_mark.is_not(None))
        .order_by(SeriesRow.id)
    ).all()
    basis = study.rests_on_series_id if study.revision else study.early_series_id
    return next((row for row in rows if row.id == basis), rows[0] if rows and basis is None else None)


def _studies_of(connection: Connection, study_id: int, patient_mark: str) -> Sequence[Any]:
    """Read the other studies of a PatientID that are head CT, one row each: the series that the answer rests on."""
    rows = connection.execute(
        select(
            StudyRow.id, StudyRow.revision, StudyRow.triage, StudyRow.withdrawn, StudyRow.doubted,
            StudyRow.reported_at, StudyRow.rests_on_series_id, SeriesRow.id.label("series_id"), SeriesRow.acquired_at,
            SeriesRow.birth_mark, SeriesRow.head_expected, SeriesRow.state,
            SeriesRow.finding["test_model"].as_boolean().label("test_model"),
        )
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(SeriesRow.patient_mark == patient_mark, SeriesRow.study_id != study_id)
        .order_by(SeriesRow.id.desc())
        .limit(_MOST_SERIES)
    ).all()  # fmt: skip
    wanted = [row for row in rows if row.revision or row.head_expected or row.state in OPEN_SERIES]
    basis_last = sorted(wanted, key=lambda row: row.series_id == row.rests_on_series_id)
    return list({row.id: row for row in basis_last}.values())


def _is_earlier(other: Any, mine: Any, study: Any) -> bool:
    """Compare times of acquisition; where one is not known, it was reported before this study came."""
    if other.acquired_at is not None and mine.acquired_at is not None:
        return bool(other.acquired_at < mine.acquired_at)
    return other.reported_at is not None and other.reported_at < study.created_at


def _newest_bleed(earlier: Iterable[Any]) -> EarlierBleed | None:
    """Take the newest finding that holds; of a test model none does."""
    bleeds = [EarlierBleed(one.reported_at, one.acquired_at) for one in earlier if _is_bleed(one)]
    return max(bleeds, key=lambda one: one.acquired_at or one.reported_at or 0.0, default=None)


def _is_bleed(one: Any) -> bool:
    return (
        one.revision > 0
        and one.triage == Triage.POSITIVE
        and not (one.withdrawn or one.doubted or one.test_model)
        and one.series_id == one.rests_on_series_id
    )
