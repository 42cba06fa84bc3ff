"""Score the planes of a series that are ready, a few at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ich_node.decode import DecodedPlane, MemberFile
from ich_node.failpoint import reach
from ich_node.job_queue import SeriesPlan, WhyUnreadable, load_plan, mark_unreadable, save_planes
from ich_node.log import EventLog
from ich_node.pipeline import is_worth_scoring, plan_series, score_planes
from ich_node.planes import PlannedPlane
from ich_node.records import SeriesJob, SliceKey, StoredPlane
from ich_node.worker.bench import LEASE_S, PLANES_AT_ONCE, Workbench, batch_of
from ich_node.worker.early import far_above, note_striking
from ich_node.worker.fast_pass import makes_fast_pass, scoring_order

log = EventLog("work")


def score_ready_planes(bench: Workbench, job: SeriesJob, *, closing: bool, most: int = PLANES_AT_ONCE) -> int | None:
    """Score up to ``most`` planes of a series.

    Args:
        closing: no slice is waited for any more: all planes are ready, and those that do not belong are removed.

    Returns:
        How many ready planes are left; None where the series is no longer ours.
    """
    plan = load_plan(bench.database, job.id, bench.model_sha256)
    if not (closing or plan.concluded_before or is_worth_scoring(plan.facts, plan.siblings)):
        return _note_nothing_waits(bench, job, plan)
    planned = plan_series(plan.facts, closing=closing)
    missing = _missing(bench, plan, planned, most=None if closing else most)
    if closing and not _remove(bench, job, plan, planned):
        return None
    return _score(bench, job, plan, missing, most)


def _missing(
    bench: Workbench, plan: SeriesPlan, planned: Sequence[PlannedPlane], *, most: int | None
) -> Sequence[PlannedPlane]:
    """List the planes that are ready and not scored; where they are more than ``most``, by the fast pass."""
    scored = {one.members for one in plan.planes}
    missing = [one for one in planned if one.ready and one.members not in scored]
    if most is None or len(missing) <= most or not makes_fast_pass(bench):
        return missing
    far = far_above(bench, [one.logits for one in plan.planes])
    return scoring_order(planned, plan.planes, [one.id for one, is_far in zip(plan.planes, far, strict=True) if is_far])


def _remove(bench: Workbench, job: SeriesJob, plan: SeriesPlan, planned: Sequence[PlannedPlane]) -> bool:
    """Remove planes that the series does not have any more."""
    wanted = {one.members for one in planned}
    stale = [one.id for one in plan.planes if one.members not in wanted] + list(plan.of_other_models)
    return not stale or _save(bench, job, [], stale=stale, waiting=0) is not None


def _score(
    bench: Workbench, job: SeriesJob, plan: SeriesPlan, missing: Sequence[PlannedPlane], most: int
) -> int | None:
    left = len(missing)
    if not left:
        return _note_nothing_waits(bench, job, plan)
    now = missing[:most]
    bench.files_of({plan.paths[uid] for plane in now for uid, _ in _keys(plane)})  # side by side, then one by one
    tasks = [(plane, bench.reader.read([_file(bench, plan, key) for key in _keys(plane)])) for plane in now]
    size = batch_of(bench.model)
    for start in range(0, len(tasks), size):
        read = [(plane, task.result()) for plane, task in tasks[start : start + size]]
        bench.alive()
        if unreadable := _unreadable(read):
            mark_unreadable(bench.database, job.id, unreadable)
            log.warning(
                "slices not scored",
                study=job.study_id,
                series=job.id,
                reasons=sorted({why[0].name for why in unreadable.values()}),
            )
        good = [(plane, pixels) for plane, pixels in read if not pixels.unreadable]
        left -= len(good)
        if _save(bench, job, good, stale=_replaced(plan.planes, good), waiting=left) is None:
            return None
    return left


def _note_nothing_waits(bench: Workbench, job: SeriesJob, plan: SeriesPlan) -> int | None:
    """Most steps find nothing to score and nothing to note: they need not queue for the write lock."""
    return _save(bench, job, [], stale=(), waiting=0) if plan.planes_waiting else 0


def _save(
    bench: Workbench,
    job: SeriesJob,
    planes: Sequence[tuple[PlannedPlane, DecodedPlane]],
    *,
    stale: Sequence[int],
    waiting: int,
) -> int | None:
    scores = score_planes(planes, bench.model)
    if scores:
        reach("planes-scored")
    saved = save_planes(
        bench.database,
        job,
        bench.owner,
        scores,
        stale=stale,
        waiting=waiting,
        model_sha256=bench.model_sha256,
        lease_s=LEASE_S,
    )
    if not saved:
        log.warning("lease lost while scoring; another worker has the series", study=job.study_id, series=job.id)
        return None
    if scores:
        reach("planes-saved")
    for plane in scores:
        log.debug("plane scored", study=job.study_id, series=job.id, slices=len(plane.members))
    note_striking(bench, job, scores)
    return waiting


def _keys(plane: PlannedPlane) -> list[SliceKey]:
    return [one.key for one in plane.members]


def _file(bench: Workbench, plan: SeriesPlan, key: SliceKey) -> MemberFile:
    return bench.file(plan.paths[key[0]]), key[1]


def _unreadable(read: Sequence[tuple[PlannedPlane, DecodedPlane]]) -> Mapping[SliceKey, WhyUnreadable]:
    return {
        plane.members[one.index].key: (one.reason, one.detail) for plane, pixels in read for one in pixels.unreadable
    }


def _replaced(stored: Sequence[StoredPlane], scored: Sequence[tuple[PlannedPlane, DecodedPlane]]) -> list[int]:
    """Number the planes that hold a slice of one that was scored now."""
    keys = {one.key for plane, _ in scored for one in plane.members}
    return [one.id for one in stored if any(member.key in keys for member in one.members)]
