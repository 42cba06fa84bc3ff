"""Series that were measured, in a database, for tests of drift and pictures of its page."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

import numpy as np
from sqlalchemy import insert

from ich_node.database import Database, SeriesMeasureRow, SeriesRow, StudyRow
from ich_node.records import MeasuredSeries
from tests.drift_simulation import DAY_S, Station, made_by


@dataclass(frozen=True)
class Group:
    """A station and kernel that is as it was for some days, and then perhaps otherwise."""

    station_name: str
    convolution_kernel: str
    before: Station = field(default_factory=Station)
    after: Station | None = None
    a_day: float = 12.0


GROUPS: Final = (
    Group("CT_ER", "H31s", after=replace(Station(), brain=34.1), a_day=14),
    Group("CT_2", "J40s", replace(Station(), brain=29.5, noise=3.9), a_day=9),
    Group("CT_3", "SOFT", after=replace(Station(), noise=5.7), a_day=8),
    Group("CT_MOBILE", "H31s", a_day=0.25),
)


def measure(
    database: Database,
    groups: Iterable[Group],
    now: float,
    days: int = 120,
    changed_days: int = 11,
    first_id: int = 1,
) -> None:
    """Enter what would have been measured in the days before a time."""
    numbers = itertools.count(first_id)
    for seed, group in enumerate(groups):
        random = np.random.default_rng(seed)
        before = replace(group.before, a_day=group.a_day)
        after = replace(group.after or group.before, a_day=group.a_day)
        series = made_by(before, (0, days - changed_days), random)
        series += made_by(after, (days - changed_days, days), random)
        _enter(database, group, numbers, [(now - days * DAY_S + one.measured_at, one) for one in series])


def _enter(
    database: Database, group: Group, numbers: Iterator[int], series: Sequence[tuple[float, MeasuredSeries]]
) -> None:
    studies, rows, measures = [], [], []
    for at, one in series:
        number = next(numbers)
        studies.append({"id": number, "study_instance_uid": f"2.25.7.{number}", "created_at": at})
        rows.append({
            "id": number, "study_id": number, "series_instance_uid": f"2.25.7.{number}.1", "modality": "CT",
            "state": "CONCLUDED", "due_at": at, "first_received_at": at, "last_received_at": at,
            "calling_ae_title": "CT1", "remote_address": "10.0.0.1", "station_name": group.station_name,
        })  # fmt: skip
        of_group = {"station_name": group.station_name, "convolution_kernel": group.convolution_kernel}
        ended = {"triage": one.triage, "reason": one.reason, "series_id": number, "measured_at": at}
        measures.append(asdict(one.measure) | of_group | ended)
    with database.writing() as connection:
        connection.execute(insert(StudyRow), studies)
        connection.execute(insert(SeriesRow), rows)
        connection.execute(insert(SeriesMeasureRow), measures)
