"""Read what has arrived: headers, and the pixels of all but large multi-frame objects."""

from __future__ import annotations

from collections.abc import Sequence

from ich_node.decode import DecodedInstance, DecodeTask
from ich_node.failpoint import reach
from ich_node.job_queue import reject_instances, save_read
from ich_node.job_queue.habits import close_by_habit
from ich_node.log import EventLog
from ich_node.records import InstanceState, ReadInstance, SeriesJob, StoredInstance
from ich_node.worker.bench import LEASE_S, Workbench
from ich_node.worker.fast_pass import next_to_read

_BATCH = 8

Submitted = tuple[StoredInstance, DecodeTask]

log = EventLog("work")


def submit_waiting(bench: Workbench, jobs: Sequence[SeriesJob], most: int) -> dict[int, list[Submitted]]:
    """Have children read what waits in each series, ahead of the network."""
    submitted: dict[int, list[Submitted]] = {}
    room = most
    for job in jobs:
        waiting = next_to_read(bench, job, room) if room else []
        bench.files_of(name for one in waiting for name in (one.path, one.older_path) if name)  # side by side
        submitted[job.id] = [(one, _submit(bench, one)) for one in waiting]
        room -= len(waiting)
    return submitted


def _submit(bench: Workbench, one: StoredInstance) -> DecodeTask:
    older = None if one.older_path is None else bench.file(one.older_path)
    return bench.decoder.submit(bench.file(one.path), older)


def read_series(bench: Workbench, job: SeriesJob, submitted: Sequence[Submitted]) -> bool:
    """Save what was read of a series as it comes. False: the series is no longer ours, or must not be analysed."""
    for start in range(0, len(submitted), _BATCH):
        read = [(one, task.result()) for one, task in submitted[start : start + _BATCH]]
        for instance, decoded in read:
            bench.reader.remember(bench.file(instance.path), decoded.slices)
            _log_instance(job, instance, decoded)
        bench.alive()
        reach("instances-read")
        if not save_read(
            bench.database, job, bench.owner, [_record(one, decoded) for one, decoded in read], lease_s=LEASE_S
        ):
            log.error("series quarantined, or its lease lost", study=job.study_id, series=job.id)
            return False
        reach("instances-saved")
        _reject(bench, [decoded for _, decoded in read])
    if submitted and not job.due and bench.config.series.habits:
        _close_by_habit(bench, job)
    return True


def _close_by_habit(bench: Workbench, job: SeriesJob) -> None:
    """Of which kind a series is, a release need not have known: nothing of it was read yet."""
    if close_by_habit(bench.database, job.id, max_wait_s=bench.config.series.max_wait_s):
        log.info("as many slices as this sender always sends: no waiting", study=job.study_id, series=job.id)


def _record(instance: StoredInstance, decoded: DecodedInstance) -> ReadInstance:
    return ReadInstance(
        instance_id=instance.id,
        state=decoded.state,
        facts=decoded.facts,
        reason=decoded.reason,
        detail=decoded.detail,
        marks=decoded.marks,
        rejection=decoded.rejection,
        other_picture=decoded.other_picture,
    )


def _reject(bench: Workbench, read: Sequence[DecodedInstance]) -> None:
    for decoded in read:
        if decoded.rejection is not None:
            touched = reject_instances(bench.database, decoded.rejection)
            log.warning("rejection note", reason=decoded.rejection.reason.name, series_touched=touched)


def _log_instance(job: SeriesJob, instance: StoredInstance, decoded: DecodedInstance) -> None:
    fields = {"study": job.study_id, "series": job.id, "instance": instance.id}
    if decoded.reason is not None:
        log.warning("slice not scored", **fields, state=decoded.state, reason=decoded.reason.name)
    if decoded.other_picture:
        log.error("the same UID with another picture", None, **fields)
    repairs = sorted({repair for one in decoded.facts for repair in one.repairs})
    if repairs:
        log.warning("slice repaired", **fields, repairs=repairs)
    elif decoded.state is InstanceState.DECODED:
        log.debug("slice read", **fields)
