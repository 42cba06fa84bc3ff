"""What is stored of how the node watches itself: self-tests, models that were chosen, and measures against drift."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from ich_node.database.tables import Base

_UID = String(64)
_SHA256 = String(64)
_NAME = String(64)
_STATE = String(16)


class SelfTestRow(Base):
    """One self-test: a phantom that the node sent to itself. Its study goes when it has ended; this stays."""

    __tablename__ = "self_test"
    __table_args__ = (Index("self_test_by_end", "finished_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(_UID, unique=True)
    """Reserved before the first slice is sent: by it, the node knows its own test."""
    asked_at: Mapped[float]
    asked_by: Mapped[str] = mapped_column(_NAME, default="")
    """Who wanted it; empty: nobody, it was time."""
    accepts_score: Mapped[bool] = mapped_column(default=False)
    """Whatever the phantom scores is what later tests are compared with."""
    started_at: Mapped[float | None]
    """None while it waits to be run."""
    finished_at: Mapped[float | None]
    passed: Mapped[bool | None]
    """None while it runs."""
    fault: Mapped[str | None] = mapped_column(Text)
    """What went wrong, for people."""
    seconds: Mapped[float | None]
    """From the first byte to the saved report."""
    steps: Mapped[dict[str, Any] | None]
    triage: Mapped[str | None] = mapped_column(_STATE)
    probability: Mapped[float | None]
    """Of any hemorrhage."""
    model_sha256: Mapped[str | None] = mapped_column(_SHA256)
    cleaned: Mapped[bool] = mapped_column(default=False)
    """Its study is gone, rows and files."""


class ModelChoiceRow(Base):
    """That a person chose a model, to answer or to score in silence beside it. The newest of each use counts."""

    __tablename__ = "model_choice"
    __table_args__ = (Index("model_choice_by_use", "use", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    use: Mapped[str] = mapped_column(_STATE)
    directory: Mapped[str | None] = mapped_column(String(1024))
    """Of the bundle; None: no model any more, for silent use."""
    name: Mapped[str] = mapped_column(String(128), default="")
    version: Mapped[str] = mapped_column(_NAME, default="")
    sha256: Mapped[str] = mapped_column(_SHA256, default="")
    state: Mapped[str] = mapped_column(_STATE)
    error: Mapped[str | None] = mapped_column(Text)
    """Why it was refused."""
    reason: Mapped[str] = mapped_column(Text)
    chosen_by: Mapped[str] = mapped_column(_NAME)
    chosen_at: Mapped[float]
    settled_at: Mapped[float | None]
    """When the worker began to use it, or refused it."""
    configured_directory: Mapped[str] = mapped_column(String(1024), default="")
    """What the configuration named then: who names another one there means that one."""


class WorkerRow(Base):
    """A worker that runs: what it computes with, and how much memory that takes. It goes with its process."""

    __tablename__ = "worker"

    owner: Mapped[str] = mapped_column(String(128), primary_key=True)
    seen_at: Mapped[float]
    engine: Mapped[str] = mapped_column(String(16))
    device: Mapped[str] = mapped_column(String(128))
    memory_used: Mapped[int] = mapped_column(BigInteger)
    """Bytes: of a GPU all that is in use, of a processor what the worker itself holds."""
    memory_total: Mapped[int] = mapped_column(BigInteger)
    model_name: Mapped[str] = mapped_column(String(128))
    model_version: Mapped[str] = mapped_column(_NAME)
    model_sha256: Mapped[str] = mapped_column(_SHA256)


class SecondOpinionRow(Base):
    """What the silent model says of a series, beside what the other one had said."""

    __tablename__ = "second_opinion"
    __table_args__ = (
        UniqueConstraint("series_id", "model_sha256"),
        Index("second_opinion_by_model", "model_sha256", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    model_name: Mapped[str] = mapped_column(String(128))
    model_version: Mapped[str] = mapped_column(_NAME)
    model_sha256: Mapped[str] = mapped_column(_SHA256)
    triage: Mapped[str | None] = mapped_column(_STATE)
    reason: Mapped[str | None] = mapped_column(String(32))
    probabilities: Mapped[dict[str, Any] | None]
    active_sha256: Mapped[str] = mapped_column(_SHA256)
    active_triage: Mapped[str | None] = mapped_column(_STATE)
    active_probabilities: Mapped[dict[str, Any] | None]
    seconds: Mapped[float]
    made_at: Mapped[float]


class SeriesMeasureRow(Base):
    """What is compared over time, of one series that ended; it stays when images and planes are deleted."""

    __tablename__ = "series_measure"
    __table_args__ = (Index("series_measure_by_group", "station_name", "convolution_kernel", "measured_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), unique=True)
    measured_at: Mapped[float]
    station_name: Mapped[str] = mapped_column(_NAME, default="")
    convolution_kernel: Mapped[str] = mapped_column(_NAME, default="")
    triage: Mapped[str | None] = mapped_column(_STATE)
    reason: Mapped[str | None] = mapped_column(String(32))
    probability: Mapped[float | None]
    """Of any hemorrhage."""
    model_sha256: Mapped[str | None] = mapped_column(_SHA256)
    air_hu: Mapped[float | None]
    brain_hu: Mapped[float | None]
    noise_hu: Mapped[float | None]
    slice_thickness_mm: Mapped[float | None]


class DriftReferenceRow(Base):
    """From when on the series of a station and kernel are what later ones are compared with."""

    __tablename__ = "drift_reference"
    __table_args__ = (UniqueConstraint("station_name", "convolution_kernel"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    station_name: Mapped[str] = mapped_column(_NAME)
    convolution_kernel: Mapped[str] = mapped_column(_NAME)
    since: Mapped[float]
    until: Mapped[float]
    """What comes later is compared with it; where too few lie before it, the next ones belong to it as well."""
    set_by: Mapped[str] = mapped_column(_NAME)
    set_at: Mapped[float]
    reason: Mapped[str] = mapped_column(Text)


class DriftLookRow(Base):
    """One look at all stations and kernels, and what it found."""

    __tablename__ = "drift_look"

    id: Mapped[int] = mapped_column(primary_key=True)
    looked_at: Mapped[float]
    tests: Mapped[int]
    """How many comparisons were made: what is found is corrected for them."""
    found: Mapped[list[Any]]
    """Of each finding: station, kernel and quantity, what they are called, and the words for people."""
    compared: Mapped[dict[str, Any]]
    """Everything that was compared, for the page; of the newest look alone, older ones keep what they found."""
