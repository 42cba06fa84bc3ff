"""What a concluded series said, for a report that shows it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from ich_node.database import Database, SeriesRow
from ich_node.errors import FindingLost
from ich_node.job_queue.findings import finding_from_json
from ich_node.records import ModelIdentity, TriageFinding


@dataclass(frozen=True, slots=True)
class SavedFinding:
    """The finding of a concluded series, the model that made it, and when."""

    finding: TriageFinding
    model: ModelIdentity
    steps: dict[str, float]
    series_instance_uid: str


def load_finding(database: Database, series_id: int) -> SavedFinding:
    """Read what a concluded series said.

    Raises:
        FindingLost: it has none.
    """
    with database.reading() as connection:
        row: Any = connection.execute(
            select(SeriesRow.finding, SeriesRow.model, SeriesRow.steps, SeriesRow.series_instance_uid).where(
                SeriesRow.id == series_id
            )
        ).one()
    if not row.finding or not row.model:
        raise FindingLost(series_id)
    return SavedFinding(
        finding_from_json(row.finding), ModelIdentity(**row.model), row.steps or {}, row.series_instance_uid
    )
