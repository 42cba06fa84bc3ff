"""The study of a self-test goes, whatever became of it: rows of every table, and the files they speak of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, or_, select, update

from ich_node.database import Base, Database, InstanceRow, ResultRow, SelfTestRow, SeriesRow, StudyRow
from ich_node.job_queue.retention import LIST_FILE

_ENDED: Final = SelfTestRow.finished_at.is_not(None)


def forget_self_test_studies(database: Database) -> list[int]:
    """Forget the studies of tests that have ended and list their files in `files_to_delete`; return which tests.

    They are to be noted by `note_cleaned` once the files are gone: a kill between leaves them to the next look.
    """
    with database.reading() as connection:
        ended = select(SelfTestRow.id).where(_ENDED, ~SelfTestRow.cleaned)
        tests = list(connection.execute(ended).scalars())
        if not tests:
            return []
    with database.writing() as connection:
        uids = select(SelfTestRow.study_instance_uid).where(SelfTestRow.id.in_(tests))
        mine = select(StudyRow.id).where(StudyRow.study_instance_uid.in_(uids), StudyRow.self_test)
        studies = connection.execute(mine).scalars().all()
        series = connection.execute(select(SeriesRow.id).where(SeriesRow.study_id.in_(studies))).scalars().all()
        _list_files(connection, studies, series)
        for table in reversed(Base.metadata.sorted_tables):
            _delete_what_refers(connection, table, studies, series)
        connection.execute(delete(StudyRow).where(StudyRow.id.in_(studies)))
    return tests


def note_cleaned(database: Database, tests: Sequence[int]) -> None:
    """Note that nothing is left of some tests but what was found."""
    with database.writing() as connection:
        connection.execute(update(SelfTestRow).where(SelfTestRow.id.in_(tests)).values(cleaned=True))


def _list_files(connection: Connection, studies: Sequence[int], series: Sequence[int]) -> None:
    images = select(InstanceRow.path).where(InstanceRow.series_id.in_(series), InstanceRow.path.is_not(None))
    results = select(ResultRow.path).where(ResultRow.study_id.in_(studies), ResultRow.path.is_not(None))
    paths = [*connection.execute(images).scalars(), *connection.execute(results).scalars()]
    if paths:
        connection.execute(LIST_FILE, [{"path": path} for path in paths])


def _delete_what_refers(connection: Connection, table: Table, studies: Sequence[int], series: Sequence[int]) -> None:
    """Delete from a table what belongs to these studies and series: whatever tables there will be."""
    targets: dict[str, Sequence[int]] = {"study.id": studies, "series.id": series}
    refers: list[Any] = [
        column.in_(targets[key.target_fullname])
        for column in table.columns
        for key in column.foreign_keys
        if key.target_fullname in targets
    ]
    if refers:
        connection.execute(delete(table).where(or_(*refers)))
