"""What readers said of the node's answers, with what the node had said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from ich_node.database import Database, FeedbackRow, SeriesRow, StudyRow
from ich_node.records import SliceKey


@dataclass(frozen=True, slots=True)
class Word:
    """What one reader says of one answer: the newest of what that reader said of it."""

    reader: str
    agrees: bool
    hemorrhage: bool
    """Of no meaning where somebody agrees that an answer is indeterminate."""
    classes: tuple[str, ...]
    """Subtypes that a reader who disagrees sees."""
    slices: tuple[SliceKey, ...]
    given_at: float


@dataclass(frozen=True, slots=True)
class SpokenAnswer:
    """One revision of a study's answer, and what each reader says of it."""

    study_instance_uid: str
    series_instance_uid: str
    """That the study's answer rests on now; empty where it rests on none."""
    station_name: str
    revision: int
    triage: str
    """What the node said then."""
    presence: Mapping[str, str] | None
    """What it said of each class; None where that is not known any more, since another revision followed."""
    words: tuple[Word, ...]
    """The oldest first."""

    @property
    def given_at(self) -> float:
        """When the newest word was given."""
        return max(word.given_at for word in self.words)

    @property
    def is_disputed(self) -> bool:
        """Say whether somebody disagrees with the node."""
        return not all(word.agrees for word in self.words)


def spoken_answers(database: Database) -> tuple[SpokenAnswer, ...]:
    """Read every answer that a reader spoke of, the one spoken of last at the end."""
    newest = select(func.max(FeedbackRow.id)).group_by(FeedbackRow.study_id, FeedbackRow.revision, FeedbackRow.reader)
    series = aliased(SeriesRow)
    wanted = (
        select(
            FeedbackRow, StudyRow.study_instance_uid, StudyRow.revision.label("current"),
            series.series_instance_uid, series.station_name, series.finding["presence"].label("presence"),
        )
        .join(StudyRow, StudyRow.id == FeedbackRow.study_id)
        .join(series, series.id == StudyRow.rests_on_series_id, isouter=True)
        .where(FeedbackRow.id.in_(newest))
        .order_by(FeedbackRow.id)
    )  # fmt: skip
    answers: dict[tuple[str, int], list[Any]] = {}
    with database.reading() as connection:
        for row in connection.execute(wanted).all():
            answers.setdefault((row.study_instance_uid, row.revision), []).append(row)
    return tuple(sorted(map(_answer, answers.values()), key=lambda one: one.given_at))


def _answer(rows: list[Any]) -> SpokenAnswer:
    first = rows[0]
    holds = first.revision == first.current and first.presence is not None
    return SpokenAnswer(
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid or "",
        station_name=first.station_name or "",
        revision=first.revision,
        triage=first.triage,
        presence=dict(first.presence) if holds else None,
        words=tuple(_word(row) for row in rows),
    )


def _word(row: Any) -> Word:
    slices = tuple((str(uid), frame) for uid, frame in row.slices)
    return Word(row.reader, row.agrees, row.hemorrhage, tuple(row.classes), slices, row.given_at)
