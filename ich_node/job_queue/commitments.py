"""Storage commitment: what is to be asked, what was answered, and what follows for the deliveries (PS3.4 Annex J).

A transaction is written down before it is asked, and it stays: whatever is killed when, its answer is known, and what
is not known to have been asked is asked again, as another transaction.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, exists, func, insert, select, update
from sqlalchemy.orm import aliased

from ich_node.database import (
    CommitmentItemRow,
    CommitmentReportRow,
    CommitmentRow,
    Database,
    DeliveryRow,
    ResultRow,
    StudyRow,
)
from ich_node.failpoint import reach
from ich_node.job_queue.outbox import DeliveryRules
from ich_node.records import (
    CommitmentFailure,
    CommitmentReport,
    CommitmentRequest,
    DeliveryState,
    Destination,
    ObjectReference,
    ReportTaken,
)

_MOST_OBJECTS: Final = 20
"""In one transaction: a fault with one holds up no more than these."""
_MOST_REPORTS: Final = 16
"""Different answers to one transaction that are kept: of those about what was asked, and of all others."""


@dataclass(frozen=True, slots=True)
class SettledReport:
    """What a peer's answer led to."""

    transaction: int
    committed: int
    sent_again: int
    dead: int
    differs: bool
    """It names other objects than were asked about: nothing came of it."""
    why: str
    """Why objects are not committed."""


def claim_commitment(
    database: Database, destination: Destination, *, lease_s: float, limit: int = _MOST_OBJECTS
) -> CommitmentRequest | None:
    """Write down a transaction about what was delivered to a destination and is to be asked about now.

    Args:
        lease_s: after this time, without `note_acknowledged`, the objects are asked about again.
    """
    now = time.time()
    due = _due(destination.name, now)
    with database.reading() as connection:
        if connection.execute(due.limit(1)).first() is None:
            return None
    with database.writing() as connection:
        rows = connection.execute(due.limit(limit)).all()
        if not rows:
            return None
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        values = {"transaction_uid": transaction_uid, "destination": destination.name,
                  "ae_title": destination.ae_title, "asked_at": now}  # fmt: skip
        commitment_id = _new_id(connection, values)
        objects = tuple(ObjectReference(row.sop_class_uid, row.sop_instance_uid) for row in rows)
        connection.execute(
            insert(CommitmentItemRow),
            [
                {"commitment_id": commitment_id, "delivery_id": row.id, "sop_class_uid": row.sop_class_uid,
                 "sop_instance_uid": row.sop_instance_uid, "sent_again": False}
                for row in rows
            ],
        )  # fmt: skip
        asked = {"commitment_ask_at": now + lease_s, "commitment_asks": DeliveryRow.commitment_asks + 1}
        connection.execute(update(DeliveryRow).where(DeliveryRow.id.in_([row.id for row in rows])).values(asked))
        return CommitmentRequest(commitment_id, transaction_uid, objects)


def _due(destination: str, now: float) -> Any:
    return (
        select(DeliveryRow.id, ResultRow.sop_class_uid, ResultRow.sop_instance_uid)
        .join(ResultRow, ResultRow.sop_instance_uid == DeliveryRow.sop_instance_uid)
        .where(
            DeliveryRow.state == DeliveryState.DELIVERED,
            DeliveryRow.destination == destination,
            DeliveryRow.commitment_ask_at <= now,
        )
        .order_by(DeliveryRow.commitment_ask_at, DeliveryRow.id)
    )


def _new_id(connection: Connection, values: dict[str, Any]) -> int:
    key = connection.execute(insert(CommitmentRow).values(values)).inserted_primary_key
    assert key is not None, "an insert of one row has a key"
    return int(key[0])


def note_acknowledged(database: Database, request: CommitmentRequest, wait_s: float) -> None:
    """Note that the destination took the request; without an answer in ``wait_s`` it is asked again."""
    now = time.time()
    with database.writing() as connection:
        mine = CommitmentRow.id == request.id
        connection.execute(update(CommitmentRow).where(mine).values(acknowledged_at=now))
        waiting = {"commitment_ask_at": now + wait_s, "commitment_error": None}
        connection.execute(_still_asked(request).values(waiting))


