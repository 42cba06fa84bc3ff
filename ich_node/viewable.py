"""Which slices of a study can be looked at, in anatomical order, and what was said of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from ich_node.database import Database, InstanceRow, SeriesRow, StudyRow
from ich_node.database.of_patients import studies_of_patients
from ich_node.job_queue.facts import facts_from_json
from ich_node.job_queue.findings import finding_from_json
from ich_node.records import SliceFacts, SliceKey, SliceProbability
from ich_node.slice_position import slice_position_mm


@dataclass(frozen=True, slots=True)
class ViewableSlice:
    """One slice, or one frame."""

    sop_instance_uid: str
    frame: int | None
    file: str
    """Relative to the state folder."""
    rows: int
    columns: int
    spacing_mm: tuple[float, float] | None
    """Between rows, between columns."""
    position_mm: float | None
    """Along the slice normal, rising toward the head."""
    instance_number: int | None
    probabilities: dict[str, float] | None
    """By class; None where the slice was not scored by itself, or has no result yet."""
    is_key: bool
    """It is one of those that the answer rests on."""


@dataclass(frozen=True, slots=True)
class ViewableSeries:
    """One series, its slices from the foot upward."""

    series_instance_uid: str
    number: int | None
    kernel: str
    thickness_mm: float | None
    is_basis: bool
    """The answer of the study rests on it."""
    thresholds: dict[str, tuple[float, float]]
    """Low and high of each class; empty where there is no result."""
    slices: tuple[ViewableSlice, ...]


def viewable_series(database: Database, study_instance_uid: str) -> tuple[ViewableSeries, ...]:
    """Read the series of a study of which images are there, what the answer rests on first."""
    wanted = (
        select(SeriesRow, StudyRow.rests_on_series_id)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(StudyRow.study_instance_uid == study_instance_uid, studies_of_patients())
        .order_by(SeriesRow.id)
    )
    with database.reading() as connection:
        found = []
        for row in connection.execute(wanted).all():
            images = select(InstanceRow.path, InstanceRow.facts).where(
                InstanceRow.series_id == row.id, InstanceRow.current, InstanceRow.path.is_not(None)
            )
            found.append(_series(row, connection.execute(images.order_by(InstanceRow.id)).all()))
    shown = [one for one in found if one.slices]
    return tuple(sorted(shown, key=lambda one: (not one.is_basis, one.number is None, one.number or 0)))


def _series(row: Any, images: Any) -> ViewableSeries:
    said, keys = _what_was_said(row.finding)
    slices, facts = [], []
    for image in images:
        for one in facts_from_json(image.facts):
            if one.rows and one.columns:
                slices.append(_slice(one, image.path, said, keys))
                facts.append(one)
    slices.sort(key=_anatomically)
    return ViewableSeries(
        series_instance_uid=row.series_instance_uid,
        number=next((one.series_number for one in facts), None),
        kernel=next((one.convolution_kernel for one in facts if one.convolution_kernel), ""),
        thickness_mm=next((one.slice_thickness_mm for one in facts if one.slice_thickness_mm), None),
        is_basis=row.id == row.rests_on_series_id,
        thresholds=_thresholds(row.finding),
        slices=tuple(slices),
    )


def _thresholds(stored: dict[str, Any] | None) -> dict[str, tuple[float, float]]:
    return {name: (pair["low"], pair["high"]) for name, pair in (stored or {}).get("thresholds", {}).items()}


def _slice(one: SliceFacts, path: str, said: dict[SliceKey, dict[str, float]], keys: set[SliceKey]) -> ViewableSlice:
    return ViewableSlice(
        sop_instance_uid=one.sop_instance_uid,
        frame=one.frame,
        file=path,
        rows=one.rows,
        columns=one.columns,
        spacing_mm=one.pixel_spacing_mm,
        position_mm=slice_position_mm(one),
        instance_number=one.instance_number,
        probabilities=said.get(one.key),
        is_key=one.key in keys,
    )


def _what_was_said(stored: dict[str, Any] | None) -> tuple[dict[SliceKey, dict[str, float]], set[SliceKey]]:
    """Give the probabilities of each slice, those of a slab to all its slices, and which slices are key slices."""
    if stored is None:
        return {}, set()
    finding = finding_from_json(stored)
    said = {key: one.probabilities for one in finding.slices for key in _keys(one)}
    return said, {key for one in finding.key_slices.get("any", ()) for key in _keys(one)}


def _keys(one: SliceProbability) -> list[SliceKey]:
    return [member.key for member in one.members] or [(one.sop_instance_uid, one.frame)]


def _anatomically(one: ViewableSlice) -> tuple[bool, float, int, str, int]:
    position = one.position_mm
    return position is None, position or 0.0, one.instance_number or 0, one.sop_instance_uid, one.frame or 0
