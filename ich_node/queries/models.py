"""Where the silent model agrees with the one that answers, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, select

from ich_node.database import Database, SecondOpinionRow, StudyRow

SHOWN: Final = 50
NO_RESULT: Final = "no result"


@dataclass(frozen=True, slots=True)
class Difference:
    """A study of which the two say different things."""

    study_instance_uid: str
    active_triage: str
    silent_triage: str
    active_probability: float | None
    """Of any hemorrhage."""
    silent_probability: float | None
    made_at: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same series."""

    active_sha256: str
    counts: Mapping[tuple[str, str], int]
    """Of series: by what the active model said, and what the silent one says."""
    mean_difference: float | None
    """Of the probability of any hemorrhage, silent less active; None where none can be compared."""
    mean_distance: float | None
    """The same without its sign."""
    mean_seconds: float | None
    """That the silent model computed for one series."""
    differences: tuple[Difference, ...]
    """Where they say something else, the newest first."""

    @property
    def compared(self) -> int:
        return sum(self.counts.values())

    @property
    def agreed(self) -> int:
        return sum(count for (active, silent), count in self.counts.items() if active == silent)


def compare_models(database: Database, silent_sha256: str, active_sha256: str) -> Comparison:
    """Compare what the silent model says with what the active one had said of the same series."""
    ours = (SecondOpinionRow.model_sha256 == silent_sha256, SecondOpinionRow.active_sha256 == active_sha256)
    active, silent = _any(SecondOpinionRow.active_probabilities), _any(SecondOpinionRow.probabilities)
    by_answer = (SecondOpinionRow.active_triage, SecondOpinionRow.triage)
    difference = silent - active
    means = select(func.avg(difference), func.avg(func.abs(difference)), func.avg(SecondOpinionRow.seconds))
    with database.reading() as connection:
        counts = connection.execute(select(*by_answer, func.count()).where(*ours).group_by(*by_answer)).all()
        mean_difference, mean_distance, mean_seconds = connection.execute(means.where(*ours)).one()
        found = _differences(connection, ours, active, silent)
    return Comparison(
        active_sha256=active_sha256,
        counts={(_said(one), _said(other)): count for one, other, count in counts},
        mean_difference=mean_difference,
        mean_distance=mean_distance,
        mean_seconds=mean_seconds,
        differences=tuple(found),
    )


def _differences(
    connection: Connection, ours: tuple[ColumnElement[bool], ...], active: Any, silent: Any
) -> list[Difference]:
    other = SecondOpinionRow.active_triage.is_distinct_from(SecondOpinionRow.triage)
    wanted = (
        select(SecondOpinionRow, StudyRow.study_instance_uid, active.label("active"), silent.label("silent"))
        .join(StudyRow, StudyRow.id == SecondOpinionRow.study_id)
        .where(*ours, other)
        .order_by(SecondOpinionRow.id.desc())
        .limit(SHOWN)
    )
    return [
        Difference(
            row.study_instance_uid, _said(row.active_triage), _said(row.triage), row.active, row.silent, row.made_at
        )
        for row in connection.execute(wanted).all()
    ]


def _any(probabilities: Any) -> Any:
    return probabilities["any"].as_float()


def _said(triage: str | None) -> str:
    return triage or NO_RESULT
