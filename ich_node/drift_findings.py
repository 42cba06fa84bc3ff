"""What the newest look for drift found, for whoever tells of it and for whoever shows it."""

from __future__ import annotations

from sqlalchemy import Connection, select

from ich_node.database import DriftLookRow, DriftReferenceRow
from ich_node.records import DriftFinding


def findings_that_hold(connection: Connection) -> list[DriftFinding]:
    """Give what the last look found, but for groups that have got another reference since."""
    newest = select(DriftLookRow.looked_at, DriftLookRow.found).order_by(DriftLookRow.id.desc()).limit(1)
    look = connection.execute(newest).first()
    if look is None or not look.found:
        return []
    since = select(DriftReferenceRow).where(DriftReferenceRow.set_at > look.looked_at)
    renewed = {(row.station_name, row.convolution_kernel) for row in connection.execute(since).all()}
    found = [DriftFinding(**one) for one in look.found]
    return [one for one in found if (one.station_name, one.convolution_kernel) not in renewed]
