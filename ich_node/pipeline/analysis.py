"""When a series has arrived: a head? chosen? whole? then triage."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ich_node.completeness import assess_completeness
from ich_node.decode import position_along_normal_mm
from ich_node.eligibility import head_expected, header_ineligibility, series_ineligibility
from ich_node.model.engine import run_sequence_head
from ich_node.pipeline.model import Model
from ich_node.records import (
    OPEN_SERIES,
    UNREADABLE_REASONS,
    Completeness,
    EligibilityRules,
    NotAnalysedReason,
    PlaneScores,
    SeriesContent,
    SeriesState,
    SiblingSeries,
    SliceFacts,
    SliceKey,
    TissueMeasure,
    TriageFinding,
)
from ich_node.series_choice import SeriesDescription, chosen_over, describe_series, waits_for_others
from ich_node.triage import not_analysed, triage_series

MINIMUM_SLICES: Final = 10


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is known of a series before its last planes are scored."""

    completeness: Completeness
    declined: tuple[NotAnalysedReason, str] | None
    """Why its headers exclude it, or another series was chosen."""
    description: SeriesDescription | None
    """None where no slice is eligible."""
    head_expected: bool
    waits: bool = False
    """Another series of the study is waited for, as long as slices are."""

    @property
    def could_gain(self) -> bool:
        """Waiting for more slices could change it."""
        if self.declined is not None:
            return self.declined[0] in (NotAnalysedReason.TOO_FEW_SLICES, NotAnalysedReason.NO_READABLE_SLICE)
        return self.waits or not self.completeness.complete


@dataclass(frozen=True, slots=True)
class Analysis:
    """What is to be said of a series."""

    finding: TriageFinding
    head_expected: bool
    description: SeriesDescription | None = None


def assess_series(content: SeriesContent, rules: EligibilityRules) -> Assessment:
    """Say what can be said of a series by its headers, its positions and what was scored so far."""
    eligible = eligible_slices(content.facts)
    tissues = _tissues(content)
    completeness = assess_completeness(
        [position_along_normal_mm(one) for one in eligible],
        [one.slice_thickness_mm for one in eligible],
        content.unreadable,
        tissues=tissues if _both_ends_are_measured(content) else (),
        expected=content.expected_instances,
        received=len(content.instances),
    )
    declined = _why_not(content, rules)
    expected = head_expected(content.facts, tissues, rules)
    description = describe_series(eligible, completeness) if eligible else None
    if declined is not None or description is None:
        return Assessment(completeness, declined, description, expected)
    if content.concluded_before:
        return Assessment(completeness, None, description, expected)
    if (chosen := chosen_over(description, analysed_siblings(content.siblings))) is not None:
        declined = NotAnalysedReason.OTHER_SERIES_CHOSEN, _name_of(chosen, content.siblings)
    return Assessment(completeness, declined, description, expected, _waits(description, content.siblings))


def analyse_series(content: SeriesContent, assessment: Assessment, model: Model, rules: EligibilityRules) -> Analysis:
    """Conclude from everything that is known of a series: not a head CT, or a triage."""
    completeness, description = assessment.completeness, assessment.description
    declined = assessment.declined or series_ineligibility(
        _readable(content.facts), _tissues(content), rules, MINIMUM_SLICES
    )
    if declined is not None:
        return Analysis(not_analysed(*declined, completeness), assessment.head_expected, description)
    planes = tuple(
        sorted(content.planes, key=lambda plane: (plane.position_mm, plane.sop_instance_uid, plane.frame or 0))
    )
    finding = _triage(planes, completeness, model)
    if description is not None:
        finding = dataclasses.replace(finding, derived=description.derived, bone_kernel=description.bone)
    return Analysis(finding, head_expected=True, description=description)


def eligible_slices(facts: Sequence[SliceFacts]) -> list[SliceFacts]:
    """Give the slices that can be scored."""
    return [one for one in facts if one.reason is None]


def _readable(facts: Sequence[SliceFacts]) -> list[SliceFacts]:
    return [one for one in facts if one.reason not in UNREADABLE_REASONS]


def _tissues(content: SeriesContent) -> list[tuple[SliceFacts, TissueMeasure]]:
    """Measures of the planes, and of slices that are in no scored plane yet, from foot to head."""
    by_slice = {one.key: one for one in eligible_slices(content.facts)}
    measured: list[tuple[SliceFacts, TissueMeasure]] = []
    in_planes: set[SliceKey] = set()
    for plane in content.planes:
        middle = by_slice.get((plane.sop_instance_uid, plane.frame))
        if middle is not None and plane.tissue is not None:
            measured.append((middle, plane.tissue))
            in_planes.update(one.key for one in plane.members)
    rest = [one for key, one in by_slice.items() if key not in in_planes]
    measured += [(one, one.tissue) for one in rest if one.tissue is not None]
    return sorted(measured, key=lambda pair: position_along_normal_mm(pair[0]))


def _both_ends_are_measured(content: SeriesContent) -> bool:
    """Before all planes of a large object are scored, the outermost that are need not be its ends."""
    in_planes = {one.key for plane in content.planes for one in plane.members}
    ordered = sorted(eligible_slices(content.facts), key=position_along_normal_mm)
    return all(one.tissue is not None or one.key in in_planes for one in (*ordered[:1], *ordered[-1:]))


def _why_not(content: SeriesContent, rules: EligibilityRules) -> tuple[NotAnalysedReason, str] | None:
    readable = _readable(content.facts)
    if eligible_slices(readable):
        return header_ineligibility(readable, rules, MINIMUM_SLICES)
    if content.unreadable and not content.declined:
        return NotAnalysedReason.NO_READABLE_SLICE, f"{content.unreadable} slices"
    if readable:
        return header_ineligibility(readable, rules, MINIMUM_SLICES)
    if content.declined:
        return max(set(content.declined), key=content.declined.count), ""
    return NotAnalysedReason.NOT_CT, ""


def analysed_siblings(siblings: Sequence[SiblingSeries]) -> dict[str, SeriesDescription]:
    return {
        one.series_instance_uid: SeriesDescription(**one.choice)
        for one in siblings
        if one.state is SeriesState.CONCLUDED and one.choice
    }


def _waits(description: SeriesDescription, siblings: Sequence[SiblingSeries]) -> bool:
    """A bone reconstruction waits for a better one; a derived series for originals that are still arriving."""
    arriving = any(one.state in OPEN_SERIES for one in siblings)
    return waits_for_others(description) or (description.derived and arriving)


def _name_of(series_instance_uid: str, siblings: Sequence[SiblingSeries]) -> str:
    (choice,) = [one.choice or {} for one in siblings if one.series_instance_uid == series_instance_uid]
    number = choice.get("series_number")
    return series_instance_uid if number is None else f"series {number}, {series_instance_uid}"


def _triage(planes: PlaneScores, completeness: Completeness, model: Model) -> TriageFinding:
    manifest = model.bundle.manifest
    refined, study = None, None
    if manifest.sequence_head is not None:
        embeddings = np.stack([plane.embedding for plane in planes]).astype(np.float32)
        refined, study = run_sequence_head(model.bundle, embeddings, np.array([plane.position_mm for plane in planes]))
    return triage_series(
        planes,
        model.bundle.thresholds,
        manifest.temperature,
        completeness,
        study_logits=study,
        refined_slice_logits=refined,
        trained=manifest.trained,
        show_untrained=model.show_untrained,
    )
