"""Steps of the clock: due times, leases and pauses are wall-clock times, and move with it when it is set.

The time since the boot runs on whatever is done to the clock (clock_gettime(2), CLOCK_BOOTTIME). Where the difference
between the two changes by more than a slewing clock ever would, the clock was set: what waits is then shifted by as
much, once, by whichever process of the node sees it first. So a clock that is set back holds nothing up, and one that
is set forward closes no series early, takes no lease from its holder, and deletes nothing before its days. How the
clock stood is written in the same transaction: wherever that is cut, no step moves anything twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock
from sqlalchemy import Connection, and_, delete, func, insert, select, text, update

from ich_node.database import (
    AccountRow,
    AlertRow,
    ClockRow,
    ConditionRow,
    Database,
    DeliveryRow,
    DestinationRow,
    DriftLookRow,
    DriftReferenceRow,
    InstanceRow,
    ModelChoiceRow,
    OpenAssociationRow,
    ResultRow,
    SelfTestRow,
    SeriesMeasureRow,
    SeriesRow,
    SessionRow,
    StudyRow,
    TurnRow,
)
from ich_node.database.tables import AWAITED
from ich_node.records import OPEN_SERIES, AlertState, DeliveryState, InstanceState
from ich_node.service import boot_id

STEP_S: Final = 2.0
"""Less is a leap second, or a clock that is being slewed."""
_UNKNOWN: Final = "unknown"
_RECENT_S: Final = 86400.0
_JITTER: Final = 1.2
_LONGEST_LOCK_S: Final = 3600.0
"""Of an account, as `accounts` locks it."""
_UNSENT: Final = (DeliveryState.PENDING, DeliveryState.SENDING)
_UNTOLD: Final = (AlertState.PENDING, AlertState.WAITING, AlertState.SENDING)


@dataclass(frozen=True, slots=True)
class LongestWaits:
    """How long anything waits, as configured; a time further ahead was written by a clock that was wrong."""

    series_s: float
    retry_s: float
    lease_s: float = 900.0
    commitment_s: float = 86400.0


class ClockWatch:
    """Looks at the clock before every transaction of one process; see the module."""

    def __init__(self, database: Database, state_directory: Path, on_step: Callable[[float], None]) -> None:
        self._database = database
        self._on_step = on_step
        self._turn = FileLock(state_directory / "clock.lock")
        self._lock = threading.Lock()
        self._settling: int | None = None
        """Thread that shifts: its own transactions are looked at no further."""
        self._offset_s = self._settle()

    def look(self) -> None:
        """Shift what waits where the clock was set since the last look.

        Raises:
            StorageUnavailable: nothing can be written now; the next look tries again.
        """
        if abs(_offset_s() - self._offset_s) < STEP_S or self._settling == threading.get_ident():
            return
        with self._lock:  # other threads wait: what they would read is not shifted yet
            step_s = _offset_s() - self._offset_s
            if abs(step_s) < STEP_S:
                return
            self._settling = threading.get_ident()
            try:
                self._offset_s = self._settle()
            finally:
                self._settling = None
        self._on_step(step_s)

    def _settle(self) -> float:
        """Shift what waits, unless another process did, and note how the clock stands; return the offset."""
        with self._turn:
            offset_s, boot = _offset_s(), _boot()
            with self._database.reading() as connection:
                known = connection.execute(select(ClockRow)).first()
            same_boot = known is not None and known.boot == boot != _UNKNOWN
            step_s: float | None = offset_s - known.offset_s if known is not None and same_boot else None
            if step_s is not None and abs(step_s) < STEP_S:
                return offset_s - step_s
            with self._database.writing() as connection:
                if step_s is not None:
                    shift_times(connection, step_s)
                connection.execute(delete(ClockRow))
                connection.execute(insert(ClockRow).values(boot=boot, offset_s=offset_s))
            return offset_s


def watch_clock(
    database: Database, state_directory: Path, waits: LongestWaits, on_step: Callable[[float], None]
) -> None:
    """See from now on, before every transaction, whether the clock was set; and mend what a wrong clock left behind.

    Args:
        on_step: called with the step in seconds, in whichever thread saw it.
    """
    watch = ClockWatch(database, state_directory, on_step)
    _bring_near(database, waits)
    database.before_transaction = watch.look


def shift_times(connection: Connection, step_s: float) -> None:
    """Move all that is waited for, and all that retention counts from, by a step of the clock."""
    _shift_series(connection, step_s)
    _shift_outbox(connection, step_s)
    _shift_alerts(connection, step_s)
    connection.execute(update(ConditionRow).values(since=ConditionRow.since + step_s))
    _shift(connection, AccountRow, AccountRow.locked_until.is_not(None), step_s, "locked_until")
    _shift(connection, SessionRow, None, step_s, "created_at", "seen_at")
    _shift_drift(connection, step_s)
    _shift(connection, SelfTestRow, None, step_s, "asked_at", "started_at", "finished_at")
    _shift(connection, ModelChoiceRow, None, step_s, "chosen_at", "settled_at")
    _shift(connection, TurnRow, None, step_s, "expires_at")


def _shift_series(connection: Connection, step_s: float) -> None:
    opened = select(SeriesRow.id).where(SeriesRow.state.in_(OPEN_SERIES))
    waiting = and_(InstanceRow.series_id.in_(opened), InstanceRow.state == InstanceState.RECEIVED)
    _shift(connection, InstanceRow, waiting, step_s, "received_at")
    open_times = ("due_at", "asked_at", "counted_at", "closed_at")
    _shift(connection, SeriesRow, SeriesRow.state.in_(OPEN_SERIES), step_s, *open_times)
    _shift(connection, SeriesRow, SeriesRow.not_before > 0.0, step_s, "not_before")
    _shift(connection, SeriesRow, SeriesRow.lease_owner.is_not(None), step_s, "lease_expires_at")
    stored = SeriesRow.images_deleted_at.is_(None)
    _shift(connection, SeriesRow, stored, step_s, "first_received_at", "last_received_at")
    _shift(connection, OpenAssociationRow, None, step_s, "lease_expires_at")
    asked = StudyRow.history_asked_at > time.time() - step_s - _RECENT_S
    _shift(connection, StudyRow, asked, step_s, "history_asked_at")


def _shift_outbox(connection: Connection, step_s: float) -> None:
    _shift(connection, ResultRow, ResultRow.path.is_not(None), step_s, "created_at")
    unsent = DeliveryRow.state.in_(_UNSENT)
    _shift(connection, DeliveryRow, unsent, step_s, "next_attempt_at", "created_at", "lease_expires_at")
    ended = DeliveryRow.finished_at > time.time() - step_s - _RECENT_S
    _shift(connection, DeliveryRow, ended, step_s, "finished_at")
    _shift(connection, DeliveryRow, DeliveryRow.commitment_ask_at.is_not(None), step_s, "commitment_ask_at")
    _shift(connection, DestinationRow, None, step_s, "paused_at", "next_attempt_at")


def _shift_alerts(connection: Connection, step_s: float) -> None:
    untold = AlertRow.state.in_(_UNTOLD)
    _shift(connection, AlertRow, untold, step_s, "next_attempt_at", "created_at", "lease_expires_at")
    _shift(connection, AlertRow, text(AWAITED), step_s, "sent_at")


def _shift_drift(connection: Connection, step_s: float) -> None:
    """Move all that ages: what was measured stays as old as it is, and no day is looked at twice."""
    _shift(connection, SeriesMeasureRow, None, step_s, "measured_at")
    _shift(connection, DriftReferenceRow, DriftReferenceRow.since > 0.0, step_s, "since", "until", "set_at")
    _shift(connection, DriftLookRow, None, step_s, "looked_at")


def _shift(connection: Connection, table: Any, where: Any, step_s: float, *columns: str) -> None:
    moved = {name: getattr(table, name) + step_s for name in columns}  # where there is no time, none comes of it
    statement = update(table).values(moved)
    connection.execute(statement if where is None else statement.where(where))


def _bring_near(database: Database, waits: LongestWaits) -> None:
    """Bring times nearer that no clock that is right now could have written: it was wrong before the last boot."""
    now = time.time()
    retry_at, lease_until = now + waits.retry_s * _JITTER, now + waits.lease_s
    nearest: list[tuple[Any, str, float]] = [
        (SeriesRow, "due_at", now + waits.series_s), (SeriesRow, "last_received_at", now),
        (SeriesRow, "not_before", now + waits.series_s), (SeriesRow, "lease_expires_at", lease_until),
        (OpenAssociationRow, "lease_expires_at", lease_until), (TurnRow, "expires_at", lease_until),
        (DeliveryRow, "next_attempt_at", retry_at), (DeliveryRow, "lease_expires_at", lease_until),
        (DeliveryRow, "commitment_ask_at", now + waits.commitment_s),
        (DestinationRow, "next_attempt_at", retry_at), (AlertRow, "lease_expires_at", lease_until),
        (AccountRow, "locked_until", now + _LONGEST_LOCK_S),
        (SessionRow, "created_at", now), (SessionRow, "seen_at", now),
        (SeriesMeasureRow, "measured_at", now), (DriftLookRow, "looked_at", now),
        (DriftReferenceRow, "since", now), (DriftReferenceRow, "until", now), (DriftReferenceRow, "set_at", now),
        (SelfTestRow, "finished_at", now), (ModelChoiceRow, "chosen_at", now), (ModelChoiceRow, "settled_at", now),
    ]  # fmt: skip
    with database.reading() as connection:
        far = [
            (table, name, at)
            for table, name, at in nearest
            if connection.execute(select(func.count()).where(getattr(table, name) > at)).scalar_one()
        ]
    if not far:
        return
    with database.writing() as connection:
        for table, name, at in far:
            connection.execute(update(table).where(getattr(table, name) > at).values({name: at}))


def _offset_s() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    return boot_id() or _UNKNOWN  # no step can be told from a new boot then, and nothing is shifted
