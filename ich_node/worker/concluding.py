"""Close a series that is due and conclude it: mixed up? a head? chosen? whole? then triage and report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime

from ich_node.drift import measure_series
from ich_node.errors import FindingLost
from ich_node.failpoint import reach
from ich_node.job_queue import (
    Conclusion,
    ReportPlan,
    SavedFinding,
    SavedObject,
    analyse_again,
    close_series,
    conclude_series,
    finding_to_json,
    load_content,
    load_finding,
    plan_report,
    postpone,
    quarantine_series,
)
from ich_node.log import EventLog
from ich_node.patient_mix import judge_patient_mix
from ich_node.pipeline import (
    Analysis,
    Assessment,
    analyse_series,
    assess_series,
    eligible_slices,
    fingerprint,
    report,
    study_context,
)
from ich_node.records import (
    Destination,
    NotAnalysedReason,
    ReportIdentity,
    ResultObject,
    SeriesContent,
    SeriesJob,
    SeriesState,
    Step,
    StudyContext,
    StudySent,
    TriageFinding,
)
from ich_node.worker.bench import LEASE_S, Workbench
from ich_node.worker.picturing import keeps_maps, maps_of, pictures_of, viewer_kinds
from ich_node.worker.results_folder import save_objects
from ich_node.worker.scoring_planes import score_ready_planes

_IN_PARTS = 10
_NO_SLICE = 99

log = EventLog("work")


def conclude(bench: Workbench, job: SeriesJob) -> bool:
    """Conclude a series that is due, or postpone it where waiting may bring what is missing.

    True: nothing went wrong.
    """
    if not close_series(bench.database, job, bench.owner, lease_s=LEASE_S):
        return True
    reach("series-closed")
    closed_at = datetime.now(UTC)
    content = load_content(bench.database, job.id, bench.model_sha256)
    if _quarantined(bench, job, content):
        return True
    assessment = assess_series(content, bench.rules)
    if assessment.could_gain and _may_wait(bench, job, content, assessment):
        return True
    if assessment.declined is None:
        if not _score_all(bench, job):
            return True
        content = load_content(bench.database, job.id, bench.model_sha256)
        assessment = assess_series(content, bench.rules)
        if assessment.could_gain and _may_wait(bench, job, content, assessment):
            return True
    analysis = analyse_series(content, assessment, bench.model, bench.rules)
    steps = (
        Step("first slice received", job.first_received_at),
        Step("last slice received", job.last_received_at),
        Step("series closed", closed_at),
        Step("analysed", datetime.now(UTC)),
    )
    try:
        conclusion = _conclusion(bench, job, content, analysis, steps)
    except FindingLost as lost:
        if not analyse_again(bench.database, lost.series_id):
            raise
        log.info(
            "the series that the answer rests on is analysed again first",
            study=job.study_id,
            series=job.id,
            first=lost.series_id,
        )
        postpone(bench.database, job, bench.owner, 0.0)
        return True
    reach("report-before-row")
    if conclude_series(bench.database, job, bench.owner, conclusion):
        reach("concluded")
        _log_conclusion(job, conclusion)
    else:
        log.info("conclusion void, the series changed", study=job.study_id, series=job.id)
    return True


def standing_of(bench: Workbench, job: SeriesJob) -> int | None:
    """Say how good a series is that is due, so that of several at once the best is concluded first.

    None while not all of it was read.
    """
    content = load_content(bench.database, job.id, bench.model_sha256)
    if content.waiting:
        return None
    description = assess_series(content, bench.rules).description
    return _NO_SLICE if description is None else description.rank + (0 if description.whole else _IN_PARTS)


def _quarantined(bench: Workbench, job: SeriesJob, content: SeriesContent) -> bool:
    mixed = judge_patient_mix(content.marks, eligible_slices(content.facts), in_two_studies=content.in_two_studies)
    if mixed is None:
        return False
    reason, detail = mixed
    if quarantine_series(bench.database, job.id, bench.owner, reason, detail):
        log.error(
            "series quarantined; a person must look",
            study=job.study_id,
            series=job.id,
            reason=reason.name,
            detail=detail,
        )
    return True


def _may_wait(bench: Workbench, job: SeriesJob, content: SeriesContent, assessment: Assessment) -> bool:
    """Postpone, unless ``max_wait_s`` has passed or the PACS says that there is no more and it has been quiet."""
    settings = bench.config.series
    if job.last_chance:
        return False
    expected = content.expected_instances
    nothing_more = job.counted and expected is not None and len(content.instances) >= expected > 0
    wait_s = settings.quiet_s if nothing_more and not assessment.waits else settings.max_wait_s
    if (datetime.now(UTC) - job.last_received_at).total_seconds() >= wait_s:
        return False
    postpone(bench.database, job, bench.owner, wait_s)
    return True


def _score_all(bench: Workbench, job: SeriesJob) -> bool:
    """Score what is left. False: the series is no longer ours."""
    while (left := score_ready_planes(bench, job, closing=True)) is not None:
        if not left:
            return True
    return False


def _conclusion(
    bench: Workbench, job: SeriesJob, content: SeriesContent, analysis: Analysis, steps: Sequence[Step]
) -> Conclusion:
    finding, identity = analysis.finding, bench.model.identity
    choice = None if analysis.description is None else dataclasses.asdict(analysis.description)
    bare = Conclusion(
        state=SeriesState.NOT_ANALYSED,
        reason=finding.reason,
        detail=finding.reason_detail,
        complete=finding.completeness.complete,
        head_expected=analysis.head_expected,
        stamp=content.stamp,
        choice=choice,
        steps=_times(steps),
        measure=measure_series(content, finding, identity),
    )
    if _is_declined(finding) or not content.planes:
        return bare
    study = _context(bench, job, content)
    same = fingerprint(content, finding, study, identity)
    number = None if analysis.description is None else analysis.description.series_number
    plan = plan_report(bench.database, job, finding.triage, finding.reason, same, number)
    destinations = bench.destinations(StudySent(job.calling_ae_title, job.remote_address, plan.old, plan.triage))
    objects = _report(bench, job, plan, content, study, finding, steps, destinations)
    if objects:
        steps = (*steps, Step("report saved", datetime.now(UTC)))
    return dataclasses.replace(
        bare,
        state=SeriesState.CONCLUDED,
        triage=finding.triage,
        planes=len(content.planes),
        fingerprint=same,
        finding=finding_to_json(finding),
        model=dataclasses.asdict(identity),
        steps=_times(steps),
        plan=plan,
        objects=objects,
        destinations=destinations,
    )


def _context(bench: Workbench, job: SeriesJob, content: SeriesContent) -> StudyContext:
    read = {one.sop_instance_uid for plane in content.planes for one in plane.members}
    facts = [one for one in eligible_slices(content.facts) if one.sop_instance_uid in read]
    files = bench.files_of(one.path for one in content.instances if one.sop_instance_uid in read)
    return study_context(job.study_instance_uid, job.series_instance_uid, facts, files)


def _report(
    bench: Workbench,
    job: SeriesJob,
    plan: ReportPlan,
    content: SeriesContent,
    study: StudyContext,
    finding: TriageFinding,
    steps: Sequence[Step],
    destinations: Sequence[Destination],
) -> tuple[SavedObject, ...]:
    """Build the study's report: on this series, or on the one that the study's answer rests on.

    After a failed attempt the report goes alone: nothing that is drawn beside it may keep it from going out.
    """
    if plan.revision is None:
        return ()
    model = bench.model.identity
    if plan.rests_on_series_id != job.id:
        saved = load_finding(bench.database, plan.rests_on_series_id)
        finding, model = saved.finding, saved.model
        content = load_content(bench.database, plan.rests_on_series_id, None)
        study = _context_of(bench, job, content, saved, study)
        steps = [Step(name, datetime.fromtimestamp(at, UTC)) for name, at in saved.steps.items()]
    kinds = () if job.attempts else viewer_kinds(bench, destinations, finding, plan.predecessors)
    with_maps = not job.attempts and keeps_maps(bench)
    pictures = pictures_of(bench, content, finding, kinds, for_maps=with_maps)
    identity = ReportIdentity(bench.installation_uid, job.study_instance_uid, plan.revision)
    objects: Sequence[ResultObject] = report(
        identity,
        study,
        finding,
        model,
        steps,
        predecessors=plan.predecessors,
        other_series=plan.other_series,
        pictures=pictures,
        kinds=kinds,
        mode=bench.mode(job.calling_ae_title, job.remote_address),
    )
    reach("report-before-save")
    return save_objects(bench.files, objects, maps_of(finding, pictures) if with_maps else ())


def _context_of(
    bench: Workbench, job: SeriesJob, content: SeriesContent, saved: SavedFinding, study: StudyContext
) -> StudyContext:
    """The images of another series; patient and study as in what came last."""
    slices = saved.finding.slices
    read = {one.sop_instance_uid for one in slices}
    read |= {member.sop_instance_uid for one in slices for member in one.members}
    facts = [one for one in eligible_slices(content.facts) if one.sop_instance_uid in read]
    files = bench.files_of(one.path for one in content.instances if one.sop_instance_uid in read)
    other = study_context(job.study_instance_uid, saved.series_instance_uid, facts, files)
    return dataclasses.replace(other, header=study.speaker)


def _is_declined(finding: TriageFinding) -> bool:
    """Tell a series that is no head CT from one that an untrained model has nothing to say of."""
    return finding.reason is not None and finding.reason is not NotAnalysedReason.UNTRAINED_MODEL


def _times(steps: Sequence[Step]) -> dict[str, float]:
    return {step.name: step.at.timestamp() for step in steps}


def _log_conclusion(job: SeriesJob, conclusion: Conclusion) -> None:
    log.info(
        "series concluded" if conclusion.state is SeriesState.CONCLUDED else "series not analysed",
        study=job.study_id,
        series=job.id,
        triage=conclusion.triage,
        reason=conclusion.reason.name if conclusion.reason else None,
        complete=conclusion.complete,
        planes=conclusion.planes,
        revision=conclusion.revision,
    )