def note_not_asked(database: Database, request: CommitmentRequest, error: str, rules: DeliveryRules) -> None:
    """Note that the destination did not take the request, and when it is asked again."""
    with database.writing() as connection:
        of_these = select(CommitmentItemRow.delivery_id).where(CommitmentItemRow.commitment_id == request.id)
        most = select(func.max(DeliveryRow.commitment_asks)).where(DeliveryRow.id.in_(of_these))
        pause_s = rules.pause_s(connection.execute(most).scalar() or 1)
        later = {"commitment_ask_at": time.time() + pause_s, "commitment_error": error}
        connection.execute(_still_asked(request).values(later))


def _still_asked(request: CommitmentRequest) -> Any:
    """Update what is delivered and waits for this transaction; an answer may have come before."""
    items = select(CommitmentItemRow.delivery_id).where(
        CommitmentItemRow.commitment_id == request.id, CommitmentItemRow.sent_again.is_(False)
    )
    return update(DeliveryRow).where(
        DeliveryRow.id.in_(items),
        DeliveryRow.state == DeliveryState.DELIVERED,
        DeliveryRow.commitment_ask_at.is_not(None),
    )


def take_report(database: Database, report: CommitmentReport, ae_title: str, address: str) -> ReportTaken:
    """Keep what a peer says of a transaction that it was asked; `settle_reports` draws the conclusions.

    Args:
        ae_title: who says so. Another than was asked is told that there is no such transaction.
    """
    mine = select(CommitmentRow.id).where(
        CommitmentRow.transaction_uid == report.transaction_uid, CommitmentRow.ae_title == ae_title.strip()
    )
    with database.reading() as connection:
        commitment_id = connection.execute(mine).scalar()
    if commitment_id is None:
        return ReportTaken.UNKNOWN
    with database.writing() as connection:
        asked = _asked(connection, commitment_id)
        taken = ReportTaken.TAKEN if report.is_about(asked) else ReportTaken.DIFFERS
        said = select(CommitmentReportRow).where(CommitmentReportRow.commitment_id == commitment_id)
        before = [_report(report.transaction_uid, row) for row in connection.execute(said)]
        if report in before:
            return ReportTaken.KNOWN if taken is ReportTaken.TAKEN else taken
        if sum(one.is_about(asked) == (taken is ReportTaken.TAKEN) for one in before) >= _MOST_REPORTS:
            return ReportTaken.TOO_MANY
        values = {
            "commitment_id": commitment_id, "address": address, "received_at": time.time(),
            "committed": [[one.sop_class_uid, one.sop_instance_uid] for one in report.committed],
            "failed": [
                [one.reference.sop_class_uid, one.reference.sop_instance_uid, one.reason] for one in report.failed
            ],
        }  # fmt: skip
        connection.execute(insert(CommitmentReportRow).values(values))
    reach("commitment-answer-stored")
    return taken


def _asked(connection: Connection, commitment_id: int) -> list[ObjectReference]:
    items = select(CommitmentItemRow).where(CommitmentItemRow.commitment_id == commitment_id)
    return [ObjectReference(row.sop_class_uid, row.sop_instance_uid) for row in connection.execute(items)]


def _report(transaction_uid: str, row: Any) -> CommitmentReport:
    committed = tuple(ObjectReference(*one) for one in row.committed)
    failed = tuple(CommitmentFailure(ObjectReference(*one[:2]), one[2]) for one in row.failed)
    return CommitmentReport(transaction_uid, committed, failed)


def settle_reports(database: Database, destination: str, rules: DeliveryRules) -> list[SettledReport]:
    """Match the answers of a destination with what it was asked, each once."""
    unsettled = (
        select(CommitmentReportRow, CommitmentRow.transaction_uid)
        .join(CommitmentRow, CommitmentRow.id == CommitmentReportRow.commitment_id)
        .where(CommitmentReportRow.settled_at.is_(None), CommitmentRow.destination == destination)
        .order_by(CommitmentReportRow.id)
    )
    with database.reading() as connection:
        if connection.execute(unsettled.limit(1)).first() is None:
            return []
    with database.writing() as connection:
        return [_settle(connection, row, rules) for row in connection.execute(unsettled).all()]


