"""What people and programs ask of the database."""

from ich_node.queries.happenings import REPLACED, STEPS, Happenings, Mark, happenings_since
from ich_node.queries.health import is_readable, is_writable
from ich_node.queries.lists import (
    LIST_PAGE,
    Listed,
    ListedAlert,
    ListedDelivery,
    ListedSeries,
    list_alerts,
    list_deliveries,
    list_series,
)
from ich_node.queries.measures import NO_ANSWER, NodeMeasures, measure_node
from ich_node.queries.operation import NodeOperation, node_operation
from ich_node.queries.self_tests import last_self_test, newest_self_tests, self_test_of
from ich_node.queries.states import AlertStatus, DeletionStatus, DeliveryStatus, SeriesStatus, StudyStatus
from ich_node.queries.status import NodeStatus, node_status, study_status
from ich_node.queries.worklist import (
    LONGEST_SEARCH,
    PAGE,
    Order,
    Shown,
    Waiting,
    WorklistPage,
    WorklistQuery,
    WorklistStudy,
    what_waits,
    worklist,
    worklist_line,
)

__all__ = [
    "LIST_PAGE",
    "LONGEST_SEARCH",
    "NO_ANSWER",
    "PAGE",
    "REPLACED",
    "STEPS",
    "AlertStatus",
    "DeletionStatus",
    "DeliveryStatus",
    "Happenings",
    "Listed",
    "ListedAlert",
    "ListedDelivery",
    "ListedSeries",
    "Mark",
    "NodeMeasures",
    "NodeOperation",
    "NodeStatus",
    "Order",
    "SeriesStatus",
    "Shown",
    "StudyStatus",
    "Waiting",
    "WorklistPage",
    "WorklistQuery",
    "WorklistStudy",
    "happenings_since",
    "is_readable",
    "is_writable",
    "last_self_test",
    "list_alerts",
    "list_deliveries",
    "list_series",
    "measure_node",
    "newest_self_tests",
    "node_operation",
    "node_status",
    "self_test_of",
    "study_status",
    "what_waits",
    "worklist",
    "worklist_line",
]
