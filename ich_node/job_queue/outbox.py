"""The deliverer's side: claim what is to be sent, and note how it went."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import aliased

from ich_node.database import (
    CommitmentItemRow,
    Database,
    DeliveryRow,
    DestinationRow,
    ResultRow,
    StudyRow,
)
from ich_node.records import Delivery, DeliveryObject, DeliveryState, Destination, Triage

_SECONDS_A_DAY = 86400.0
_FREE: Final = {"lease_owner": None, "lease_expires_at": None}


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """How long to try, and how often."""

    first_retry_s: float = 5.0
    longest_retry_s: float = 600.0
    give_up_days: float = 7.0
    refused_tries: int = 5
    paused_retry_s: float = 60.0

    def pause_s(self, attempts: int) -> float:
        """Double the pause with every attempt; the jitter keeps many rows from coming back at once."""
        doubled = self.first_retry_s * 2.0 ** min(attempts - 1, 30)
        return float(min(doubled, self.longest_retry_s)) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, no secret


_POSITIVE = func.coalesce(StudyRow.triage == Triage.POSITIVE, False)
_WHAT_GOES_FIRST: Final = (
    StudyRow.old, StudyRow.priority.desc(), _POSITIVE.desc(), DeliveryRow.next_attempt_at, DeliveryRow.id
)  # fmt: skip


def claim_deliveries(
    database: Database,
    owner: str,
    state_directory: Path,
    *,
    lease_s: float,
    limit: int = 20,
    busy: Collection[str] = (),
) -> list[Delivery]:
    """Take the lease of the deliveries of one destination that are to be tried now, the oldest first.

    While another deliverer sends something of a study there, the rest of it waits: its revisions arrive in their order.

    Args:
        busy: names of destinations to leave alone, since an association with them is open.
    """
    now = time.time()
    with database.reading() as connection:
        due = _due_destinations(connection, owner, now, busy)
        claimable = _claimable(owner, now)
        any_of_them = claimable.where(DeliveryRow.destination.in_(due)).order_by(None).limit(1)
        if not due or connection.execute(any_of_them).first() is None:
            return []
    with database.writing() as connection:
        if len(due) > 1:  # the one that waits for what goes first
            first = connection.execute(claimable.where(DeliveryRow.destination.in_(due)).limit(1)).first()
            due = [first.destination] if first is not None else []
        ids = connection.execute(claimable.where(DeliveryRow.destination.in_(due)).limit(limit)).scalars().all()
        rows = connection.execute(_chosen(ids)).all()
        connection.execute(
            update(DeliveryRow)
            .where(DeliveryRow.id.in_(ids))
            .values(
                state=DeliveryState.SENDING,
                attempts=DeliveryRow.attempts + 1,
                lease_owner=owner,
                lease_expires_at=now + lease_s,
            )
        )
        return [_delivery(connection, row, state_directory) for row in rows]


def _due_destinations(connection: Connection, owner: str, now: float, busy: Collection[str]) -> list[str]:
    """List the destinations for which something may be claimed, by a few steps in an index.

    This is asked ten times a second. Ten thousands of rows may wait for one that is paused: none of them is read.
    """
    paused = set(connection.execute(select(DestinationRow.name).where(DestinationRow.next_attempt_at > now)).scalars())
    left_over = select(DeliveryRow.destination).where(
        DeliveryRow.state == DeliveryState.SENDING, _left_over(owner, now), DeliveryRow.next_attempt_at <= now
    )
    names = set(connection.execute(left_over).scalars())
    names |= {name for name in _destinations_with_pending(connection) if _has_due(connection, name, now)}
    return sorted(names - paused - set(busy))


def renew_deliveries(database: Database, owner: str, *, lease_s: float) -> None:
    """Renew the lease of everything that this deliverer is sending."""
    mine = update(DeliveryRow).where(DeliveryRow.lease_owner == owner)
    with database.writing() as connection:
        connection.execute(mine.values(lease_expires_at=time.time() + lease_s))


def _destinations_with_pending(connection: Connection) -> Iterator[str]:
    """Go from name to name: DISTINCT would read every row."""
    following = select(func.min(DeliveryRow.destination)).where(DeliveryRow.state == DeliveryState.PENDING)
    name = connection.execute(following).scalar()
    while name is not None:
        yield name
        name = connection.execute(following.where(DeliveryRow.destination > name)).scalar()


def _has_due(connection: Connection, name: str, now: float) -> bool:
    pending = (DeliveryRow.state == DeliveryState.PENDING, DeliveryRow.destination == name)
    due_at = connection.execute(select(func.min(DeliveryRow.next_attempt_at)).where(*pending)).scalar()
    return due_at is not None and due_at <= now


def _left_over(owner: str, now: float) -> ColumnElement[bool]:
    # who claims has no association with the destination: a lease of its own is left from when the database was locked
    return or_(DeliveryRow.lease_expires_at < now, DeliveryRow.lease_owner == owner)


def _is_sent_by_another(owner: str, now: float) -> ColumnElement[bool]:
    """Tell what of the same study another is sending there; a revision that was outrun on its way counts, too."""
    sending = aliased(DeliveryRow)
    return exists().where(
        sending.study_id == DeliveryRow.study_id, sending.destination == DeliveryRow.destination,
        sending.lease_owner != owner, sending.lease_expires_at >= now,
    )  # fmt: skip


def _claimable(owner: str, now: float) -> Any:
    free = or_(
        DeliveryRow.state == DeliveryState.PENDING,
        and_(DeliveryRow.state == DeliveryState.SENDING, _left_over(owner, now)),
    )
    return (
        select(DeliveryRow.id, DeliveryRow.destination)
        .join(StudyRow, StudyRow.id == DeliveryRow.study_id)
        .outerjoin(DestinationRow, DestinationRow.name == DeliveryRow.destination)
        .where(
            free,
            ~_is_sent_by_another(owner, now),
            DeliveryRow.next_attempt_at <= now,
            or_(DestinationRow.name.is_(None), DestinationRow.next_attempt_at <= now),
        )
        .order_by(*_WHAT_GOES_FIRST)
    )


def _chosen(ids: Sequence[int]) -> Any:
    """Read the few that are taken; sorting carries no more than it must."""
    return (
        select(DeliveryRow, StudyRow.study_instance_uid, _POSITIVE.label("urgent"))
        .join(StudyRow, StudyRow.id == DeliveryRow.study_id)
        .where(DeliveryRow.id.in_(ids))
        .order_by(*_WHAT_GOES_FIRST)
    )


def _delivery(connection: Connection, row: Any, state_directory: Path) -> Delivery:
    objects = connection.execute(
        select(ResultRow)
        .where(
            ResultRow.study_id == row.study_id,
            ResultRow.revision == row.revision,
            ResultRow.kind == row.kind,
            ResultRow.path.is_not(None),
        )
        .order_by(ResultRow.preference)
    ).all()
    return Delivery(
        id=row.id,
        study_id=row.study_id,
        study_instance_uid=row.study_instance_uid,
        revision=row.revision,
        kind=row.kind,
        destination=Destination(row.destination, row.ae_title, row.host, row.port),
        attempts=row.attempts + 1,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        objects=tuple(
            DeliveryObject(one.sop_class_uid, one.sop_instance_uid, state_directory / one.path, one.sha256)
            for one in objects
        ),
        urgent=bool(row.urgent),
    )


def is_still_ours(database: Database, delivery: Delivery, owner: str) -> bool:
    """Say whether a delivery that was claimed is still to be sent by us.

    After an outage another deliverer may have it; or a later revision has come, and it is let go.
    """
    ours = select(DeliveryRow.id).where(
        DeliveryRow.id == delivery.id, DeliveryRow.lease_owner == owner, DeliveryRow.state == DeliveryState.SENDING
    )
    with database.reading() as connection:
        if connection.execute(ours).first() is not None:
            return True
    with database.writing() as connection:
        _let_go(connection, delivery, owner)
    return False


def mark_delivered(
    database: Database,
    delivery: Delivery,
    owner: str,
    sop_instance_uid: str,
    dimse_status: int,
    warning: str = "",
    *,
    commitment: bool = False,
) -> None:
    """Note that the destination has the object, perhaps with a warning; its other rows may go out again.

    Args:
        commitment: the destination is to be asked to commit to it.
    """
    with database.writing() as connection:
        values = {
            "state": DeliveryState.DELIVERED,
            "dimse_status": dimse_status,
            "sop_instance_uid": sop_instance_uid,
            "error": warning or None,
            "finished_at": time.time(),
            "commitment_ask_at": time.time() if commitment else None,
            "commitment_error": None,
        }
        _finish(connection, delivery, owner, values)
        _end_pause(connection, delivery)
        asked_before = update(CommitmentItemRow).where(CommitmentItemRow.delivery_id == delivery.id)
        connection.execute(asked_before.values(sent_again=True))


def mark_unreached(
    database: Database,
    deliveries: Sequence[Delivery],
    owner: str,
    error: str,
    rules: DeliveryRules,
    dimse_status: int | None = None,
) -> list[DeliveryState]:
    """Note a failure that may pass, and when to try each again; DEAD after ``give_up_days``."""
    now = time.time()
    states = []
    with database.writing() as connection:
        for delivery in deliveries:
            dead = now - delivery.created_at.timestamp() > rules.give_up_days * _SECONDS_A_DAY
            states.append(DeliveryState.DEAD if dead else DeliveryState.PENDING)
            values = {
                "state": states[-1],
                "error": error,
                "dimse_status": dimse_status,
                "next_attempt_at": now + rules.pause_s(delivery.attempts),
                "finished_at": now if dead else None,
            }
            _finish(connection, delivery, owner, values)
            if dimse_status is not None:
                _end_pause(connection, delivery)
    return states


def hurry_deliveries(database: Database, destination: str) -> None:
    """Try at once what waits because a destination could not be reached: it answers again."""
    waits = (DeliveryRow.destination == destination, DeliveryRow.state == DeliveryState.PENDING)
    unanswered = DeliveryRow.dimse_status.is_(None)
    with database.writing() as connection:
        connection.execute(update(DeliveryRow).where(*waits, unanswered).values(next_attempt_at=time.time()))


def mark_refused(
    database: Database, delivery: Delivery, owner: str, error: str, dimse_status: int, rules: DeliveryRules
) -> DeliveryState:
    """Note a failure status that another try will hardly change; DEAD after ``refused_tries``."""
    now = time.time()
    with database.writing() as connection:
        refusals = (
            connection.execute(select(DeliveryRow.refusals).where(DeliveryRow.id == delivery.id)).scalar_one() + 1
        )
        state = DeliveryState.DEAD if refusals >= rules.refused_tries else DeliveryState.PENDING
        values = {
            "state": state,
            "refusals": refusals,
            "error": error,
            "dimse_status": dimse_status,
            "next_attempt_at": now + rules.pause_s(refusals),
            "finished_at": now if state == DeliveryState.DEAD else None,
        }
        _finish(connection, delivery, owner, values)
        _end_pause(connection, delivery)
    return state


def mark_lost(database: Database, delivery: Delivery, owner: str, error: str) -> None:
    """Note that there is nothing left to send: DEAD at once."""
    with database.writing() as connection:
        values = {"state": DeliveryState.DEAD, "error": error, "finished_at": time.time()}
        _finish(connection, delivery, owner, values)


def pause_destination(
    database: Database, deliveries: Sequence[Delivery], owner: str, error: str, rules: DeliveryRules
) -> bool:
    """Hold back all rows of a destination that wants no association of ours. True: it was not paused before."""
    now = time.time()
    name = deliveries[0].destination.name
    with database.writing() as connection:
        for delivery in deliveries:
            _finish(connection, delivery, owner, {"state": DeliveryState.PENDING, "error": error})
        values = {"next_attempt_at": now + rules.paused_retry_s, "error": error}
        if connection.execute(update(DestinationRow).where(DestinationRow.name == name).values(values)).rowcount:
            return False
        connection.execute(insert(DestinationRow).values(values | {"name": name, "paused_at": now}))
        return True


def mark_held(database: Database, delivery: Delivery, owner: str, why: str) -> None:
    """Keep an object back that the destination does not take; ``ich-node resend`` tries again."""
    with database.writing() as connection:
        _finish(connection, delivery, owner, {"state": DeliveryState.HELD, "error": why, "finished_at": time.time()})


def release_deliveries(database: Database, deliveries: Sequence[Delivery], owner: str) -> None:
    """Give back deliveries that were claimed and not tried."""
    with database.writing() as connection:
        for delivery in deliveries:
            _finish(connection, delivery, owner, {"state": DeliveryState.PENDING, "attempts": delivery.attempts - 1})


def _end_pause(connection: Connection, delivery: Delivery) -> None:
    """The destination answered a C-STORE, whatever it said: it takes our associations again."""
    connection.execute(delete(DestinationRow).where(DestinationRow.name == delivery.destination.name))


def _finish(connection: Connection, delivery: Delivery, owner: str, values: dict[str, Any]) -> None:
    mine = (
        DeliveryRow.id == delivery.id,
        DeliveryRow.lease_owner == owner,
        DeliveryRow.state == DeliveryState.SENDING,
    )
    connection.execute(update(DeliveryRow).where(*mine).values(values | _FREE))
    _let_go(connection, delivery, owner)


def _let_go(connection: Connection, delivery: Delivery, owner: str) -> None:
    """Free what is not to be sent any more: a later revision outran it while it was ours."""
    outrun = (DeliveryRow.id == delivery.id, DeliveryRow.lease_owner == owner)
    connection.execute(update(DeliveryRow).where(*outrun, DeliveryRow.state != DeliveryState.SENDING).values(_FREE))
