"""The queue in the database: enqueue, claim, checkpoint, finish. Every function is one short transaction."""

from ich_node.job_queue.checkpoints import (
    WhyUnreadable,
    mark_unreadable,
    save_planes,
    save_read,
    waiting_instances,
)
from ich_node.job_queue.cleaning import (
    known_paths,
    known_reports,
    quiet_studies,
    rescue_expired_leases,
)
from ich_node.job_queue.clock import LongestWaits, watch_clock
from ich_node.job_queue.content import SeriesPlan, load_content, load_plan
from ich_node.job_queue.counts import SeriesQuestion, note_asked, note_count, series_to_ask
from ich_node.job_queue.findings import finding_from_json, finding_to_json
from ich_node.job_queue.leases import free_leases_of_the_dead, new_owner
from ich_node.job_queue.outbox import (
    DeliveryRules,
    claim_deliveries,
    hurry_deliveries,
    is_still_ours,
    mark_delivered,
    mark_held,
    mark_lost,
    mark_refused,
    mark_unreached,
    pause_destination,
    release_deliveries,
    renew_deliveries,
)
from ich_node.job_queue.quarantine import (
    quarantine_series,
    reject_instances,
    reject_quarantined,
    release_quarantined,
)
from ich_node.job_queue.reception import (
    Entered,
    SendingAssociation,
    forget_association,
    is_forgotten,
    look_up,
    register_instance,
    rehearse,
    release_association,
)
from ich_node.job_queue.requeue import analyse_again, requeue
from ich_node.job_queue.resend import resend
from ich_node.job_queue.results import Conclusion, ReportPlan, SavedObject, conclude_series, plan_report
from ich_node.job_queue.series_finding import SavedFinding, load_finding
from ich_node.job_queue.studies import (
    StudyToTell,
    report_not_analysed,
    studies_to_withdraw,
    unreported_studies,
    withdraw_study,
)
from ich_node.job_queue.turns import Turn
from ich_node.job_queue.work import (
    claim_series,
    close_series,
    fail_attempt,
    give_back,
    let_others_go_first,
    postpone,
    release_lease,
)

__all__ = [
    "Conclusion",
    "DeliveryRules",
    "Entered",
    "LongestWaits",
    "ReportPlan",
    "SavedFinding",
    "SavedObject",
    "SendingAssociation",
    "SeriesPlan",
    "SeriesQuestion",
    "StudyToTell",
    "Turn",
    "WhyUnreadable",
    "analyse_again",
    "claim_deliveries",
    "claim_series",
    "close_series",
    "conclude_series",
    "fail_attempt",
    "finding_from_json",
    "finding_to_json",
    "forget_association",
    "free_leases_of_the_dead",
    "give_back",
    "hurry_deliveries",
    "is_forgotten",
    "is_still_ours",
    "known_paths",
    "known_reports",
    "let_others_go_first",
    "load_content",
    "load_finding",
    "load_plan",
    "look_up",
    "mark_delivered",
    "mark_held",
    "mark_lost",
    "mark_refused",
    "mark_unreached",
    "mark_unreadable",
    "new_owner",
    "note_asked",
    "note_count",
    "pause_destination",
    "plan_report",
    "postpone",
    "quarantine_series",
    "quiet_studies",
    "register_instance",
    "rehearse",
    "reject_instances",
    "reject_quarantined",
    "release_association",
    "release_deliveries",
    "release_lease",
    "release_quarantined",
    "renew_deliveries",
    "report_not_analysed",
    "requeue",
    "rescue_expired_leases",
    "resend",
    "save_planes",
    "save_read",
    "series_to_ask",
    "studies_to_withdraw",
    "unreported_studies",
    "waiting_instances",
    "watch_clock",
    "withdraw_study",
]
