"""What the page of a study says beside its images: the way it took, its objects, its alerts, and what readers said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ich_node.job_queue.feedback import Feedback
from ich_node.queries import SeriesStatus, StudyStatus
from ich_node.records import HEMORRHAGE_CLASSES, DeliveryState
from ich_node.web.gate import Visitor


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened."""

    at: float
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ClassAnswer:
    """What was said of one class."""

    name: str
    presence: str
    probability: float


@dataclass(frozen=True, slots=True)
class ResultFile:
    """An object that the node made of the study, and that can be taken."""

    name: str
    """In the results folder; what a download is called."""
    what: str
    revision: int
    states: tuple[str, ...]
    """By destination, in words."""


@dataclass(frozen=True, slots=True)
class StudyPage:
    """All that is shown of a study beside its images and its patient."""

    status: StudyStatus
    classes: tuple[ClassAnswer, ...]
    model: str
    timeline: tuple[Moment, ...]
    files: tuple[ResultFile, ...]
    feedback: tuple[Feedback, ...]


def study_page(status: StudyStatus, feedback: Sequence[Feedback], visitor: Visitor) -> StudyPage:
    """Put together what is known of a study, for somebody: why a person deleted is for operators."""
    basis = status.basis
    finding: dict[str, Any] = (basis.finding or {}) if basis is not None else {}
    return StudyPage(
        status=status,
        classes=_classes(finding),
        model=_model(basis),
        timeline=_timeline(status, basis, feedback, visitor),
        files=_files(status),
        feedback=tuple(feedback),
    )


def _classes(finding: dict[str, Any]) -> tuple[ClassAnswer, ...]:
    probabilities, presence = finding.get("probabilities", {}), finding.get("presence", {})
    return tuple(
        ClassAnswer(name, str(presence.get(name, "")), probabilities[name])
        for name in HEMORRHAGE_CLASSES
        if name in probabilities
    )


def _model(basis: SeriesStatus | None) -> str:
    model = (basis.model or {}) if basis is not None else {}
    return " ".join(str(model[key]) for key in ("name", "version") if model.get(key))


def _timeline(
    status: StudyStatus, basis: SeriesStatus | None, feedback: Sequence[Feedback], visitor: Visitor
) -> tuple[Moment, ...]:
    steps = (basis.steps or {}) if basis is not None else {}
    moments = [Moment(at, name.capitalize()) for name, at in steps.items()] or [
        Moment(status.received_at, "First slice received")
    ]
    for delivery in status.deliveries:
        if delivery.finished_at and delivery.state in (DeliveryState.DELIVERED, DeliveryState.COMMITTED):
            what = f"{delivery.what.capitalize()} in {delivery.destination}"
            moments.append(Moment(delivery.finished_at, what, f"revision {delivery.revision}"))
    for alert in status.alerts:
        if alert.sent_at:
            moments.append(Moment(alert.sent_at, f"Alert told through {alert.channel}", str(alert.outcome)))
        if alert.acknowledged_at:
            moments.append(Moment(alert.acknowledged_at, "Alert acknowledged", f"by {alert.acknowledged_by}"))
    for deletion in status.deletions:
        what = f"{deletion.files} files of {deletion.what} deleted"
        moments.append(Moment(deletion.deleted_at, what, deletion.rule if visitor.operates else ""))
    moments += [Moment(one.given_at, f"{one.reader} {'agrees' if one.agrees else 'disagrees'}") for one in feedback]
    unique = {(one.at, one.what): one for one in moments}
    return tuple(sorted(unique.values(), key=lambda one: one.at))


def _files(status: StudyStatus) -> tuple[ResultFile, ...]:
    files: dict[str, list[Any]] = {}
    for delivery in status.deliveries:
        if delivery.report_file is not None:
            files.setdefault(Path(delivery.report_file).name, []).append(delivery)
    return tuple(
        ResultFile(
            name, some[0].what.capitalize(), some[0].revision,
            tuple(f"{one.destination}: {one.state.lower()}" for one in some),
        )
        for name, some in files.items()
    )  # fmt: skip
