"""What the worklist asks of the database: pages of studies, in an order that an index holds, and what waits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select, text, union

from ich_node.database import AlertRow, Database, DeliveryRow, InstanceRow, ResultRow, SeriesRow, StudyRow
from ich_node.database.of_patients import series_of_patients, studies_of_patients
from ich_node.database.tables import WITHDRAWN
from ich_node.queries.states import StudyStatus
from ich_node.queries.studies import studies_of
from ich_node.records import OPEN_SERIES, AlertState, DeliveryState, SeriesState, Triage

PAGE: Final = 50
LONGEST_SEARCH: Final = 64
_URGENCY: Final[tuple[str | None, ...]] = (Triage.POSITIVE, Triage.INDETERMINATE, None, Triage.NEGATIVE)
_LOOKED_AT: Final[dict[Any, tuple[str, ...]]] = {
    SeriesRow.state: (*OPEN_SERIES, SeriesState.FAILED, SeriesState.QUARANTINED),
    DeliveryRow.state: (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.DEAD),
    AlertRow.state: (AlertState.DEAD, AlertState.UNANSWERED),
}
_COMMON: Final = 20_000
_LAST: Final = "\U0010ffff"
_UID: Final = re.compile(r"[0-9.]{3,64}")


class Order(StrEnum):
    """In which order studies are listed."""

    NEWEST = "newest"
    URGENT = "urgent"
    """Positive ones first, then those in between, then those without a result; of each the newest first."""


class Shown(StrEnum):
    """Which studies are listed."""

    ALL = "all"
    POSITIVE = "positive"
    INDETERMINATE = "indeterminate"
    NEGATIVE = "negative"
    NOT_ANALYSED = "not-analysed"
    """Nothing arrives any more, and there is no result."""
    IN_PROGRESS = "in-progress"
    UNACKNOWLEDGED = "unacknowledged"
    """Somebody was told, and nobody has said that they saw it."""
    NEEDS_A_PERSON = "needs-a-person"
    """A series failed or is quarantined, or a result could not be delivered, or was withdrawn."""


@dataclass(frozen=True, slots=True)
class WorklistQuery:
    """What somebody asks to see."""

    order: Order = Order.NEWEST
    shown: Shown = Shown.ALL
    search: str = ""
    """The beginning of a UID, of the name of a station, or of a sender's AE title."""
    after: str = ""
    """Where the page before ended; empty for the first."""


@dataclass(frozen=True, slots=True)
class WorklistStudy:
    """A line of the worklist."""

    status: StudyStatus
    station_name: str
    calling_ae_title: str
    slices: int
    newest_file: str | None
    """An image of the study that is still there, or a report; relative to the state folder."""
    last_received_at: float


@dataclass(frozen=True, slots=True)
class WorklistPage:
    """Some studies, and where to go on."""

    studies: tuple[WorklistStudy, ...]
    next_after: str
    """For the page after this one; empty where this is the last."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a person looks at first."""

    series: dict[str, int] = field(default_factory=dict)
    deliveries: dict[str, int] = field(default_factory=dict)
    alerts: dict[str, int] = field(default_factory=dict)

    @property
    def in_progress(self) -> int:
        return sum(self.series.get(state, 0) for state in OPEN_SERIES)

    @property
    def failed(self) -> int:
        return self.series.get(SeriesState.FAILED, 0)

    @property
    def quarantined(self) -> int:
        return self.series.get(SeriesState.QUARANTINED, 0)

    @property
    def undelivered(self) -> int:
        return sum(self.deliveries.get(state, 0) for state in (DeliveryState.PENDING, DeliveryState.SENDING))

    @property
    def dead(self) -> int:
        return self.deliveries.get(DeliveryState.DEAD, 0) + self.alerts.get(AlertState.DEAD, 0)

    @property
    def unanswered(self) -> int:
        return self.alerts.get(AlertState.UNANSWERED, 0)


def worklist(database: Database, query: WorklistQuery, limit: int = PAGE) -> WorklistPage:
    """Read a page of studies. The effort depends on the page, not on how many studies there are.

    Raises:
        ValueError: ``query.after`` is nothing that a page said.
    """
    with database.reading() as connection:
        ids, more = _page(connection, query, limit)
        return WorklistPage(_lines(connection, ids), more)


