"""Files that no row speaks of any more are deleted; the audit trail says first what they were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ich_node.audit import AuditTrail
from ich_node.database import Database
from ich_node.errors import StorageUnavailable
from ich_node.job_queue.retention import files_to_delete, note_deleted
from ich_node.log import EventLog
from ich_node.saved_maps import maps_beside
from ich_node.stored_files import StoredFiles

log = EventLog("housekeeping")


def unlink_forgotten(files: StoredFiles, database: Database, trail: AuditTrail) -> int:
    """Delete what is listed, and take it off the list; return how many files went."""
    count = 0
    while names := files_to_delete(database):
        gone = [name for name in names if _delete(files, name)] if _recorded(files, names, trail) else []
        note_deleted(database, gone)
        count += len(gone)
        if len(gone) < len(names):  # they stay on the list, and are tried again
            break
    return count


def _recorded(files: StoredFiles, names: Sequence[str], trail: AuditTrail) -> bool:
    """Record what is about to be deleted; False where that cannot be read now."""
    images = [name for name in names if name.startswith("spool/")]
    results = [name for name in names if name not in images]
    try:
        for some, are_images in ((images, True), (results, False)):
            trail.files_deleted(files.paths(some), images=are_images)
    except StorageUnavailable as error:
        log.error("a file that is to go cannot be deleted; it is tried again", error, errno=None)
        return False
    return True


def size_of(files: StoredFiles, name: str) -> int:
    """Give the bytes of a file, with the maps beside it; 0 where it is gone."""
    return files.size(name) + files.size(_maps_of(name))


def _delete(files: StoredFiles, name: str) -> bool:
    """Delete a file, and first the maps beside it: a kill between leaves it on the list."""
    try:
        if name.startswith("results/"):
            files.delete(_maps_of(name))
        files.delete(name)
    except (OSError, StorageUnavailable) as error:
        number = getattr(error, "errno", None)
        log.error("a file that is to go cannot be deleted; it is tried again", error, errno=number)
        return False
    return True


def _maps_of(name: str) -> str:
    return str(maps_beside(Path(name)))
