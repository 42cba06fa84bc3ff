"""What is of patients: the node's own test lies in the same tables for a minute, and is to count nowhere.

Its rows go, and SQLite gives their numbers to the rows that come next. So whoever remembers up to which number they
have looked must have looked at rows of patients alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, select, text

from ich_node.database.tables import SELF_TEST, SeriesRow, StudyRow
from ich_node.records.self_tests import SELF_TEST_AE_TITLE


def series_of_patients() -> ColumnElement[bool]:
    """Tell the series of patients from those that the node sent to itself."""
    return SeriesRow.calling_ae_title != SELF_TEST_AE_TITLE


def studies_of_patients() -> ColumnElement[bool]:
    """Tell the studies of patients from those that the node sent to itself."""
    return StudyRow.self_test.is_(False)


def self_test_studies(connection: Connection) -> Sequence[int]:
    """Give the numbers of the studies that are no patient's: mostly none, seldom more than one."""
    return connection.execute(select(StudyRow.id).where(text(SELF_TEST))).scalars().all()


def newest_of_patients(connection: Connection, key: Any, wanted: Select[Any]) -> int:
    """Give the highest number that some rows of patients have; 0 where there is none.

    Args:
        key: the column of the number.
        wanted: selects it of these rows.
    """
    return connection.execute(wanted.order_by(key.desc()).limit(1)).scalar() or 0