def worklist_line(database: Database, study_instance_uid: str, *, in_full: bool = False) -> WorklistStudy | None:
    """Read the line of one study; None where there is no such study.

    Args:
        in_full: with what is said only where one study is looked at.
    """
    with database.reading() as connection:
        wanted = select(StudyRow.id).where(StudyRow.study_instance_uid == study_instance_uid, studies_of_patients())
        ids = list(connection.execute(wanted).scalars())
        return next(iter(_lines(connection, ids, alone=in_full)), None)


def what_waits(database: Database) -> Waiting:
    """Count what is under way and what needs a person."""
    with database.reading() as connection:
        return Waiting(*(_counts(connection, column, states) for column, states in _LOOKED_AT.items()))


def _counts(connection: Connection, column: Any, states: Sequence[str]) -> dict[str, int]:
    counted = select(column, func.count()).where(column.in_(states)).group_by(column)
    if column is SeriesRow.state:
        counted = counted.where(series_of_patients())
    return {str(state): count for state, count in connection.execute(counted)}


def _page(connection: Connection, query: WorklistQuery, limit: int) -> tuple[list[int], str]:
    ranks = range(len(_URGENCY)) if query.order is Order.URGENT else range(1)
    first_rank, before = _read_after(query.after, len(ranks))
    conditions = _conditions(connection, query)
    ids: list[int] = []
    for rank in ranks[first_rank:]:
        wanted = select(StudyRow.id).where(*conditions).order_by(StudyRow.id.desc())
        if query.order is Order.URGENT:
            wanted = wanted.where(_says(_URGENCY[rank]))
        if before is not None:
            wanted = wanted.where(StudyRow.id < before)
        before = None
        some = connection.execute(wanted.limit(limit + 1 - len(ids))).scalars().all()
        if len(ids) + len(some) > limit:
            ids += some[:-1]
            return ids, f"{rank}.{ids[-1]}" if some[:-1] else f"{rank}.{some[0] + 1}"
        ids += some
    return ids, ""


def _read_after(after: str, ranks: int) -> tuple[int, int | None]:
    if not after:
        return 0, None
    rank, _, study_id = after.partition(".")
    if not (rank.isdecimal() and study_id.isdecimal() and int(rank) < ranks and len(study_id) < 19):
        raise ValueError("no page ended there")
    return int(rank), int(study_id)


def _says(triage: str | None) -> ColumnElement[bool]:
    return StudyRow.triage.is_(None) if triage is None else StudyRow.triage == triage


def _conditions(connection: Connection, query: WorklistQuery) -> list[ColumnElement[bool]]:
    shown = _SHOWN.get(query.shown)
    conditions = [studies_of_patients()] if shown is None else [studies_of_patients(), shown]
    if search := query.search.strip()[:LONGEST_SEARCH]:
        conditions.append(_found(connection, search))
    return conditions


def _found(connection: Connection, search: str) -> ColumnElement[bool]:
    """Find studies by what an index holds; in names, letters are not told apart by their case."""
    if _UID.fullmatch(search):
        of_study = [_begins(StudyRow.study_instance_uid, search)]
        of_series = [_begins(SeriesRow.series_instance_uid, search)]
    else:
        named = (SeriesRow.station_name, SeriesRow.calling_ae_title)
        of_study, of_series = [], [column.in_(_names(connection, column, search)) for column in named]
    some = [select(StudyRow.id).where(one) for one in of_study]
    some += [select(SeriesRow.study_id).where(one) for one in of_series]
    if any(_is_common(connection, one) for one in some):
        return or_(*of_study, exists().where(SeriesRow.study_id == StudyRow.id, or_(*of_series)))
    return _among(*some)


def _names(connection: Connection, column: Any, search: str) -> list[str]:
    """Give the names that begin so: a site has few of them, and an index of the column holds all."""
    known = connection.execute(select(column).distinct()).scalars()
    return [one for one in known if one.casefold().startswith(search.casefold())]


