"""Tables, engine and migrations. Nothing outside this package, ``job_queue`` and ``queries`` speaks SQL."""

from ich_node.database.engine import Database, database_file, open_database
from ich_node.database.installation import Installation, read_installation
from ich_node.database.keeping_tables import (
    CommitmentItemRow,
    CommitmentReportRow,
    CommitmentRow,
    DeletionRow,
    FileToDeleteRow,
    LegalHoldRow,
)
from ich_node.database.migrate import check_integrity, prepare_database, settle_installation
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
    "Installation",
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
    "database_file",
    "open_database",
    "prepare_database",
    "read_installation",
    "settle_installation",
]
