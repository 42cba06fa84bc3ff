"""Files that no row speaks of any more leave the disk; the audit trail says first what they were."""

from __future__ import annotations

from pathlib import Path

from ich_node.audit import AuditTrail
from ich_node.database import Database
from ich_node.job_queue.retention import files_to_delete, note_deleted
from ich_node.log import EventLog
from ich_node.saved_maps import maps_beside

log = EventLog("housekeeping")


def unlink_forgotten(state_directory: Path, database: Database, trail: AuditTrail) -> int:
    """Unlink what is listed, and take it off the list; return how many files went."""
    count = 0
    while paths := files_to_delete(database):
        images = [path for path in paths if path.startswith("spool/")]
        results = [path for path in paths if path not in images]
        for some, are_images in ((images, True), (results, False)):
            trail.files_deleted([state_directory / path for path in some], images=are_images)
        gone = [path for path in paths if _unlink(state_directory / path)]
        note_deleted(database, gone)
        count += len(gone)
        if len(gone) < len(paths):  # they stay on the list, and are tried again
            break
    return count


def size_of(path: Path) -> int:
    """Give the bytes of a file, with the maps beside it; 0 where it is gone."""
    return sum(one.stat().st_size for one in (path, maps_beside(path)) if one.exists())


def _unlink(path: Path) -> bool:
    """Unlink a file, and first the maps beside it: a kill between leaves it on the list."""
    try:
        if path.parent.name == "results":
            maps_beside(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError as error:
        log.error("a file that is to go cannot be deleted; it is tried again", error, errno=error.errno)
        return False
    return True
