"""The queue in the database: enqueue, claim, checkpoint, finish. Every function is one short transaction."""

from ich_node.job_queue.cleaning import (
    StoredFile,
    expired_images,
    expired_results,
    forget_files,
    forget_results,
    known_paths,
    quiet_studies,
    rescue_expired_leases,
)
from ich_node.job_queue.leases import free_leases_of_the_dead, new_owner
from ich_node.job_queue.outbox import (
    DeliveryRules,
    claim_deliveries,
    mark_delivered,
    mark_refused,
    mark_unreached,
    pause_destination,
    release_deliveries,
    resend,
)
from ich_node.job_queue.reception import look_up, register_instance, release_series
from ich_node.job_queue.requeue import requeue
from ich_node.job_queue.results import (
    Conclusion,
    SavedObject,
    UnreportedStudy,
    conclude_series,
    next_revision,
    report_not_analysed,
    unreported_studies,
)
from ich_node.job_queue.work import (
    claim_series,
    close_series,
    fail_attempt,
    load_content,
    postpone,
    release_lease,
    save_scores,
    waiting_instances,
)

__all__ = [
    "Conclusion",
    "DeliveryRules",
    "SavedObject",
    "StoredFile",
    "UnreportedStudy",
    "claim_deliveries",
    "claim_series",
    "close_series",
    "conclude_series",
    "expired_images",
    "expired_results",
    "fail_attempt",
    "forget_files",
    "forget_results",
    "free_leases_of_the_dead",
    "known_paths",
    "load_content",
    "look_up",
    "mark_delivered",
    "mark_refused",
    "mark_unreached",
    "new_owner",
    "next_revision",
    "pause_destination",
    "postpone",
    "quiet_studies",
    "register_instance",
    "release_deliveries",
    "release_lease",
    "release_series",
    "report_not_analysed",
    "requeue",
    "rescue_expired_leases",
    "resend",
    "save_scores",
    "unreported_studies",
    "waiting_instances",
]
