"""Tables, engine and migrations. Nothing outside this package, ``job_queue`` and ``queries`` speaks SQL."""

from ich_node.database.engine import Database, open_database
from ich_node.database.keeping_tables import (
    CommitmentItemRow,
    CommitmentReportRow,
    CommitmentRow,
    DeletionRow,
    FileToDeleteRow,
    LegalHoldRow,
)
from ich_node.database.migrate import check_integrity, prepare_database
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

__all__ = [
    "AlertRow",
    "Base",
    "CommitmentItemRow",
    "CommitmentReportRow",
    "CommitmentRow",
    "ConditionRow",
    "Database",
    "DeletionRow",
    "DeliveryRow",
    "DestinationRow",
    "FileToDeleteRow",
    "InstallationRow",
    "InstanceRow",
    "LegalHoldRow",
    "OpenAssociationRow",
    "PlaneRow",
    "RejectionRow",
    "ResultRow",
    "SeriesRow",
    "StudyRow",
    "check_integrity",
    "open_database",
    "prepare_database",
]
