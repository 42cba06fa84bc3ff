"""From what the node knows to what the API answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from ich_node.job_queue.feedback import Feedback
from ich_node.queries import AlertStatus, DeliveryStatus, SeriesStatus, StudyStatus
from ich_node.records import HEMORRHAGE_CLASSES, AlertState, DeliveryState, Presence, SeriesState, Triage
from ich_node.web.api import models
from ich_node.web.gate import Visitor
from ich_node.web.lines import Line
from ich_node.web.study_page import StudyPage

_STATES: Final = {"waiting": "in-progress", "none": "not-analysed"}


def study(line: Line, program: Visitor) -> models.Study:
    """Give a line of the worklist."""
    status = line.study.status
    basis = status.basis
    sees = program.sees_patients
    return models.Study(
        study_instance_uid=status.study_instance_uid,
        revision=status.revision,
        state=state(line),
        in_words=status.outcome,
        test_model=bool(basis is not None and (basis.finding or {}).get("test_model")),
        probability=line.probability,
        subtypes=_probabilities(dict(line.subtypes), [name for name, _ in line.subtypes]),
        incomplete=line.incomplete,
        old=status.old,
        station_name=line.study.station_name,
        calling_ae_title=line.study.calling_ae_title,
        slices=line.study.slices,
        received_at=models.moment(status.received_at),
        last_received_at=models.moment(line.study.last_received_at),
        delivery=line.delivery,
        alert=line.alert,
        patient=models.Patient.model_validate(asdict(line.patient)) if sees else None,
        viewer_url=(line.viewer_url or None) if sees else None,
    )


def state(line: Line) -> models.StudyState:
    """Say in one word where a study stands."""
    return models.StudyState(_STATES.get(line.triage, line.triage))


def detail(line: Line, page: StudyPage, program: Visitor) -> models.StudyDetail:
    """Give all that is known of a study but for its slices."""
    status = page.status
    return models.StudyDetail(
        study=study(line, program),
        series=[series(one, status) for one in status.series],
        deliveries=[_delivery(one, program) for one in status.deliveries[-models.MOST_ROWS :]],
        alerts=[alert(one, program) for one in status.alerts[-models.MOST_ROWS :]],
        timeline=[
            models.Happened(at=models.moment(one.at), what=one.what, detail=one.detail)
            for one in page.timeline[-models.MOST_ROWS :]
        ],
        earlier_studies=status.prior if program.sees_patients else status.prior_undated,
        legal_hold=status.legal_hold if program.operates else None,
        objects=objects(page, program),
        feedback=[feedback(one) for one in page.feedback[-models.MOST_FEEDBACK :]] if program.sees_patients else None,
    )


def series(one: SeriesStatus, status: StudyStatus) -> models.Series:
    """Give one series."""
    return models.Series(
        series_instance_uid=one.series_instance_uid,
        number=one.number,
        modality=one.modality,
        state=SeriesState(one.state),
        why=one.why,
        triage=_triage(one.triage),
        is_basis=one.series_instance_uid == status.rests_on,
        slices=one.slices,
        unreadable=one.unreadable,
        planes=one.planes,
        expected=one.expected,
        complete=one.complete,
        attempts=one.attempts,
    )


def alert(one: AlertStatus, program: Visitor) -> models.Alert:
    """Give one alert."""
    return models.Alert(
        identifier=one.identifier,
        channel=one.channel,
        kind=one.kind,
        outcome=one.outcome,
        revision=one.revision,
        state=AlertState(one.state),
        attempts=one.attempts,
        created_at=models.moment(one.created_at),
        sent_at=models.moment_or_none(one.sent_at),
        acknowledged_at=models.moment_or_none(one.acknowledged_at),
        acknowledged_by=one.acknowledged_by,
        error=one.error if program.operates else None,
    )


def objects(page: StudyPage, program: Visitor) -> list[models.ResultObject] | None:
    """List the objects that can be taken; None for who may take none."""
    if not program.sees_patients:
        return None
    return [
        models.ResultObject(name=one.name, what=one.what, revision=one.revision, deliveries=list(one.states))
        for one in page.files
    ]


def feedback(one: Feedback) -> models.Feedback:
    """Give what one reader said."""
    return models.Feedback(
        reader=one.reader,
        revision=one.revision,
        triage=Triage(one.triage),
        agrees=one.agrees,
        hemorrhage=one.hemorrhage,
        classes=[_class(name) for name in one.classes],
        slices=[_key(uid, frame) for uid, frame in one.slices],
        note=one.note,
        given_at=models.moment(one.given_at),
    )


def results(line: Line, page: StudyPage, program: Visitor) -> models.StudyResults:
    """Give the findings of a study."""
    status = page.status
    ordered = sorted(status.series, key=lambda one: one.series_instance_uid != status.rests_on)
    return models.StudyResults(
        study_instance_uid=status.study_instance_uid,
        revision=status.revision,
        state=state(line),
        in_words=status.outcome,
        series=[_result(one, status) for one in ordered],
        objects=objects(page, program),
    )


def _result(one: SeriesStatus, status: StudyStatus) -> models.SeriesResult:
    finding = one.finding or {}
    keys = {(uid, frame) for uid, frame in finding.get("key_slices", {}).get("any", ())}
    return models.SeriesResult(
        series=series(one, status),
        test_model=bool(finding.get("test_model")),
        classes=_classes(finding),
        model=_model(one.model),
        slices=[_slice(said, keys) for said in finding.get("slices", ())[: models.MOST_SLICES]],
    )


def _classes(finding: dict[str, Any]) -> list[models.ClassResult]:
    probabilities, presence = finding.get("probabilities", {}), finding.get("presence", {})
    thresholds = finding.get("thresholds", {})
    return [
        models.ClassResult(
            name=_class(name),
            presence=Presence(presence[name]) if name in presence else None,
            probability=probabilities[name],
            low=thresholds.get(name, {}).get("low"),
            high=thresholds.get(name, {}).get("high"),
        )
        for name in HEMORRHAGE_CLASSES
        if name in probabilities
    ]


def _model(said: dict[str, Any] | None) -> models.Model | None:
    if not said:
        return None
    return models.Model(
        name=str(said.get("name", "")),
        version=str(said.get("version", "")),
        sha256=str(said.get("sha256", "")),
        trained=bool(said.get("trained")),
    )


def _slice(said: dict[str, Any], keys: set[tuple[str, int | None]]) -> models.SliceResult:
    return models.SliceResult(
        slice=_key(said["sop_instance_uid"], said["frame"]),
        members=[_key(one["sop_instance_uid"], one["frame"]) for one in said.get("members", ())],
        position_mm=said["position_mm"],
        probabilities=_probabilities(said["probabilities"], HEMORRHAGE_CLASSES),
        is_key=(said["sop_instance_uid"], said["frame"]) in keys,
    )


def _probabilities(said: dict[str, float], names: Any) -> list[models.ClassProbability]:
    return [models.ClassProbability(name=_class(name), probability=said[name]) for name in names if name in said]


def _delivery(one: DeliveryStatus, program: Visitor) -> models.Delivery:
    return models.Delivery(
        destination=one.destination,
        what=one.what,
        revision=one.revision,
        state=DeliveryState(one.state),
        attempts=one.attempts,
        sop_instance_uid=one.sop_instance_uid,
        created_at=models.moment(one.created_at),
        finished_at=models.moment_or_none(one.finished_at),
        error=one.error if program.operates else None,
    )


def _class(name: str) -> models.HemorrhageClass:
    """Give a class as its type; pydantic sees whether it is one."""
    known: dict[str, models.HemorrhageClass] = {one: one for one in models.CLASSES}
    return known[name]


def _key(uid: str, frame: int | None) -> models.SliceKey:
    return models.SliceKey.model_construct(sop_instance_uid=uid, frame=frame)


def _triage(said: str | None) -> Triage | None:
    return None if said is None else Triage(said)
