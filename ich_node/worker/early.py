"""Tell of what is certain before a series is complete: two adjacent slices far above the high threshold."""

from __future__ import annotations

import numpy as np

from ich_node.job_queue import load_content
from ich_node.job_queue.alert_early import note_early_finding
from ich_node.log import EventLog
from ich_node.patient_mix import judge_patient_mix
from ich_node.pipeline import analyse_series, assess_series, eligible_slices
from ich_node.records import HEMORRHAGE_CLASSES, PlaneScores, SeriesJob
from ich_node.triage import calibrate, early_finding, is_far_above
from ich_node.worker.bench import Workbench

_ANY = HEMORRHAGE_CLASSES.index("any")

log = EventLog("work")


def note_striking(bench: Workbench, job: SeriesJob, scores: PlaneScores) -> None:
    """Remember a series with a slice far above; few have one, and only they are looked at more closely."""
    if not (scores and bench.config.alert_rule and bench.config.alert.early and _may_speak(bench)):
        return
    logits = np.asarray([one.logits for one in scores], dtype=np.float64)
    highest = calibrate(logits, bench.model.bundle.manifest.temperature)[:, _ANY].max()
    if is_far_above(float(highest), bench.model.bundle.thresholds["any"]):
        bench.striking.add(job.id)


def look_early(bench: Workbench, job: SeriesJob) -> None:
    """Enter the early finding of a series that is arriving, once its eligibility is decided."""
    if job.id not in bench.striking:
        return
    content = load_content(bench.database, job.id, bench.model_sha256)
    assessment = assess_series(content, bench.rules)
    if content.concluded_before or assessment.declined is not None or assessment.waits:
        return
    if judge_patient_mix(content.marks, eligible_slices(content.facts), in_two_studies=content.in_two_studies):
        return
    finding = analyse_series(content, assessment, bench.model, bench.rules).finding
    early = None if finding.triage is None else early_finding(finding)
    if early is None:
        return
    bench.striking.discard(job.id)
    if note_early_finding(bench.database, job, bench.owner, early | {"test_model": finding.test_model}):
        log.info("early finding", series=job.id, slices=len(finding.slices))


def _may_speak(bench: Workbench) -> bool:
    return bench.model.identity.trained or bench.model.show_untrained