def _is_common(connection: Connection, found: Select[Any]) -> bool:
    """Say whether so many fit that going through the studies finds a page of them sooner than a list of all."""
    counted = select(func.count()).select_from(found.limit(_COMMON).subquery())
    return connection.execute(counted).scalar_one() == _COMMON


def _begins(column: Any, beginning: str) -> ColumnElement[bool]:
    """Say that a text begins with another, so that an index of the column is used, which LIKE with ESCAPE does not."""
    return and_(column >= beginning, column < beginning + _LAST)


def _of_series(*states: str) -> Select[Any]:
    return select(SeriesRow.study_id).where(SeriesRow.state.in_(states))


def _of_alerts(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(AlertRow.study_id).where(AlertRow.study_id.is_not(None), *conditions)


def _among(*some: Select[Any]) -> ColumnElement[bool]:
    return StudyRow.id.in_(union(*some) if len(some) > 1 else some[0])


_SHOWN: Final[dict[Shown, ColumnElement[bool]]] = {
    Shown.POSITIVE: _says(Triage.POSITIVE),
    Shown.INDETERMINATE: _says(Triage.INDETERMINATE),
    Shown.NEGATIVE: _says(Triage.NEGATIVE),
    Shown.NOT_ANALYSED: and_(StudyRow.triage.is_(None), ~_among(_of_series(*OPEN_SERIES))),
    Shown.IN_PROGRESS: _among(_of_series(*OPEN_SERIES)),
    Shown.UNACKNOWLEDGED: _among(
        _of_alerts(AlertRow.state.in_((AlertState.SENT, AlertState.UNANSWERED)), AlertRow.acknowledged_at.is_(None))
    ),
    Shown.NEEDS_A_PERSON: _among(
        select(StudyRow.id).where(text(WITHDRAWN)),
        _of_series(SeriesState.FAILED, SeriesState.QUARANTINED),
        select(DeliveryRow.study_id).where(DeliveryRow.state == DeliveryState.DEAD),
        _of_alerts(AlertRow.state.in_((AlertState.DEAD, AlertState.UNANSWERED))),
    ),
}


def _lines(connection: Connection, ids: Sequence[int], *, alone: bool = False) -> tuple[WorklistStudy, ...]:
    series: defaultdict[int, list[Any]] = defaultdict(list)
    senders = select(
        SeriesRow.study_id, SeriesRow.station_name, SeriesRow.calling_ae_title, SeriesRow.last_received_at
    ).where(SeriesRow.study_id.in_(ids))
    for row in connection.execute(senders.order_by(SeriesRow.id)).all():
        series[row.study_id].append(row)
    files = _newest_files(connection, ids)
    return tuple(
        WorklistStudy(
            status=status,
            station_name=next((one.station_name for one in series[study_id] if one.station_name), ""),
            calling_ae_title=series[study_id][-1].calling_ae_title if series[study_id] else "",
            slices=sum(one.slices for one in status.series),
            newest_file=files.get(study_id),
            last_received_at=max((one.last_received_at for one in series[study_id]), default=status.received_at),
        )
        for study_id, status in zip(ids, studies_of(connection, ids, alone=alone), strict=True)
    )


def _newest_files(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """Give of each study an image that is there, else a report: who the patient is stands in files alone."""
    newest = (
        select(SeriesRow.study_id, func.max(InstanceRow.id).label("id"))
        .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        .where(SeriesRow.study_id.in_(ids), InstanceRow.path.is_not(None))
        .group_by(SeriesRow.study_id)
        .subquery()
    )
    images = select(newest.c.study_id, InstanceRow.path).join(InstanceRow, InstanceRow.id == newest.c.id)
    found = {row.study_id: row.path for row in connection.execute(images).all()}
    if missing := [one for one in ids if one not in found]:
        reports = select(ResultRow.study_id, ResultRow.path).where(
            ResultRow.study_id.in_(missing), ResultRow.path.is_not(None)
        )
        found |= {row.study_id: row.path for row in connection.execute(reports.order_by(ResultRow.id)).all()}
    return found
