"""Plane scores → finding: calibrated probabilities, two thresholds per class, ranked key slices."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ich_node.records import (
    HEMORRHAGE_CLASSES,
    MOST_KEY_SLICES,
    ClassThresholds,
    Completeness,
    NotAnalysedReason,
    PlaneMember,
    PlaneScore,
    PlaneScores,
    Presence,
    SliceProbability,
    Triage,
    TriageFinding,
)

_HIGHEST_PLANES: Final = 3
_FAR_ABOVE_ODDS: Final = 5.0
_ADJACENT_MM: Final = 11.0
"""Between the middles of neighbouring slices: more is a gap of which nobody knows what it hides."""
_SMOOTHING: Final = (0.25, 0.5, 0.25)
_PRESENCE_OF: Final = {
    Triage.POSITIVE: Presence.PRESENT,
    Triage.INDETERMINATE: Presence.INDETERMINATE,
    Triage.NEGATIVE: Presence.ABSENT,
}


def triage_series(
    plane_scores: PlaneScores,
    thresholds: Mapping[str, ClassThresholds],
    temperature: Mapping[str, float],
    completeness: Completeness,
    *,
    study_logits: ArrayLike | None = None,
    refined_slice_logits: ArrayLike | None = None,
    trained: bool = True,
    show_untrained: bool = False,
) -> TriageFinding:
    """Conclude a series from the scores of its planes, given in any order.

    ``refined_slice_logits`` (planes, 6) of the sequence head replace the planes' own logits and are in the order of
    ``plane_scores``; ``study_logits`` (6,) of the sequence head replace what is pooled from the planes.

    Raises:
        ValueError: no plane, a logit that is not finite, a class without threshold or temperature.
    """
    if not trained and not show_untrained:
        return not_analysed(NotAnalysedReason.UNTRAINED_MODEL, "", completeness)
    slices = _calibrated_slices(plane_scores, refined_slice_logits, temperature)
    if study_logits is None:
        probabilities = _pool(slices)
    else:
        probabilities = _by_class(calibrate(np.asarray(study_logits, dtype=np.float64).reshape(1, -1), temperature)[0])
    triage = _decide(probabilities["any"], thresholds["any"], complete=completeness.complete)
    presence = presence_of(probabilities, thresholds, triage, complete=completeness.complete)
    return TriageFinding(
        triage=triage,
        presence=presence,
        probabilities=probabilities,
        thresholds={name: thresholds[name] for name in HEMORRHAGE_CLASSES},
        slices=slices,
        key_slices={name: _key_slices(slices, name, thresholds[name], presence[name]) for name in HEMORRHAGE_CLASSES},
        completeness=completeness,
        test_model=not trained,
    )


def is_far_above(probability: float, thresholds: ClassThresholds) -> bool:
    """Say whether the odds are at least five times those at the high threshold."""
    return probability * (1 - thresholds.high) >= _FAR_ABOVE_ODDS * thresholds.high * (1 - probability)


def early_finding(finding: TriageFinding) -> dict[str, dict[str, Any]] | None:
    """Say what is certain enough to be told before a series is complete: two adjacent slices far above.

    Args:
        finding: on the slices that have come so far.

    Returns:
        Probability and presence of each class, of the pair that is highest; None where there is no such pair.
    """
    limits = finding.thresholds
    pairs = [
        (one, two)
        for one, two in pairwise(finding.slices)
        if two.position_mm - one.position_mm <= _ADJACENT_MM
        and all(is_far_above(slice_.probabilities["any"], limits["any"]) for slice_ in (one, two))
    ]
    if not pairs:
        return None
    one, two = max(pairs, key=lambda pair: pair[0].probabilities["any"] + pair[1].probabilities["any"])
    means = {name: (one.probabilities[name] + two.probabilities[name]) / 2 for name in HEMORRHAGE_CLASSES}
    presence = {
        name: Presence.PRESENT if name == "any" or mean >= limits[name].high else Presence.UNDETERMINED
        for name, mean in means.items()
    }
    return {"probabilities": means, "presence": presence}


def not_analysed(reason: NotAnalysedReason, detail: str, completeness: Completeness) -> TriageFinding:
    """State that there is no result, and why: every class is undetermined and no number is given."""
    return TriageFinding(
        triage=None,
        presence=dict.fromkeys(HEMORRHAGE_CLASSES, Presence.UNDETERMINED),
        probabilities={},
        thresholds={},
        slices=(),
        key_slices={},
        completeness=completeness,
        reason=reason,
        reason_detail=detail,
    )


def pool_planes(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the study's probabilities (6,): the mean of the three highest planes after smoothing along the series.

    So one odd plane alone decides nothing.

    Args:
        probabilities: (planes, 6), calibrated, in anatomical order; at least one.
    """
    highest = np.sort(_smooth(probabilities), axis=0)[-_HIGHEST_PLANES:]
    pooled: NDArray[np.float64] = highest.mean(axis=0)
    return pooled


