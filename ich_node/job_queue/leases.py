"""Who works on what. An owner names its host and process, so that leases of the dead are free at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sqlalchemy import select, update

from ich_node.database import Database, DeliveryRow, SeriesRow
from ich_node.records import DeliveryState


def new_owner() -> str:
    """Name this process: host, process number and when it began, so that a reused number is told apart."""
    return f"{socket.gethostname()}:{os.getpid()}:{_began(os.getpid())}"


def free_leases_of_the_dead(database: Database) -> int:
    """Free the leases of processes of this host that no longer run; return how many.

    The attempt stays counted, so a job that kills its worker ends FAILED instead of looping.
    """
    with database.reading() as connection:
        owners = set(connection.execute(select(SeriesRow.lease_owner).distinct()).scalars())
        owners |= set(connection.execute(select(DeliveryRow.lease_owner).distinct()).scalars())
    dead = [owner for owner in owners if owner is not None and _is_dead(owner)]
    if not dead:
        return 0
    with database.writing() as connection:
        series = connection.execute(
            update(SeriesRow)
            .where(SeriesRow.lease_owner.in_(dead))
            .values(lease_owner=None, lease_expires_at=None, attempts=SeriesRow.attempts + 1)
        )
        deliveries = connection.execute(
            update(DeliveryRow)
            .where(DeliveryRow.lease_owner.in_(dead), DeliveryRow.state == DeliveryState.SENDING)
            .values(lease_owner=None, lease_expires_at=None, state=DeliveryState.PENDING)
        )
        return series.rowcount + deliveries.rowcount


def _is_dead(owner: str) -> bool:
    host, number, began = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return _began(int(number)) != began
    except (FileNotFoundError, ProcessLookupError):
        return True


def _began(process: int) -> str:
    """When a process began, in clock ticks since the machine started: setting the clock does not move it (proc(5))."""
    after_name = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2]
    return after_name.split()[19]
