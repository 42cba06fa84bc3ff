"""What is stored. States are those of ``records``; times are seconds since 1970 in UTC."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA: Final = "0010"
"""The newest migration: what these tables are."""

# What is looked for ten times a second has an index of its own, which holds nothing else. SQLite uses such an index
# only for a condition that it finds word for word; PostgreSQL takes no number for a boolean.
TO_ALERT: Final = "revision > alerted_revision"
EARLY: Final = "early_series_id IS NOT NULL AND NOT early_decided AND revision = 0"
TOLD_EARLY: Final = "told = 'preliminary' AND revision = 0"
AWAITED: Final = "state = 'SENT' AND answer_within_s IS NOT NULL"
WITHDRAWN: Final = "withdrawn"
SELF_TEST: Final = "self_test"
TO_COMMIT: Final = "state = 'DELIVERED' AND commitment_ask_at IS NOT NULL"

OPEN: Final = "(state IN ('RECEIVING', 'COMPLETE')) IS TRUE"
"""So written, SQLite does not take the index by state for it, and sort all that are open."""

_UID = String(64)
_STATE = String(16)
_BYTES = Integer().with_variant(BigInteger(), "postgresql")
"""SQLite's integers have 8 bytes."""


def small_index(name: str, *columns: str | TextClause, where: str) -> Index:
    """Make an index of the few rows for which a condition holds."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map = {dict[str, Any]: JSON, list[float]: JSON, list[Any]: JSON}  # noqa: RUF012 - SQLAlchemy's own form


class InstallationRow(Base):
    """One row: who this installation is. Part of every UID it makes."""

    __tablename__ = "installation"

    id: Mapped[int] = mapped_column(primary_key=True)
    installation_uid: Mapped[str] = mapped_column(_UID)
    created_at: Mapped[float]


class StudyRow(Base):
    """A study and its current answer."""

    __tablename__ = "study"
    __table_args__ = (
        small_index("study_to_alert", "id", where=TO_ALERT),
        small_index("study_early", "early_series_id", where=EARLY),
        small_index("study_told_early", "id", where=TOLD_EARLY),
        Index("study_by_triage", "triage", "id"),
        small_index("study_withdrawn", "id", where=WITHDRAWN),
        small_index("study_self_test", "id", where=SELF_TEST),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(_UID, unique=True)
    revision: Mapped[int] = mapped_column(default=0)
    """Of the current report; 0 while there is none."""
    triage: Mapped[str | None] = mapped_column(_STATE)
    reason: Mapped[str | None] = mapped_column(String(32))
    withdrawn: Mapped[bool] = mapped_column(default=False)
    """The last report took an earlier result back; ``reason`` says why."""
    doubted: Mapped[bool] = mapped_column(default=False, index=True)
    """Something happened to the series that the answer rests on: it is looked whether the answer still holds."""
    rests_on_series_id: Mapped[int | None]
    old: Mapped[bool] = mapped_column(default=False)
    """Acquired long ago: it goes behind what is new, and alerts nobody."""
    priority: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float]
    reported_at: Mapped[float | None]
    alerted_revision: Mapped[int] = mapped_column(default=0)
    """Up to this revision it was decided who is told."""
    early_series_id: Mapped[int | None]
    """The series of an early finding, which is told before there is a report."""
    early_finding: Mapped[dict[str, Any] | None]
    early_decided: Mapped[bool] = mapped_column(default=False)
    """It was decided who is told of the early finding."""
    told: Mapped[str | None] = mapped_column(_STATE)
    """What people were last told that the study says."""
    history_asked_at: Mapped[float | None]
    """When the PACS was last asked about earlier studies of the patient, or tried to be."""
    pacs_studies: Mapped[int | None]
    """How many earlier CT studies the PACS said there are; None where it did not, or said too little."""
    pacs_newest: Mapped[str | None] = mapped_column(String(8))
    """StudyDate of the newest of them."""
    self_test: Mapped[bool] = mapped_column(default=False)
    """The node sent it to itself: it leaves the node nowhere, is counted nowhere, and goes when the test has ended."""


class SeriesRow(Base):
    """A series on its way to a result; also the lease of who works on it."""

    __tablename__ = "series"
    __table_args__ = (
        UniqueConstraint("study_id", "series_instance_uid"),
        Index("series_by_state", "state", "due_at"),
        small_index("series_to_claim", "old", text("priority DESC"), "first_received_at", where=OPEN),
        Index("series_by_head_expected", "head_expected", "state"),
        Index("series_by_lease_owner", "lease_owner"),
        Index("series_by_conclusion", "concluded_at"),
        Index("series_by_uid", "series_instance_uid"),
        Index("series_by_patient", "patient_mark"),
        Index("series_by_station", "station_name", "study_id"),
        Index("series_by_sender", "calling_ae_title", "study_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    series_instance_uid: Mapped[str] = mapped_column(_UID)
    modality: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(_STATE)
    reason: Mapped[str | None] = mapped_column(String(32))
    detail: Mapped[str | None] = mapped_column(Text)
    complete: Mapped[bool | None]
    head_expected: Mapped[bool] = mapped_column(default=False)
    """A head CT was to be expected: its lack of a result is to be told."""
    triage: Mapped[str | None] = mapped_column(_STATE)
    finding: Mapped[dict[str, Any] | None]
    model: Mapped[dict[str, Any] | None]
    steps: Mapped[dict[str, Any] | None]
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[float] = mapped_column(default=0.0)
    due_at: Mapped[float]
    first_received_at: Mapped[float]
    last_received_at: Mapped[float]
    closed_at: Mapped[float | None]
    concluded_at: Mapped[float | None]
    """First conclusion; from then on ``max_wait_s`` is the quiet time."""
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    """Of all that the last conclusion rests on: the same content needs no new revision."""
    choice: Mapped[dict[str, Any] | None]
    """What the choice among the series of a study needs to know of this one."""
    longest_pause_s: Mapped[float] = mapped_column(default=0.0)
    planes_waiting: Mapped[int] = mapped_column(default=0)
    """Planes that are ready and not scored yet."""
    priority: Mapped[int] = mapped_column(default=0)
    old: Mapped[bool] = mapped_column(default=False)
    expected_instances: Mapped[int | None]
    """How many the PACS said it holds."""
    asked_at: Mapped[float | None]
    """When the PACS was last asked, or tried to be."""
    counted_at: Mapped[float | None]
    """When the question was asked that ``expected_instances`` answers."""
    acquired_at: Mapped[float | None]
    """Of the newest image whose header says when it was acquired."""
    station_name: Mapped[str] = mapped_column(String(64), default="")
    patient_mark: Mapped[str | None] = mapped_column(String(32))
    """Hash of PatientID with its issuer, of the image that was read last; None where there is none."""
    birth_mark: Mapped[str | None] = mapped_column(String(32))
    """Hash of PatientBirthDate."""
    released_instance_id: Mapped[int | None]
    """Up to this instance a person released the series from quarantine."""
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_expires_at: Mapped[float | None]
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    remote_address: Mapped[str] = mapped_column(String(64))
    images_deleted_at: Mapped[float | None]


class InstanceRow(Base):
    """One version of one SOP instance. The newest version is the current one."""

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "sha256"),
        Index("instance_by_series", "series_id", "state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    sop_instance_uid: Mapped[str] = mapped_column(_UID)
    sop_class_uid: Mapped[str] = mapped_column(_UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(_UID)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(_BYTES)
    path: Mapped[str | None] = mapped_column(String(255))
    """Relative to the state folder; None once the file was deleted."""
    state: Mapped[str] = mapped_column(_STATE)
    reason: Mapped[str | None] = mapped_column(String(32))
    detail: Mapped[str | None] = mapped_column(Text)
    current: Mapped[bool] = mapped_column(default=True)
    received_at: Mapped[float]
    facts: Mapped[dict[str, Any] | None]
    """Of every slice in it; None until its header was read."""
    marks: Mapped[dict[str, Any] | None]
    """Whose image it is, as hashes."""


class PlaneRow(Base):
    """What the network said of one plane, a slice or a slab; present means scored."""

    __tablename__ = "plane"
    __table_args__ = (Index("plane_by_series", "series_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    members: Mapped[list[Any]]
    """SOP Instance UID, frame and position in mm of each slice, along the slice normal."""
    position_mm: Mapped[float]
    tissue: Mapped[dict[str, Any] | None]
    logits: Mapped[list[float]]
    embedding: Mapped[bytes] = mapped_column(LargeBinary)
    """float16, little endian."""
    model_sha256: Mapped[str] = mapped_column(String(64))


class ResultRow(Base):
    """One DICOM object that the node made and saved."""

    __tablename__ = "result"
    __table_args__ = (Index("result_by_study", "study_id", "revision"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    revision: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    encoding: Mapped[str] = mapped_column(String(32))
    preference: Mapped[int]
    sop_class_uid: Mapped[str] = mapped_column(_UID)
    sop_instance_uid: Mapped[str] = mapped_column(_UID, unique=True)
    series_instance_uid: Mapped[str | None] = mapped_column(_UID)
    sha256: Mapped[str] = mapped_column(String(64))
    path: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[float]
    returned_count: Mapped[int] = mapped_column(default=0)
    """How often a peer sent this object back to us."""


class DeliveryRow(Base):
    """The outbox: one row per study revision, kind of object and destination."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("study_id", "revision", "kind", "destination"),
        Index("delivery_by_state", "state", "destination", "next_attempt_at"),
        small_index("delivery_to_commit", "destination", "commitment_ask_at", where=TO_COMMIT),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    revision: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    destination: Mapped[str] = mapped_column(String(64))
    ae_title: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(255))
    port: Mapped[int]
    state: Mapped[str] = mapped_column(_STATE)
    attempts: Mapped[int] = mapped_column(default=0)
    refusals: Mapped[int] = mapped_column(default=0)
    """Of the attempts, those that the destination refused for good."""
    next_attempt_at: Mapped[float]
    created_at: Mapped[float]
    finished_at: Mapped[float | None]
    dimse_status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    sop_instance_uid: Mapped[str | None] = mapped_column(_UID)
    """Of the encoding that was sent."""
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_expires_at: Mapped[float | None]
    commitment_ask_at: Mapped[float | None]
    """When storage commitment is asked, or asked again, of what was delivered; None where nobody wants it."""
    commitment_asks: Mapped[int] = mapped_column(default=0)
    commitment_failures: Mapped[int] = mapped_column(default=0)
    """How often the destination said that it does not commit to the object."""
    commitment_error: Mapped[str | None] = mapped_column(Text)
    committed_at: Mapped[float | None]