def calibrate(logits: NDArray[np.float64], temperature: Mapping[str, float]) -> NDArray[np.float64]:
    """Turn logits (planes, 6) into probabilities: sigmoid(logit / temperature), written so that it cannot overflow.

    Raises:
        ValueError: a logit that is not finite, a class without a temperature.
    """
    if logits.shape[-1] != len(HEMORRHAGE_CLASSES) or not np.isfinite(logits).all():
        raise ValueError("logits must be six finite numbers")
    if missing := [name for name in HEMORRHAGE_CLASSES if not temperature.get(name, 0.0) > 0.0]:
        raise ValueError(f"no positive temperature for {missing}")
    scaled = logits / np.asarray([temperature[name] for name in HEMORRHAGE_CLASSES])
    probabilities: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * scaled))
    return probabilities


def _calibrated_slices(
    plane_scores: PlaneScores, refined_slice_logits: ArrayLike | None, temperature: Mapping[str, float]
) -> tuple[SliceProbability, ...]:
    """Calibrate every plane and put them into anatomical order."""
    logits = np.asarray(
        [plane.logits for plane in plane_scores] if refined_slice_logits is None else refined_slice_logits,
        dtype=np.float64,
    )
    if not plane_scores or logits.shape != (len(plane_scores), len(HEMORRHAGE_CLASSES)):
        raise ValueError(f"{len(plane_scores)} planes with logits of shape {logits.shape}")
    slices = [
        SliceProbability(plane.sop_instance_uid, plane.frame, plane.position_mm, _by_class(row), _slab(plane))
        for plane, row in zip(plane_scores, calibrate(logits, temperature), strict=True)
    ]
    return tuple(sorted(slices, key=lambda one: (one.position_mm, one.sop_instance_uid, one.frame or 0)))


def _slab(plane: PlaneScore) -> tuple[PlaneMember, ...]:
    return plane.members if len(plane.members) > 1 else ()


def _by_class(probabilities: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(HEMORRHAGE_CLASSES, map(float, probabilities), strict=True))


def _pool(slices: tuple[SliceProbability, ...]) -> dict[str, float]:
    planes = np.asarray([[one.probabilities[name] for name in HEMORRHAGE_CLASSES] for one in slices])
    return _by_class(pool_planes(planes))


def _smooth(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth (planes, 6) along the planes; the weights at the two ends are brought back to a sum of 1."""
    before, here, after = _SMOOTHING
    total = here * planes
    weight = np.full(len(planes), here)
    total[1:] += before * planes[:-1]
    weight[1:] += before
    total[:-1] += after * planes[1:]
    weight[:-1] += after
    smoothed: NDArray[np.float64] = total / weight[:, np.newaxis]
    return smoothed


def _decide(probability: float, thresholds: ClassThresholds, *, complete: bool) -> Triage:
    """Two thresholds; what was not seen cannot be negative."""
    if probability >= thresholds.high:
        return Triage.POSITIVE
    if probability >= thresholds.low or not complete:
        return Triage.INDETERMINATE
    return Triage.NEGATIVE


def presence_of(
    probabilities: Mapping[str, float],
    thresholds: Mapping[str, ClassThresholds],
    triage: Triage,
    *,
    complete: bool,
) -> dict[str, Presence]:
    """A subtype is present only where hemorrhage as such is not negative; a contradiction is indeterminate."""
    presence = {"any": _PRESENCE_OF[triage]}
    for name in HEMORRHAGE_CLASSES[1:]:
        found = _PRESENCE_OF[_decide(probabilities[name], thresholds[name], complete=complete)]
        contradicts = found is Presence.PRESENT and triage is Triage.NEGATIVE
        presence[name] = Presence.INDETERMINATE if contradicts else found
    return presence


def _key_slices(
    slices: tuple[SliceProbability, ...], name: str, thresholds: ClassThresholds, presence: Presence
) -> tuple[SliceProbability, ...]:
    """The planes that speak most for a class, best first; the best one alone where none reaches the low threshold."""
    if presence is Presence.ABSENT:
        return ()
    ranked = sorted(slices, key=lambda one: (-one.probabilities[name], one.position_mm, one.sop_instance_uid))
    reaching = [one for one in ranked if one.probabilities[name] >= thresholds.low]
    return tuple(reaching[:MOST_KEY_SLICES] or ranked[:1])
