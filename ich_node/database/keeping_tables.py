"""What is stored of storage commitment, of legal holds, and of what was deleted."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from ich_node.database.tables import Base, small_index

UNSETTLED: Final = "settled_at IS NULL"

_UID = String(64)


class CommitmentRow(Base):
    """One transaction of storage commitment (PS3.4 Annex J). It stays, so that a late answer is known."""

    __tablename__ = "commitment"

    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(_UID, unique=True)
    destination: Mapped[str] = mapped_column(String(64))
    ae_title: Mapped[str] = mapped_column(String(16))
    """Who was asked: only who has this AE title may answer."""
    asked_at: Mapped[float]
    acknowledged_at: Mapped[float | None]
    """When the N-ACTION was answered with success."""
    answered_at: Mapped[float | None]
    """When an answer came that names exactly what was asked about."""


class CommitmentItemRow(Base):
    """An object that a transaction asks about."""

    __tablename__ = "commitment_item"
    __table_args__ = (
        UniqueConstraint("commitment_id", "sop_instance_uid"),
        Index("commitment_item_by_delivery", "delivery_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    commitment_id: Mapped[int] = mapped_column(ForeignKey("commitment.id"))
    delivery_id: Mapped[int] = mapped_column(ForeignKey("delivery.id"))
    sop_class_uid: Mapped[str] = mapped_column(_UID)
    sop_instance_uid: Mapped[str] = mapped_column(_UID)
    sent_again: Mapped[bool] = mapped_column(default=False)
    """The object was sent once more since: what is said of how it was before does not count."""


class CommitmentReportRow(Base):
    """What a peer said of a transaction that is known (N-EVENT-REPORT)."""

    __tablename__ = "commitment_report"
    __table_args__ = (
        Index("commitment_report_by_commitment", "commitment_id"),
        small_index("commitment_report_unsettled", "id", where=UNSETTLED),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    commitment_id: Mapped[int] = mapped_column(ForeignKey("commitment.id"))
    address: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[float]
    committed: Mapped[list[Any]]
    """SOP Class and SOP Instance UID of each."""
    failed: Mapped[list[Any]]
    """The same, and the Failure Reason."""
    settled_at: Mapped[float | None]
    """When it was matched with what was asked."""


class LegalHoldRow(Base):
    """A study of which nothing is deleted until a person lifts the hold. Lifted ones stay as a record."""

    __tablename__ = "legal_hold"
    __table_args__ = (Index("legal_hold_by_study", "study_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    reason: Mapped[str] = mapped_column(Text)
    placed_by: Mapped[str] = mapped_column(String(64))
    placed_at: Mapped[float]
    lifted_by: Mapped[str | None] = mapped_column(String(64))
    lifted_at: Mapped[float | None]


class DeletionRow(Base):
    """What retention or a person deleted of a study, and by which rule, or why."""

    __tablename__ = "deletion"
    __table_args__ = (Index("deletion_by_study", "study_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    what: Mapped[str] = mapped_column(String(16))
    files: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(Integer().with_variant(BigInteger(), "postgresql"))
    rule: Mapped[str] = mapped_column(String(300))
    deleted_at: Mapped[float]


class TurnRow(Base):
    """What one process of the node does at a time, on whatever host: whose turn it is, until when."""

    __tablename__ = "turn"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(128))
    expires_at: Mapped[float]


class ClockRow(Base):
    """One row: how the clock stood against the time since the boot, when what waits was last moved with it."""

    __tablename__ = "clock"

    boot: Mapped[str] = mapped_column(String(64), primary_key=True)
    offset_s: Mapped[float]


class FileToDeleteRow(Base):
    """A file that no row speaks of any more and that is about to be unlinked; the row goes when the file has gone."""

    __tablename__ = "file_to_delete"

    path: Mapped[str] = mapped_column(String(255), primary_key=True)
