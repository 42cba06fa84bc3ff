"""While slices arrive: plan planes and score them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from ich_node.completeness import assess_completeness
from ich_node.decode import DecodedPlane, position_along_normal_mm
from ich_node.pipeline.analysis import analysed_siblings
from ich_node.pipeline.model import Model
from ich_node.planes import PlannedPlane, plan_planes
from ich_node.records import (
    PlaneMember,
    PlaneScore,
    PlaneScores,
    SiblingSeries,
    SliceFacts,
    TissueMeasure,
)
from ich_node.series_choice import chosen_over, describe_series, waits_for_others


def plan_series(facts: Sequence[SliceFacts], *, closing: bool) -> tuple[PlannedPlane, ...]:
    """Plan the planes of a series from its eligible slices; see :func:`plan_planes`."""
    members = [PlaneMember(one.sop_instance_uid, one.frame, position_along_normal_mm(one)) for one in facts]
    thickness = [one.slice_thickness_mm for one in facts if one.slice_thickness_mm]
    return plan_planes(members, median(thickness) if thickness else None, closing=closing)


def score_planes(planes: Sequence[tuple[PlannedPlane, DecodedPlane]], model: Model) -> PlaneScores:
    """Window and score planes, each by itself.

    Raises:
        ModelError: the network gave a number that is none.
    """
    scores: list[PlaneScore] = []
    for batch in _batches(planes, model.engine.batch_size):
        logits, embeddings = model.engine.score_hu([read.hu for _, read in batch])
        scores += [
            _plane_score(plane, read.tissue, row, vector)
            for (plane, read), row, vector in zip(batch, logits, embeddings, strict=True)
        ]
    return tuple(scores)


def _batches(
    planes: Sequence[tuple[PlannedPlane, DecodedPlane]], size: int
) -> Iterator[Sequence[tuple[PlannedPlane, DecodedPlane]]]:
    for start in range(0, len(planes), size):
        yield planes[start : start + size]


def _plane_score(
    plane: PlannedPlane, tissue: TissueMeasure | None, logits: NDArray[np.float32], embedding: NDArray[np.float32]
) -> PlaneScore:
    return PlaneScore(
        sop_instance_uid=plane.middle.sop_instance_uid,
        frame=plane.middle.frame,
        position_mm=plane.position_mm,
        logits=tuple(float(value) for value in logits),
        embedding=embedding.astype(np.float16),
        members=plane.members,
        tissue=tissue,
    )


def is_worth_scoring(facts: Sequence[SliceFacts], siblings: Sequence[SiblingSeries]) -> bool:
    """Tell whether a series that is still arriving is to be scored now.

    Not a bone reconstruction, which waits for a better one, nor what another series of the study stands for.
    """
    if not facts:
        return False
    mine = describe_series(facts, assess_completeness([position_along_normal_mm(one) for one in facts]))
    return not (waits_for_others(mine) or chosen_over(mine, analysed_siblings(siblings)))