def _settle(connection: Connection, row: Any, rules: DeliveryRules) -> SettledReport:
    now = time.time()
    mine = CommitmentReportRow.id == row.id
    connection.execute(update(CommitmentReportRow).where(mine).values(settled_at=now))
    report = _report(row.transaction_uid, row)
    if not report.is_about(_asked(connection, row.commitment_id)):
        why = ReportTaken.DIFFERS.value
        _delivered(connection, row.commitment_id, None, {"commitment_error": f"an answer does not count: {why}"})
        return SettledReport(row.commitment_id, 0, 0, 0, differs=True, why=why)
    answered = update(CommitmentRow).where(CommitmentRow.id == row.commitment_id).values(answered_at=now)
    connection.execute(answered)
    kept = {"state": DeliveryState.COMMITTED, "committed_at": now, "commitment_ask_at": None, "commitment_error": None}
    committed = _delivered(connection, row.commitment_id, report.committed, kept)
    states = [_fail(connection, row.commitment_id, failure, rules, now) for failure in report.failed]
    return SettledReport(
        row.commitment_id,
        committed,
        states.count(DeliveryState.PENDING),
        states.count(DeliveryState.DEAD),
        differs=False,
        why=", ".join(sorted({failure.why for failure in report.failed})),
    )


def _delivered(
    connection: Connection, commitment_id: int, references: Sequence[ObjectReference] | None, values: dict[str, Any]
) -> int:
    """Change deliveries of a transaction that were not sent again since; all of them where none is named."""
    items = select(CommitmentItemRow.delivery_id).where(
        CommitmentItemRow.commitment_id == commitment_id, CommitmentItemRow.sent_again.is_(False)
    )
    if references is not None:
        items = items.where(CommitmentItemRow.sop_instance_uid.in_([one.sop_instance_uid for one in references]))
    changed = update(DeliveryRow).where(DeliveryRow.id.in_(items), DeliveryRow.state == DeliveryState.DELIVERED)
    return connection.execute(changed.values(values)).rowcount


def _fail(
    connection: Connection, commitment_id: int, failure: CommitmentFailure, rules: DeliveryRules, now: float
) -> DeliveryState | None:
    """Send an object again that is not committed, some times; then it needs a person. None: that is out of date."""
    later = aliased(CommitmentItemRow)
    newer = exists().where(later.delivery_id == CommitmentItemRow.delivery_id, later.id > CommitmentItemRow.id)
    found = connection.execute(
        select(DeliveryRow.id, DeliveryRow.commitment_failures, DeliveryRow.revision)
        .add_columns(StudyRow.revision.label("current_revision"))
        .join(CommitmentItemRow, CommitmentItemRow.delivery_id == DeliveryRow.id)
        .join(StudyRow, StudyRow.id == DeliveryRow.study_id)
        .where(
            CommitmentItemRow.commitment_id == commitment_id,
            CommitmentItemRow.sop_instance_uid == failure.reference.sop_instance_uid,
            CommitmentItemRow.sent_again.is_(False),
            DeliveryRow.state == DeliveryState.DELIVERED,
            ~newer,
        )
    ).first()
    if found is None:
        return None
    failures = found.commitment_failures + 1
    if found.revision < found.current_revision:
        state = DeliveryState.SUPERSEDED
    else:
        state = DeliveryState.DEAD if failures >= rules.refused_tries else DeliveryState.PENDING
    values = {
        "state": state,
        "commitment_ask_at": None,
        "commitment_failures": failures,
        "commitment_error": None,
        "error": f"the destination does not commit to it: {failure.why}",
        "next_attempt_at": now + rules.pause_s(failures),
        "finished_at": None if state is DeliveryState.PENDING else now,
    }
    connection.execute(update(DeliveryRow).where(DeliveryRow.id == found.id).values(values))
    return state


def stop_asking(database: Database, asked: Collection[str]) -> int:
    """Ask nobody any more but these destinations; return how many objects stay delivered without a commitment."""
    given_up = (
        update(DeliveryRow)
        .where(
            DeliveryRow.state == DeliveryState.DELIVERED,
            DeliveryRow.commitment_ask_at.is_not(None),
            DeliveryRow.destination.not_in(asked),
        )
        .values(commitment_ask_at=None, commitment_error=None)
    )
    with database.writing() as connection:
        return connection.execute(given_up).rowcount


def overdue_commitments(connection: Connection, delivered_before: float) -> dict[str, int]:
    """Count by destination the objects that were delivered before a time and are not committed."""
    rows = connection.execute(
        select(DeliveryRow.destination, func.count())
        .where(
            and_(DeliveryRow.state == DeliveryState.DELIVERED, DeliveryRow.commitment_ask_at.is_not(None)),
            DeliveryRow.finished_at < delivered_before,
        )
        .group_by(DeliveryRow.destination)
    )
    return {row[0]: row[1] for row in rows}
