"""What an operator does to the node, by a command or by a page: the same in both."""

from __future__ import annotations

from typing import Final

from ich_node.audit import AuditTrail
from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import IchNodeError
from ich_node.forgotten_files import size_of, unlink_forgotten
from ich_node.job_queue import resend
from ich_node.job_queue.deleting import StudyDeletion, forget_study
from ich_node.job_queue.legal_holds import lift_hold, place_hold, save_holds
from ich_node.log import EventLog
from ich_node.records import Destination, StudySent
from ich_node.routing import destinations_for
from ich_node.stored_files import stored_files

_LONGEST_RULE: Final = 300

log = EventLog("operating")


def resend_results(
    config: Config, database: Database, *, study_instance_uid: str | None = None, dead_only: bool = False,
    destination: str | None = None, delivery_id: int | None = None,
) -> int:  # fmt: skip
    """Send current results again, and to destinations that were added since; return how many deliveries.

    Args:
        study_instance_uid: of one study only.
        dead_only: only what is DEAD.
        destination: to one destination only.
        delivery_id: this delivery only.
    """

    def places(study: StudySent) -> list[Destination]:
        return [one for one in destinations_for(config, study) if destination in (None, one.name)]

    return resend(
        database, places, study_instance_uid=study_instance_uid, dead_only=dead_only, destination=destination,
        delivery_id=delivery_id,
    )  # fmt: skip


def hold_study(config: Config, database: Database, study_instance_uid: str, reason: str, by: str) -> bool:
    """Hold a study, here and beside the database. False: there is no such study, or it is held already."""
    placed = place_hold(database, study_instance_uid, reason, by)
    if placed:
        _save_holds(config, database)
    return placed


def lift_study(config: Config, database: Database, study_instance_uid: str, by: str) -> bool:
    """Lift the hold of a study, here and beside the database. False: it is not held."""
    lifted = lift_hold(database, study_instance_uid, by)
    if lifted:
        _save_holds(config, database)
    return lifted


def _save_holds(config: Config, database: Database) -> None:
    """Write the holds beside the database. Where that fails the deed is done all the same, and is recorded."""
    try:
        save_holds(database, config.state_directory)
    except (IchNodeError, OSError) as error:
        log.error("the holds are not beside the database yet; housekeeping writes them", error)


def delete_study(
    config: Config, database: Database, trail: AuditTrail, study_instance_uid: str, by: str, reason: str, *,
    address: str, confirmed: bool,
) -> StudyDeletion:  # fmt: skip
    """Delete images and results of one study, unless it is held. It is recorded before the files go.

    Args:
        address: from where somebody says so.
        confirmed: what is open or undelivered may go, too.
    """
    files = stored_files(config)
    rule = f"by {by}: {reason}"[:_LONGEST_RULE]
    done = forget_study(database, study_instance_uid, rule, lambda name: size_of(files, name), confirmed=confirmed)
    if done.gone:
        trail.operated(by, address, "delete", [study_instance_uid], Files=str(done.files), Reason=reason)
        unlink_forgotten(files, database, trail)
    return done
