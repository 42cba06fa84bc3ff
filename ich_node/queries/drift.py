"""What is known of drift: the series that are compared, the last look, and who set which reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, func, select

from ich_node.database import Database, DriftLookRow, DriftReferenceRow, SeriesMeasureRow, SeriesRow
from ich_node.drift_findings import findings_that_hold
from ich_node.records import DriftFinding, DriftRules, GroupMeasures, MeasuredSeries, SeriesMeasure
from ich_node.records.drift import DAY_S

SHOWN_DAYS: Final = 26 * 7
"""Over which charts go."""
MOST_GROUPS: Final = 60
"""Whoever sends another StationName with each study fills no page and no memory."""
_MOST_SERIES: Final = 20_000


@dataclass(frozen=True, slots=True)
class StoredLook:
    """The newest look."""

    looked_at: float
    tests: int
    found: tuple[DriftFinding, ...]
    """But for groups that have got another reference since."""
    compared: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SetReference:
    """A reference that a person set."""

    station_name: str
    convolution_kernel: str
    since: float
    until: float
    set_by: str
    set_at: float
    reason: str


def newest_look(database: Database) -> StoredLook | None:
    """Give the newest look; None where there was none yet."""
    with database.reading() as connection:
        row = connection.execute(select(DriftLookRow).order_by(DriftLookRow.id.desc()).limit(1)).first()
        if row is None:
            return None
        return StoredLook(row.looked_at, row.tests, tuple(findings_that_hold(connection)), row.compared)


def set_references(database: Database) -> tuple[SetReference, ...]:
    """Give the references that people set."""
    with database.reading() as connection:
        return tuple(_reference(row) for row in connection.execute(select(DriftReferenceRow)).all())


def measured_groups(database: Database, rules: DriftRules, now: float) -> tuple[list[GroupMeasures], int]:
    """Read the series of each station and kernel, those with the most series first.

    Of each: the earliest, the earliest that the newest model scored, and those of the last half year.

    Returns:
        The groups, and how many more there are.
    """
    key = (SeriesMeasureRow.station_name, SeriesMeasureRow.convolution_kernel)
    keys: Sequence[Any]
    with database.reading() as connection:
        keys = connection.execute(select(*key).group_by(*key).order_by(func.count().desc(), *key)).all()
        references = _references(connection)
        groups = [_group(connection, *row, references.get(tuple(row)), rules, now) for row in keys[:MOST_GROUPS]]
    return groups, max(0, len(keys) - MOST_GROUPS)


def _references(connection: Connection) -> dict[tuple[str, ...], Any]:
    rows = connection.execute(select(DriftReferenceRow)).all()
    return {(row.station_name, row.convolution_kernel): row for row in rows}


def _group(
    connection: Connection, station_name: str, kernel: str, reference: Any | None, rules: DriftRules, now: float
) -> GroupMeasures:
    since = 0.0 if reference is None else reference.since
    mine = (SeriesMeasureRow.station_name == station_name, SeriesMeasureRow.convolution_kernel == kernel)
    of_group = (
        select(SeriesMeasureRow, SeriesRow.study_id)
        .join(SeriesRow, SeriesRow.id == SeriesMeasureRow.series_id)
        .where(*mine)
    )
    newest_first = of_group.order_by(SeriesMeasureRow.measured_at.desc(), SeriesMeasureRow.id.desc())
    lately = newest_first.where(SeriesMeasureRow.measured_at >= now - SHOWN_DAYS * DAY_S).limit(_MOST_SERIES)
    earliest = _earliest(*mine, SeriesMeasureRow.measured_at >= since).limit(rules.reference_series)
    queries = [lately, of_group.where(SeriesMeasureRow.id.in_(earliest))]
    scored = newest_first.where(SeriesMeasureRow.model_sha256.is_not(None)).limit(1)
    if (newest := connection.execute(scored).first()) is not None:
        of_model = SeriesMeasureRow.model_sha256 == newest.model_sha256
        earliest = _earliest(*mine, SeriesMeasureRow.measured_at >= since, of_model).limit(rules.reference_series)
        queries.append(of_group.where(SeriesMeasureRow.id.in_(earliest)))
    rows = {row.id: row for query in queries for row in connection.execute(query).all()}
    series = sorted((_series(row) for row in rows.values()), key=lambda one: (one.measured_at, one.id))
    return GroupMeasures(station_name, kernel, tuple(series), since, None if reference is None else reference.until)


def _earliest(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Number the first series of each study, those of the earliest studies first: of a study one counts."""
    first = func.min(SeriesMeasureRow.id)
    return (
        select(first)
        .join(SeriesRow, SeriesRow.id == SeriesMeasureRow.series_id)
        .where(*conditions)
        .group_by(SeriesRow.study_id)
        .order_by(func.min(SeriesMeasureRow.measured_at), first)
    )


def _series(row: Any) -> MeasuredSeries:
    measure = SeriesMeasure(
        row.convolution_kernel, row.air_hu, row.brain_hu, row.noise_hu, row.slice_thickness_mm, row.probability,
        row.model_sha256,
    )  # fmt: skip
    return MeasuredSeries(row.id, row.study_id, row.measured_at, row.triage, row.reason, measure)


def _reference(row: Any) -> SetReference:
    return SetReference(
        row.station_name, row.convolution_kernel, row.since, row.until, row.set_by, row.set_at, row.reason
    )
