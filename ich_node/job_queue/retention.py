"""What is deleted after its days, what is kept, what was deleted. Rows with UIDs and hashes stay; files and planes go.

A study of which anything is still to be delivered, or to be committed where that is asked for, keeps its files; so does
one under legal hold. One transaction forgets files, records that, and lists them; then they are unlinked: a kill
between the two leaves them on the list.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, case, delete, exists, func, insert, or_, select, text, update
from sqlalchemy.orm import aliased

from ich_node.database import (
    Database,
    DeletionRow,
    DeliveryRow,
    FileToDeleteRow,
    InstanceRow,
    LegalHoldRow,
    PlaneRow,
    ResultRow,
    SeriesRow,
    is_one_of,
)
from ich_node.job_queue.commitments import overdue_commitments
from ich_node.records import OPEN_SERIES, DeliveryState, InstanceState, NotAnalysedReason, RetentionRules, SeriesState

REBUILT: Final = "rebuilt: "
"""With this begins why a delivery is HELD of which a rebuild does not know whether it arrived."""
LIST_FILE: Final = text("INSERT INTO file_to_delete (path) VALUES (:path) ON CONFLICT DO NOTHING")
"""Enters a file that is to go; one may be listed already."""
_SECONDS_A_DAY: Final = 86400.0
_SECONDS_AN_HOUR: Final = 3600.0
_UNDELIVERED: Final = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.DEAD)
SETTLED: Final = (SeriesState.CONCLUDED, SeriesState.NOT_ANALYSED, SeriesState.FAILED, SeriesState.REJECTED)
UNFINISHED: Final = or_(
    DeliveryRow.state.in_(_UNDELIVERED),
    and_(DeliveryRow.state == DeliveryState.DELIVERED, DeliveryRow.commitment_ask_at.is_not(None)),
    and_(DeliveryRow.state == DeliveryState.HELD, DeliveryRow.error.startswith(REBUILT)),
)
"""Deliveries whose study keeps its files. What is HELD is not to be delivered, unless a rebuild left it to a person."""
_IS_HEAD: Final = SeriesRow.head_expected | (SeriesRow.state == SeriesState.CONCLUDED)


@dataclass(frozen=True, slots=True)
class Deletion:
    """What went of one study by one rule."""

    study: int
    what: str
    """images or reports."""
    files: int
    size_bytes: int
    rule: str


def forget_expired_images(database: Database, rules: RetentionRules, limit: int = 500) -> list[Deletion]:
    """Forget images past their days and list their files in `files_to_delete`; their planes go with them."""
    now = time.time()
    rule = case((_IS_HEAD, f"images_days = {rules.images_days:g}"), else_=f"not_head_days = {rules.not_head_days:g}")
    expired = (
        select(InstanceRow.id, InstanceRow.path, InstanceRow.size_bytes, SeriesRow.study_id, rule.label("rule"))
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(InstanceRow.path.is_not(None), *_past_days(rules, now), ~_is_kept(SeriesRow.study_id))
        .limit(limit)
    )
    with database.reading() as connection:
        if connection.execute(expired.limit(1)).first() is None:
            return []
    with database.writing() as connection:
        rows = connection.execute(expired).all()
        forget_images(connection, [row.id for row in rows], now)
        return record_deletion(
            connection, "images", [(row.study_id, row.rule, row.path, row.size_bytes) for row in rows], now
        )


def _past_days(rules: RetentionRules, now: float) -> tuple[ColumnElement[bool], ...]:
    images_before = now - rules.images_days * _SECONDS_A_DAY
    not_head_before = now - rules.not_head_days * _SECONDS_A_DAY
    old = or_(
        _IS_HEAD & (SeriesRow.last_received_at < images_before),
        ~_IS_HEAD & (SeriesRow.last_received_at < not_head_before),
    )
    return SeriesRow.state.in_(SETTLED), old


def _is_kept(study_id: Any) -> ColumnElement[bool]:
    other = aliased(SeriesRow)
    arrives = exists().where(other.study_id == study_id, other.state.in_(OPEN_SERIES))
    return or_(exists().where(DeliveryRow.study_id == study_id, UNFINISHED), is_held(study_id), arrives)


def is_held(study_id: Any) -> ColumnElement[bool]:
    """Tell studies under legal hold from others."""
    return exists().where(LegalHoldRow.study_id == study_id, LegalHoldRow.lifted_at.is_(None))


def forget_images(connection: Connection, ids: Sequence[int], now: float) -> None:
    """Forget the files of images within a transaction; the planes of their series go with them."""
    series = select(InstanceRow.series_id).where(is_one_of(InstanceRow.id, ids))
    connection.execute(delete(PlaneRow).where(PlaneRow.series_id.in_(series)))
    connection.execute(update(SeriesRow).where(SeriesRow.id.in_(series)).values(images_deleted_at=now))
    connection.execute(update(InstanceRow).where(is_one_of(InstanceRow.id, ids)).values(path=None))
    # what still waited for a decoder (its series FAILED) will never get there
    undecoded = update(InstanceRow).where(is_one_of(InstanceRow.id, ids), InstanceRow.state == InstanceState.RECEIVED)
    gone = {"state": InstanceState.NOT_NEEDED, "reason": NotAnalysedReason.IMAGES_DELETED.name}
    connection.execute(undecoded.values(gone))


def forget_expired_results(
    database: Database, rules: RetentionRules, size_of: Callable[[str], int], limit: int = 500
) -> list[Deletion]:
    """Forget the files of reports past their days and list them in `files_to_delete`.

    Args:
        size_of: gives the bytes of a file by its path; it is asked before anything is written, since it may take long.
    """
    now = time.time()
    expired = (
        select(ResultRow.id, ResultRow.path, ResultRow.study_id)
        .where(
            ResultRow.path.is_not(None),
            ResultRow.created_at < now - rules.results_days * _SECONDS_A_DAY,
            ~_is_kept(ResultRow.study_id),
        )
        .limit(limit)
    )
    with database.reading() as connection:
        found = connection.execute(expired).all()
    if not found:
        return []
    sizes = {row.id: size_of(row.path) for row in found}
    rule = f"results_days = {rules.results_days:g}"
    with database.writing() as connection:
        rows = connection.execute(expired.where(is_one_of(ResultRow.id, sizes))).all()
        connection.execute(update(ResultRow).where(is_one_of(ResultRow.id, [row.id for row in rows])).values(path=None))
        files = [(row.study_id, rule, row.path, sizes[row.id]) for row in rows]
        return record_deletion(connection, "reports", files, now)


def record_deletion(
    connection: Connection, what: str, files: Sequence[tuple[int, str, str, int]], now: float
) -> list[Deletion]:
    """Record what goes, by study and rule, and list the files."""
    sizes: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for study_id, rule, _, size in files:
        sizes[study_id, rule].append(size)
    gone = [Deletion(study, what, len(some), sum(some), rule) for (study, rule), some in sizes.items()]
    for one in gone:
        values = {"study_id": one.study, "what": what, "files": one.files, "size_bytes": one.size_bytes,
                  "rule": one.rule, "deleted_at": now}  # fmt: skip
        connection.execute(insert(DeletionRow).values(values))
    if files:
        connection.execute(LIST_FILE, [{"path": path} for _, _, path, _ in files])
    return gone


def files_to_delete(database: Database, limit: int = 500) -> list[str]:
    """List files that are forgotten and may be there yet, relative to the state folder."""
    with database.reading() as connection:
        return list(connection.execute(select(FileToDeleteRow.path).limit(limit)).scalars())


def note_deleted(database: Database, paths: Sequence[str]) -> None:
    """Note that files have gone from the disk."""
    with database.writing() as connection:
        connection.execute(delete(FileToDeleteRow).where(is_one_of(FileToDeleteRow.path, paths)))


def what_stays(database: Database, rules: RetentionRules) -> dict[str, str]:
    """Say what is not committed in time and what is kept past its days, by name, as people should read it."""
    with database.reading() as connection:
        return find_what_stays(connection, rules)


def find_what_stays(connection: Connection, rules: RetentionRules) -> dict[str, str]:
    """Look for it within a transaction."""
    now = time.time()
    found = {}
    hours = rules.commitment_wait_h
    for name, count in overdue_commitments(connection, now - hours * _SECONDS_AN_HOUR).items():
        text = f"destination {name} has not committed to {count} objects within {hours:g} h"
        found[f"commitment {name}"] = f"{text}: ask its administrator"
    if count := _studies_kept(connection, rules, now):
        found["retention"] = (
            f"images of {count} studies are kept past their days, and the disk fills up: "
            "their results are DEAD, not delivered, or not committed"
        )
    return found


def _studies_kept(connection: Connection, rules: RetentionRules, now: float) -> int:
    """Count from the few deliveries that are unfinished, not from the many images."""
    unfinished = select(DeliveryRow.study_id).where(UNFINISHED).distinct()
    has_files = exists().where(InstanceRow.series_id == SeriesRow.id, InstanceRow.path.is_not(None))
    kept = select(func.count(SeriesRow.study_id.distinct())).where(
        SeriesRow.study_id.in_(unfinished), *_past_days(rules, now), has_files
    )
    return connection.execute(kept).scalar_one()
