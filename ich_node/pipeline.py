"""The straight line from slices to a report. Read this first.

read ▶ plan planes ▶ window ▶ score, while slices arrive; then one patient? ▶ eligible? ▶ chosen? ▶ whole? ▶ triage ▶
report.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from ich_node.completeness import assess_completeness
from ich_node.decode import DecodedPlane, position_along_normal_mm
from ich_node.eligibility import head_expected, header_ineligibility, series_ineligibility
from ich_node.errors import ReportError
from ich_node.model.bundle import ModelBundle, load_bundle
from ich_node.model.engine import Engine, EngineName, open_engine, run_sequence_head
from ich_node.planes import PlannedPlane, plan_planes
from ich_node.records import (
    UNREADABLE_REASONS,
    Completeness,
    EligibilityRules,
    KeySlicePicture,
    ModelIdentity,
    NotAnalysedReason,
    OtherSeriesFinding,
    PlaneMember,
    PlaneScore,
    PlaneScores,
    ReportIdentity,
    ReportReference,
    ReportRequest,
    ResultObject,
    SeriesContent,
    SeriesState,
    SiblingSeries,
    SliceFacts,
    SliceKey,
    Step,
    StudyContext,
    TissueMeasure,
    TriageFinding,
)
from ich_node.report.structured_report import build_reports
from ich_node.report.study_attributes import content_digest
from ich_node.report.viewer_objects import build_viewer_objects
from ich_node.series_choice import SeriesDescription, chosen_over, describe_series, waits_for_others
from ich_node.triage import not_analysed, triage_series
from ich_node.windowing import Windowing

MINIMUM_SLICES = 10


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A bundle that is ready to score."""

    bundle: ModelBundle
    windowing: Windowing
    engine: Engine
    show_untrained: bool

    @property
    def identity(self) -> ModelIdentity:
        return self.bundle.identity


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


def open_model(
    directory: Path,
    engine: EngineName = "auto",
    *,
    threads: int = 0,
    show_untrained: bool = False,
    cache: Path | None = None,
) -> Model:
    """Load a bundle, its hashes checked, and make it ready to score.

    Raises:
        ModelError: a file is missing, altered, or of another kind.
    """
    bundle = load_bundle(directory)
    opened = open_engine(bundle, engine, threads=threads or None, cache_directory=cache)
    windowing = Windowing(bundle.manifest.preprocessing)
    return Model(bundle.without_network_weights(), windowing, opened, show_untrained)


# ------------------------------------------------------------------------------ while slices arrive


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
        with torch.inference_mode():
            images = torch.cat([model.windowing(torch.from_numpy(read.hu).unsqueeze(0)) for _, read in batch])
        logits, embeddings = model.engine.score(images)
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
    return not (waits_for_others(mine) or chosen_over(mine, _analysed(siblings)))


# ------------------------------------------------------------------------- when a series has arrived


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
    if (chosen := chosen_over(description, _analysed(content.siblings))) is not None:
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


def _analysed(siblings: Sequence[SiblingSeries]) -> dict[str, SeriesDescription]:
    return {
        one.series_instance_uid: SeriesDescription(**one.choice)
        for one in siblings
        if one.state is SeriesState.CONCLUDED and one.choice
    }


def _waits(description: SeriesDescription, siblings: Sequence[SiblingSeries]) -> bool:
    """A bone reconstruction waits for a better one; a derived series for originals that are still arriving."""
    arriving = any(one.state in (SeriesState.RECEIVING, SeriesState.COMPLETE) for one in siblings)
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


# ------------------------------------------------------------------------------------------- report


def report(
    identity: ReportIdentity,
    study: StudyContext,
    finding: TriageFinding,
    model: ModelIdentity | None,
    steps: Sequence[Step],
    *,
    predecessors: Sequence[ReportReference] = (),
    other_series: Sequence[OtherSeriesFinding] = (),
    pictures: Sequence[KeySlicePicture] = (),
    kinds: Collection[str] = (),
) -> tuple[ResultObject, ...]:
    """Build the report, in every encoding a destination may ask for, and beside it the objects for viewers.

    Args:
        pictures: of the key slices, best first.
        kinds: of VIEWER_KINDS, what is to be built beside the report.

    Raises:
        ReportError: there is no image to report on.
    """
    now = datetime.now(UTC).astimezone()  # local: where the CT states no zone, its own times are local too
    request = ReportRequest(
        identity=identity,
        study=study,
        finding=finding,
        model=model,
        steps=(*steps, Step("report built", now)),
        created_at=now,
        predecessors=tuple(predecessors),
        other_series=tuple(other_series),
    )
    return (*build_reports(request), *build_viewer_objects(request, pictures, kinds))


def study_context(
    study_instance_uid: str, series_instance_uid: str, facts: Sequence[SliceFacts], files: Sequence[Path]
) -> StudyContext:
    """Read who the patient is from the newest readable file, and refer to the images.

    Args:
        facts: of the images that the report rests on; with none, the report refers to the file that was read.
        files: the newest last.

    Raises:
        ReportError: not one of the files has a readable header.
    """
    header = next((one for one in map(_read_header, reversed(files)) if one is not None), None)
    if header is None:
        raise ReportError("no image of the series has a readable header to report on")
    ordered = sorted(facts, key=_anatomical) if all(one.reason is None for one in facts) else facts
    by_uid = {one.sop_instance_uid: one for one in ordered}
    evidence = tuple(_reference(one, series_instance_uid) for one in by_uid.values())
    return StudyContext(study_instance_uid, evidence or (header,), header)


def fingerprint(content: SeriesContent, finding: TriageFinding, study: StudyContext, model: ModelIdentity) -> str:
    """Digest everything that a report on a series would say: the same again needs no new revision."""
    said = {
        "planes": sorted([one.sop_instance_uid, one.frame or 0] for plane in content.planes for one in plane.members),
        "completeness": dataclasses.asdict(finding.completeness),
        "reason": None if finding.reason is None else finding.reason.name,
        "flags": [finding.test_model, finding.derived, finding.bone_kernel],
        "patient and study": content_digest(study.speaker),
        "model": model.sha256,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _anatomical(one: SliceFacts) -> tuple[float, str, int]:
    return position_along_normal_mm(one), one.sop_instance_uid, one.frame or 0


def _reference(one: SliceFacts, series_instance_uid: str) -> Dataset:
    reference = Dataset()
    reference.SOPClassUID = one.sop_class_uid
    reference.SOPInstanceUID = one.sop_instance_uid
    reference.SeriesInstanceUID = series_instance_uid
    reference.InstanceNumber = one.instance_number
    return reference


def _read_header(path: Path) -> Dataset | None:
    try:
        header = dcmread(path, stop_before_pixels=True)
        return header if "SOPInstanceUID" in header else None
    except (InvalidDicomError, OSError, ValueError, KeyError, EOFError, NotImplementedError):
        return None
