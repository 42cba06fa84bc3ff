"""What is entered about drift: measures of series that ended, looks, and references that a person sets."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from ich_node.database import (
    Database,
    DriftLookRow,
    DriftReferenceRow,
    InstanceRow,
    SeriesMeasureRow,
    SeriesRow,
    StudyRow,
)
from ich_node.drift_findings import findings_that_hold
from ich_node.job_queue.facts import facts_from_json
from ich_node.records import DriftFinding, NotAnalysedReason, SeriesMeasure, Triage
from ich_node.records.drift import DAY_S

_KEPT_S: Final = 2 * 365 * DAY_S
_MOST_GROUPS: Final = 8
"""That are told of by name."""
_LONGEST_TEXT: Final = 500
_LONGEST_NAME: Final = 64


def keep_measure(
    connection: Connection,
    series_id: int,
    measure: SeriesMeasure,
    triage: Triage | None,
    reason: NotAnalysedReason | None,
    now: float,
) -> None:
    """Enter what was measured of a series that ended, or enter it anew; its time stays that of the first end.

    Only CT is measured, whatever of: heads that count as no heads any more are a drift. Left out are the node's own
    tests, and old studies, which say how things were at another time than they come.
    """
    of_series = (
        select(SeriesRow.station_name, SeriesRow.modality, SeriesRow.old, StudyRow.self_test)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(SeriesRow.id == series_id)
    )
    series = connection.execute(of_series).one()
    if series.modality != "CT" or series.old or series.self_test:
        return
    values: dict[str, Any] = dataclasses.asdict(measure) | {
        "station_name": series.station_name, "triage": triage, "reason": reason.name if reason else None,
    }  # fmt: skip
    known = SeriesMeasureRow.series_id == series_id
    if not connection.execute(update(SeriesMeasureRow).where(known).values(values)).rowcount:
        connection.execute(insert(SeriesMeasureRow).values(values | {"series_id": series_id, "measured_at": now}))


def keep_failure(connection: Connection, series_id: int, now: float) -> None:
    """Enter that a series failed; by its first slice that was read it is known which kernel it has."""
    read = select(InstanceRow.facts).where(
        InstanceRow.series_id == series_id, InstanceRow.current, InstanceRow.facts.is_not(None)
    )
    facts = facts_from_json(connection.execute(read.order_by(InstanceRow.id).limit(1)).scalar())
    measure = SeriesMeasure(facts[0].convolution_kernel[:64] if facts else "")
    keep_measure(connection, series_id, measure, None, NotAnalysedReason.ANALYSIS_FAILED, now)


def look_is_due(database: Database) -> bool:
    """Say whether a day has passed since the last look."""
    with database.reading() as connection:
        last = _last_look(connection)
    return last is None or time.time() - last >= DAY_S


def save_look(
    database: Database, looked_at: float, tests: int, found: Sequence[DriftFinding], compared: dict[str, Any]
) -> bool:
    """Enter a look, once for a day. False: another process made it meanwhile."""
    with database.writing() as connection:
        last = _last_look(connection)
        if last is not None and looked_at - last < DAY_S:
            return False
        connection.execute(delete(DriftLookRow).where(DriftLookRow.looked_at < looked_at - _KEPT_S))
        connection.execute(update(DriftLookRow).where(DriftLookRow.looked_at == last).values(compared={}))
        values = {"looked_at": looked_at, "tests": tests, "found": list(map(dataclasses.asdict, found))}
        connection.execute(insert(DriftLookRow).values(values | {"compared": compared}))
        return True


def take_new_reference(
    database: Database, station_name: str, convolution_kernel: str, *, days: float, by: str, reason: str
) -> bool:
    """Let the last days of a station and kernel be what later ones are compared with. False: there is no such group."""
    now = time.time()
    group = (station_name, convolution_kernel)
    with database.writing() as connection:
        if not connection.execute(select(SeriesMeasureRow.id).where(*_is(SeriesMeasureRow, *group)).limit(1)).first():
            return False
        connection.execute(delete(DriftReferenceRow).where(*_is(DriftReferenceRow, *group)))
        values = {
            "station_name": station_name, "convolution_kernel": convolution_kernel, "since": now - days * DAY_S,
            "until": now, "set_by": by[:_LONGEST_NAME], "set_at": now, "reason": reason,
        }  # fmt: skip
        connection.execute(insert(DriftReferenceRow).values(values))
        return True


def find_drift(connection: Connection) -> Iterator[tuple[str, str]]:
    """Say what the last look found, a condition for each station and kernel, until a look finds it no more."""
    by_group: dict[str, list[str]] = {}
    for one in findings_that_hold(connection):
        by_group.setdefault(f"drift {one.group}"[:_LONGEST_NAME], []).append(one.text)
    for name, texts in list(by_group.items())[:_MOST_GROUPS]:
        yield name, f"{_bounded('; '.join(texts))}: see the page Drift"
    if (more := len(by_group) - _MOST_GROUPS) > 0:
        yield "drift elsewhere", f"{more} more stations and kernels differ from their reference: see the page Drift"


def _bounded(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def _last_look(connection: Connection) -> float | None:
    return connection.execute(select(DriftLookRow.looked_at).order_by(DriftLookRow.id.desc()).limit(1)).scalar()


def _is(table: Any, station_name: str, convolution_kernel: str) -> tuple[Any, Any]:
    return table.station_name == station_name, table.convolution_kernel == convolution_kernel
