"""What is stored for the web pages: who may see them, and what readers say of findings."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from ich_node.database.tables import Base

_SHA256 = String(64)
_NAME = String(64)
_ROLE = String(16)


class AccountRow(Base):
    """Somebody who may log in. It is disabled and never deleted: records name it."""

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(_NAME, unique=True)
    role: Mapped[str] = mapped_column(_ROLE)
    password_hash: Mapped[str] = mapped_column(String(256))
    created_at: Mapped[float]
    disabled: Mapped[bool] = mapped_column(default=False)
    failures: Mapped[int] = mapped_column(default=0)
    """Wrong passwords since the last right one."""
    locked_until: Mapped[float | None]


class SessionRow(Base):
    """An account that is logged in at a browser."""

    __tablename__ = "session"
    __table_args__ = (Index("session_by_account", "account_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(_SHA256, unique=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[float]
    seen_at: Mapped[float]


class ApiTokenRow(Base):
    """A program that may use the REST API."""

    __tablename__ = "api_token"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(_NAME, unique=True)
    role: Mapped[str] = mapped_column(_ROLE)
    token_sha256: Mapped[str] = mapped_column(_SHA256, unique=True)
    created_at: Mapped[float]
    revoked_at: Mapped[float | None]
    used_at: Mapped[float | None]


class FeedbackRow(Base):
    """What a reader says of a study's answer. The newest of each reader and revision counts; older ones stay."""

    __tablename__ = "feedback"
    __table_args__ = (Index("feedback_by_study", "study_id", "revision"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    revision: Mapped[int]
    reader: Mapped[str] = mapped_column(_NAME)
    agrees: Mapped[bool]
    triage: Mapped[str] = mapped_column(_ROLE)
    """What the study said then."""
    hemorrhage: Mapped[bool]
    """What the reader says: is there any."""
    classes: Mapped[list[Any]]
    """Names of the subtypes the reader sees."""
    slices: Mapped[list[Any]]
    """SOP Instance UID and frame of slices the reader points at."""
    note: Mapped[str] = mapped_column(Text, default="")
    given_at: Mapped[float]
