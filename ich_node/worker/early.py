"""Tell of what is certain before a series is complete: two adjacent slices far above the high threshold."""

from __future__ import annotations

from collections.abc import Sequence

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
    if tells_early(bench) and any(far_above(bench, [one.logits for one in scores])):
        bench.striking.add(job.id)


def tells_early(bench: Workbench) -> bool:
    """Say whether there is anybody to tell before a series is complete, by a model that may speak."""
    may_speak = bench.model.identity.trained or bench.model.show_untrained
    return bool(bench.config.alert_rule) and bench.config.alert.early and may_speak


def far_above(bench: Workbench, logits: Sequence[Sequence[float]]) -> list[bool]:
    """Say of each slice, by its own logits, whether hemorrhage is far above the high threshold."""
    if not logits:
        return []
    calibrated = calibrate(np.asarray(logits, dtype=np.float64), bench.model.bundle.manifest.temperature)
    limits = bench.model.bundle.thresholds["any"]
    return [is_far_above(float(one), limits) for one in calibrated[:, _ANY]]


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
        log.info("early finding", study=job.study_id, series=job.id, slices=len(finding.slices))
