"""Series brought to their conclusions by the queue alone, without images."""

from __future__ import annotations

from typing import Any

from ich_node.database import Database, DeliveryRow, StudyRow
from ich_node.job_queue import Conclusion, SavedObject, close_series, conclude_series, load_content, plan_report
from ich_node.records import Destination, NotAnalysedReason, SeriesJob, SeriesState, Triage
from tests.unit.queueing import MODEL, PACS, claim, make_due, receive, received, rows, score


def report_object(revision: int, preference: int = 0, study: int = 1) -> SavedObject:
    uid = f"2.25.{study}.{revision}.{preference}"
    path = f"results/{uid}.dcm"
    return SavedObject("SR", f"encoding {preference}", preference, f"1.2.{preference}", uid, f"2.25.{study}", "x", path)


def closed_job(database: Database, *, study: int = 1, series: int = 1, number: int = 1, owner: str = "me") -> SeriesJob:
    """A series with one more slice, scored and closed, its lease held."""
    receive(database, received(number, study=study, series=series))
    make_due(database)
    uid = f"1.2.{study}.{series}"
    (job,) = [one for one in claim(database, owner) if one.series_instance_uid == uid]
    assert score(database, job, owner)
    make_due(database)
    assert close_series(database, job, owner, lease_s=60)
    return job


def conclusion(
    database: Database,
    job: SeriesJob,
    triage: Triage | None,
    *,
    fingerprint: str | None = None,
    destinations: tuple[Destination, ...] = (PACS,),
    **choice: Any,
) -> Conclusion:
    """What the worker would conclude of a series as it is; its fingerprint is that of its instances."""
    content = load_content(database, job.id, MODEL)
    fingerprint = fingerprint or str(content.stamp)
    plan = plan_report(database, job, triage, None, fingerprint)
    study = int(job.study_instance_uid.rpartition(".")[2])
    objects = () if plan.revision is None else tuple(report_object(plan.revision, n, study) for n in (0, 1))
    return Conclusion(
        SeriesState.CONCLUDED,
        triage,
        complete=True,
        head_expected=True,
        stamp=content.stamp,
        choice=choice or None,
        fingerprint=fingerprint,
        plan=plan,
        objects=objects,
        destinations=destinations,
    )


def conclude(database: Database, triage: Triage | None, **where: int) -> bool:
    """Conclude one more slice of a series with the plan the queue gives."""
    job = closed_job(database, **where)
    return conclude_series(database, job, "me", conclusion(database, job, triage))


def decline(database: Database, *, reason: NotAnalysedReason = NotAnalysedReason.NOT_AXIAL, head: bool = True,
            **where: int) -> None:  # fmt: skip
    job = closed_job(database, **where)
    stamp = load_content(database, job.id, MODEL).stamp
    done = Conclusion(SeriesState.NOT_ANALYSED, reason=reason, head_expected=head, stamp=stamp)
    assert conclude_series(database, job, "me", done)


def study_row(database: Database) -> Any:
    (row,) = rows(database, StudyRow)
    return row


def outbox(database: Database) -> list[tuple[int, str, str]]:
    return [(row.revision, row.destination, row.state) for row in rows(database, DeliveryRow)]
