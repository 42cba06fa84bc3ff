"""Tables, engine and migrations. Few speak SQL outside: ``job_queue``, ``queries``, ``viewable``, ``accounts``."""

from ich_node.database.changes import ChangeWatch, Looks
from ich_node.database.engine import Database, database_file, open_database
from ich_node.database.installation import Installation, note_installation, read_installation
from ich_node.database.keeping_tables import (
    ClockRow,
    CommitmentItemRow,
    CommitmentReportRow,
    CommitmentRow,
    DeletionRow,
    FileToDeleteRow,
    LegalHoldRow,
    TurnRow,
)
from ich_node.database.many_values import is_one_of
from ich_node.database.migrate import check_integrity, prepare_database, settle_installation
from ich_node.database.new_row import new_id
from ich_node.database.prepared import Prepared
from ich_node.database.tables import (
    AlertRow,
    Base,
    ConditionRow,
    DeliveryRow,
    DestinationRow,
    InstallationRow,
    InstanceRow,
    OpenAssociationRow,
    PlaneRow,
    RejectionRow,
    ResultRow,
    SeriesRow,
    StudyRow,
)
from ich_node.database.watching_tables import (
    DriftLookRow,
    DriftReferenceRow,
    ModelChoiceRow,
    SecondOpinionRow,
    SelfTestRow,
    SeriesMeasureRow,
    WorkerRow,
)
from ich_node.database.web_tables import AccountRow, ApiTokenRow, FeedbackRow, SessionRow

__all__ = [
    "AccountRow",
    "AlertRow",
    "ApiTokenRow",
    "Base",
    "ChangeWatch",
    "ClockRow",
    "CommitmentItemRow",
    "CommitmentReportRow",
    "CommitmentRow",
    "ConditionRow",
    "Database",
    "DeletionRow",
    "DeliveryRow",
    "DestinationRow",
    "DriftLookRow",
    "DriftReferenceRow",
    "FeedbackRow",
    "FileToDeleteRow",
    "Installation",
    "InstallationRow",
    "InstanceRow",
    "LegalHoldRow",
    "Looks",
    "ModelChoiceRow",
    "OpenAssociationRow",
    "PlaneRow",
    "Prepared",
    "RejectionRow",
    "ResultRow",
    "SecondOpinionRow",
    "SelfTestRow",
    "SeriesMeasureRow",
    "SeriesRow",
    "SessionRow",
    "StudyRow",
    "TurnRow",
    "WorkerRow",
    "check_integrity",
    "database_file",
    "is_one_of",
    "new_id",
    "note_installation",
    "open_database",
    "prepare_database",
    "read_installation",
    "settle_installation",
]
