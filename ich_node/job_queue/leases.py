"""Who works on what. An owner names its host and process, so that leases of the dead are free at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sqlalchemy import delete, select, update

from ich_node.database import AlertRow, Database, DeliveryRow, OpenAssociationRow, SeriesRow, TurnRow
from ich_node.records import AlertState, DeliveryState


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
        owners |= set(connection.execute(select(AlertRow.lease_owner).distinct()).scalars())
        owners |= set(connection.execute(select(OpenAssociationRow.lease_owner).distinct()).scalars())
        owners |= set(connection.execute(select(TurnRow.owner)).scalars())
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
        outrun = update(DeliveryRow).where(DeliveryRow.lease_owner.in_(dead))
        connection.execute(outrun.values(lease_owner=None, lease_expires_at=None))
        alerts = connection.execute(
            update(AlertRow)
            .where(AlertRow.lease_owner.in_(dead), AlertRow.state == AlertState.SENDING)
            .values(lease_owner=None, lease_expires_at=None, state=AlertState.PENDING)
        )
        connection.execute(delete(OpenAssociationRow).where(OpenAssociationRow.lease_owner.in_(dead)))
        connection.execute(delete(TurnRow).where(TurnRow.owner.in_(dead)))
        return series.rowcount + deliveries.rowcount + alerts.rowcount


def _is_dead(owner: str) -> bool:
    """Tell whether a process of this host is gone. In doubt it lives: then its lease runs out."""
    host, number, began = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's: the number was given to another process, or the owner was
        pass
    return _began(int(number)) not in (began, None)


def _began(number: int) -> str | None:
    """When a process began, in clock ticks since the boot (proc(5), stat, field 22): no change of the clock alters it.

    None where it cannot be seen: systemd's ``ProtectProc=`` with ``PrivateUsers=`` hides units from one another.
    """
    try:
        stat = Path(f"/proc/{number}/stat").read_text(errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]