class OpenAssociationRow(Base):
    """A lease: an association that sends to a series and was not released yet."""

    __tablename__ = "open_association"
    __table_args__ = (UniqueConstraint("series_id", "association"), Index("open_association_by_owner", "lease_owner"))

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    association: Mapped[str] = mapped_column(String(64))
    lease_owner: Mapped[str] = mapped_column(String(128))
    lease_expires_at: Mapped[float]


class RejectionRow(Base):
    """An instance that a rejection note took back; should it be sent again, it stays so."""

    __tablename__ = "rejection"

    sop_instance_uid: Mapped[str] = mapped_column(_UID, primary_key=True)
    reason: Mapped[str] = mapped_column(String(32))
    received_at: Mapped[float]


class DestinationRow(Base):
    """A destination that is paused, and why."""

    __tablename__ = "destination"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    paused_at: Mapped[float]
    next_attempt_at: Mapped[float]
    error: Mapped[str] = mapped_column(Text)


class AlertRow(Base):
    """The outbox of alerts: one row for each study, revision, channel and step."""

    __tablename__ = "alert"
    __table_args__ = (
        UniqueConstraint("study_id", "revision", "kind", "channel", "step"),
        Index("alert_by_state", "state", "next_attempt_at"),
        Index("alert_by_time", "sent_at", "channel"),
        small_index("alert_awaited", "sent_at", where=AWAITED),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    identifier: Mapped[str] = mapped_column(String(32), unique=True)
    study_id: Mapped[int | None] = mapped_column(ForeignKey("study.id"))
    """None where it is about the node itself."""
    revision: Mapped[int]
    kind: Mapped[str] = mapped_column(_STATE)
    text: Mapped[str | None] = mapped_column(Text)
    """Of a condition of the node itself."""
    outcome: Mapped[str] = mapped_column(_STATE)
    told_before: Mapped[str] = mapped_column(_STATE, default="")
    channel: Mapped[str] = mapped_column(String(32))
    channel_kind: Mapped[str] = mapped_column(_STATE)
    step: Mapped[int]
    state: Mapped[str] = mapped_column(_STATE)
    answer_within_s: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)
    refusals: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[float]
    created_at: Mapped[float]
    sent_at: Mapped[float | None]
    answer: Mapped[str | None] = mapped_column(Text)
    """What the channel answered when it took the alert."""
    error: Mapped[str | None] = mapped_column(Text)
    acknowledged_at: Mapped[float | None]
    acknowledged_by: Mapped[str | None] = mapped_column(String(64))
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_expires_at: Mapped[float | None]


class ConditionRow(Base):
    """Something about the node itself that needs a person, from when it was found until it has ended."""

    __tablename__ = "condition"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    since: Mapped[float]
