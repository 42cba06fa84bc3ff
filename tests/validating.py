"""Answers of a node as they stand in its database, made up so that their figures are known beforehand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from ich_node.database import Database, InstanceRow, SeriesRow, StudyRow
from ich_node.decode import DecoderPool
from ich_node.job_queue.facts import facts_to_json
from ich_node.job_queue.findings import finding_to_json
from ich_node.model.manifest import OperatingPoint, Thresholds
from ich_node.model.site_thresholds import SiteThresholds, ValidatedData, ValidatedModel
from ich_node.records import (
    CT_IMAGE_STORAGE,
    HEMORRHAGE_CLASSES,
    ClassThresholds,
    ModelIdentity,
    SliceFacts,
    SliceProbability,
    StudyResult,
    Triage,
    TriageFinding,
)
from ich_node.triage import presence_of
from ich_node.validation.labels import StudyLabel

MODEL = ("tiny", "0.0.1", "ab" * 32)
THRESHOLDS = dict.fromkeys(HEMORRHAGE_CLASSES, ClassThresholds(0.3, 0.6))
_DAY_S = 86400.0


def probabilities(any_: float, **subtypes: float) -> dict[str, float]:
    return dict.fromkeys(HEMORRHAGE_CLASSES, 0.01) | {"any": any_} | subtypes


def triage_of(any_: float) -> Triage:
    limits = THRESHOLDS["any"]
    return Triage.POSITIVE if any_ >= limits.high else Triage.INDETERMINATE if any_ >= limits.low else Triage.NEGATIVE


def result(
    number: int, any_: float | None, *, subtypes: Mapping[str, float] | None = None, **about: Any
) -> StudyResult:
    """An answer by probability; None: not analysed."""
    uid = f"1.2.{number}"
    if any_ is None:
        return StudyResult(uid, None, about.pop("why_not", "not axial"), **about)
    chances, triage = probabilities(any_, **(subtypes or {})), triage_of(any_)
    said = presence_of(chances, THRESHOLDS, triage, complete=True)
    known = {"model": MODEL, "thresholds": THRESHOLDS, "probabilities": chances, "presence": said}
    return StudyResult(uid, triage, **known | about)


def label(number: int, any_: int, *present: str, unknown: Sequence[str] = ()) -> StudyLabel:
    shows: dict[str, bool | None] = {name: name in present for name in HEMORRHAGE_CLASSES}
    return StudyLabel(f"1.2.{number}", shows | dict.fromkeys(unknown) | {"any": bool(any_)}, number)


@dataclass(frozen=True)
class Head:
    """Images of one head, on the disk of a node, that many studies may share."""

    facts: tuple[SliceFacts, ...]
    files: tuple[str, ...]


def read_head(paths: Sequence[Path], state: Path, decoder: DecoderPool) -> Head:
    tasks = [decoder.submit(one) for one in paths]
    facts = tuple(task.result().facts[0] for task in tasks)
    return Head(facts, tuple(str(one.relative_to(state)) for one in paths))


def add_answer(
    database: Database,
    uid: str,
    any_: float | None,
    head: Head,
    *,
    subtypes: Mapping[str, float] | None = None,
    days_ago: float = 1.0,
    station: str = "CT1",
    thickness_mm: float = 5.0,
    age: int | None = 60,
    model: tuple[str, str, str] = MODEL,
) -> None:
    """Enter a study that was concluded, or one that was not analysed."""
    at = time.time() - days_ago * _DAY_S
    facts = [
        replace(one, sop_instance_uid=f"{uid}.1.{number}", slice_thickness_mm=thickness_mm, patient_age_years=age)
        for number, one in enumerate(head.facts, 1)
    ]
    chances = None if any_ is None else probabilities(any_, **(subtypes or {}))
    finding = None if chances is None else _finding(chances, facts)
    with database.writing() as connection:
        study = connection.execute(
            insert(StudyRow).values(
                study_instance_uid=uid, revision=1, triage=None if finding is None else finding.triage,
                reason=None if finding else "NOT_AXIAL", created_at=at, reported_at=at,
            )
        ).inserted_primary_key[0]  # fmt: skip
        series = connection.execute(
            insert(SeriesRow).values(
                study_id=study, series_instance_uid=f"{uid}.1", modality="CT", head_expected=True,
                state="CONCLUDED" if finding else "NOT_ANALYSED", reason=None if finding else "NOT_AXIAL",
                complete=True, triage=None if finding is None else finding.triage,
                finding=None if finding is None else finding_to_json(finding),
                model=None if finding is None else dict(zip(("name", "version", "sha256"), model, strict=True)),
                due_at=at, first_received_at=at, last_received_at=at, station_name=station,
                calling_ae_title="CT1", remote_address="10.0.0.1",
            )
        ).inserted_primary_key[0]  # fmt: skip
        if finding is not None:
            connection.execute(
                StudyRow.__table__.update().where(StudyRow.id == study).values(rests_on_series_id=series)
            )
        connection.execute(
            insert(InstanceRow),
            [
                {
                    "series_id": series, "sop_instance_uid": one.sop_instance_uid, "sop_class_uid": CT_IMAGE_STORAGE,
                    "transfer_syntax_uid": "1.2.840.10008.1.2.1", "sha256": one.sop_instance_uid, "size_bytes": 1,
                    "path": file, "state": "DECODED", "received_at": at, "facts": facts_to_json((one,)),
                }
                for one, file in zip(facts, head.files, strict=True)
            ],
        )  # fmt: skip


def _finding(chances: dict[str, float], facts: Sequence[SliceFacts]) -> TriageFinding:
    middle = len(facts) // 2
    slices = tuple(
        SliceProbability(
            one.sop_instance_uid, None, float(number), {k: v / (1 + abs(number - middle)) for k, v in chances.items()}
        )
        for number, one in enumerate(facts)
    )
    triage = triage_of(chances["any"])
    return TriageFinding(
        triage=triage,
        presence=presence_of(chances, THRESHOLDS, triage, complete=True),
        probabilities=chances,
        thresholds=THRESHOLDS,
        slices=slices,
        key_slices={"any": (slices[middle],)},
    )


def proposed_for(model: ModelIdentity, low: float = 0.25, high: float = 0.75) -> SiteThresholds:
    """Thresholds as a validation proposes them."""
    point = OperatingPoint(
        level="study", positives=72, negatives=200, target_sensitivity=0.95, sensitivity=1.0, sensitivity_low=0.9501,
        meets_bound=True, specificity=0.9, target_specificity=0.95,
    )  # fmt: skip
    return SiteThresholds(
        model=ValidatedModel(name=model.name, version=model.version, sha256=model.sha256),
        thresholds=dict.fromkeys(HEMORRHAGE_CLASSES, Thresholds(low=low, high=high)),
        site_classes=("any",),
        operating_points=dict.fromkeys(HEMORRHAGE_CLASSES, point),
        data=ValidatedData(labels="0" * 64, studies=272, positives=72),
        proposed_at=1e9,
        proposed_by="a test",
    )
