"""Reports on studies that have no result, or none any more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from pydicom import dcmread

from ich_node.failpoint import reach
from ich_node.job_queue import (
    SavedObject,
    StudyToTell,
    load_content,
    report_not_analysed,
    studies_to_withdraw,
    unreported_studies,
    withdraw_study,
)
from ich_node.log import EventLog
from ich_node.pipeline import report, study_context
from ich_node.records import Completeness, Destination, ReportIdentity, StudyContext, StudySent, TriageFinding
from ich_node.report.withdrawal import is_of_test_model, withdrawn_context
from ich_node.triage import not_analysed
from ich_node.worker.bench import Workbench
from ich_node.worker.picturing import viewer_kinds
from ich_node.worker.results_folder import save_objects

log = EventLog("work")

Attempt = Callable[[Callable[[], object]], Exception | None]


def withdraw_results(bench: Workbench, attempt: Attempt) -> bool:
    """Withdraw results that do not hold any more. False: there was none."""
    withdrawn = studies_to_withdraw(bench.database)
    for study in withdrawn:
        objects = _built(bench, study, _withdrawal, attempt)
        if withdraw_study(bench.database, study, objects, _destinations(bench, study)):
            log.error("result withdrawn", study=study.id, reason=study.reason.name, reported=bool(objects))
    return bool(withdrawn)


def tell_of_no_result(bench: Workbench, attempt: Attempt) -> bool:
    """Say of studies in which a head was to be expected that there is no result. False: there was none to tell of."""
    unreported = unreported_studies(bench.database)
    for study in unreported:
        objects = _built(bench, study, _no_result, attempt)
        reach("no-result-before-row")
        if report_not_analysed(bench.database, study, objects, _destinations(bench, study)):
            log.warning("study not analysed", study=study.id, reason=study.reason.name, reported=bool(objects))
    return bool(unreported)


def _built(
    bench: Workbench,
    study: StudyToTell,
    build: Callable[[Workbench, StudyToTell], Sequence[SavedObject]],
    attempt: Attempt,
) -> Sequence[SavedObject]:
    objects: list[SavedObject] = []
    if error := attempt(lambda: objects.extend(build(bench, study))):
        log.error("no report on a study without a result; the status tells of it", error, study=study.id)
    return objects


def _no_result(bench: Workbench, study: StudyToTell) -> Sequence[SavedObject]:
    content = load_content(bench.database, study.series_id, None)
    finding = not_analysed(study.reason, study.detail, Completeness())
    context = study_context(
        study.study_instance_uid,
        study.series_instance_uid,
        content.facts,
        bench.files_of(one.path for one in content.instances),
    )
    return _saved(bench, study, context, finding)


def _withdrawal(bench: Workbench, study: StudyToTell) -> Sequence[SavedObject]:
    """The report is about whom the earlier one was about: what came since may be somebody else's."""
    if study.previous_file is None:
        return ()
    finding = not_analysed(study.reason, study.detail, Completeness())
    previous = dcmread(bench.file(study.previous_file))
    context = withdrawn_context(previous)
    finding = dataclasses.replace(finding, withdrawn=True, test_model=is_of_test_model(previous))
    return _saved(bench, study, context, finding)


def _saved(
    bench: Workbench, study: StudyToTell, context: StudyContext, finding: TriageFinding
) -> Sequence[SavedObject]:
    objects = report(
        ReportIdentity(bench.installation_uid, study.study_instance_uid, study.revision),
        context,
        finding,
        None,
        (),
        predecessors=study.predecessors,
        kinds=viewer_kinds(bench, _destinations(bench, study), finding, study.predecessors),
        mode=bench.mode(study.calling_ae_title, study.remote_address),
    )
    return save_objects(bench.files, objects)


def _destinations(bench: Workbench, study: StudyToTell) -> Sequence[Destination]:
    return bench.destinations(StudySent(study.calling_ae_title, study.remote_address, study.old, None))
