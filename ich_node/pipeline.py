"""The straight line from slices to a report. Read this first.

decode ▶ window ▶ score, while slices arrive; then eligible? ▶ complete? ▶ triage ▶ report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from ich_node.completeness import assess_completeness
from ich_node.decode import DecodedInstance, position_along_normal_mm
from ich_node.eligibility import head_expected, series_ineligibility
from ich_node.errors import ReportError
from ich_node.model.bundle import ModelBundle, load_bundle
from ich_node.model.engine import Engine, EngineName, open_engine, run_sequence_head
from ich_node.records import (
    Completeness,
    HounsfieldSlice,
    HounsfieldSlices,
    ModelIdentity,
    NotAnalysedReason,
    PlaneScore,
    PlaneScores,
    ReportIdentity,
    ReportRequest,
    ResultObject,
    ScoredInstance,
    SeriesContent,
    SliceFacts,
    Step,
    StudyContext,
    TriageFinding,
)
from ich_node.report.structured_report import build_reports
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
class Analysis:
    """What is to be said of a series, and whether waiting for more slices could change it."""

    finding: TriageFinding
    head_expected: bool
    could_gain: bool


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


def score_slices(slices: HounsfieldSlices, model: Model) -> PlaneScores:
    """Window and score slices, each by itself.

    Raises:
        ModelError: the network gave a number that is none.
    """
    scores: list[PlaneScore] = []
    for batch in _batches(slices, model.engine.batch_size):
        with torch.inference_mode():
            images = torch.cat([model.windowing(torch.from_numpy(one.hu).unsqueeze(0)) for one in batch])
        logits, embeddings = model.engine.score(images)
        scores += [_plane(one, row, vector) for one, row, vector in zip(batch, logits, embeddings, strict=True)]
    return tuple(scores)


def scored_instance(instance_id: int, decoded: DecodedInstance, planes: PlaneScores) -> ScoredInstance:
    """Say what became of an instance: scored, not needed, or unreadable with the reason."""
    return ScoredInstance(instance_id, decoded.state, decoded.facts, planes, decoded.reason, decoded.detail)


def _batches(slices: HounsfieldSlices, size: int) -> Iterator[HounsfieldSlices]:
    for start in range(0, len(slices), size):
        yield slices[start : start + size]


def _plane(one: HounsfieldSlice, logits: NDArray[np.float32], embedding: NDArray[np.float32]) -> PlaneScore:
    return PlaneScore(
        sop_instance_uid=one.facts.sop_instance_uid,
        frame=one.facts.frame,
        position_mm=position_along_normal_mm(one.facts),
        logits=tuple(float(value) for value in logits),
        embedding=embedding.astype(np.float16),
    )


# ------------------------------------------------------------------------- when a series has arrived


def analyse_series(content: SeriesContent, model: Model) -> Analysis:
    """Conclude from what is known of a series: not a head CT, or a triage."""
    planes = sorted(content.planes, key=lambda plane: (plane.position_mm, plane.sop_instance_uid, plane.frame or 0))
    facts = _facts_of(planes, content.facts)
    expected = head_expected(content.facts)
    completeness = assess_completeness(
        [plane.position_mm for plane in planes], [one.slice_thickness_mm for one in facts], content.unreadable
    )
    if (declined := _why_not(content, facts)) is not None:
        reason, detail = declined
        few = reason in (NotAnalysedReason.TOO_FEW_SLICES, NotAnalysedReason.NO_READABLE_SLICE)
        return Analysis(not_analysed(reason, detail, completeness), expected, could_gain=few)
    return Analysis(
        _triage(tuple(planes), completeness, model), head_expected=True, could_gain=not completeness.complete
    )


def _facts_of(planes: Sequence[PlaneScore], facts: Sequence[SliceFacts]) -> list[SliceFacts]:
    by_slice = {(one.sop_instance_uid, one.frame): one for one in facts}
    return [by_slice[plane.sop_instance_uid, plane.frame] for plane in planes]


def _why_not(content: SeriesContent, scored: Sequence[SliceFacts]) -> tuple[NotAnalysedReason, str] | None:
    if scored:
        return series_ineligibility(scored, MINIMUM_SLICES)
    if content.declined:
        return max(set(content.declined), key=content.declined.count), ""
    if content.unreadable:
        return NotAnalysedReason.NO_READABLE_SLICE, f"{content.unreadable} slices"
    return NotAnalysedReason.NOT_CT, ""


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
    finding: TriageFinding,
    image_files: Sequence[Path],
    model: ModelIdentity | None,
    steps: Sequence[Step],
) -> tuple[ResultObject, ...]:
    """Build the report's objects, in every encoding a destination may ask for.

    Raises:
        ReportError: not one of the image files has a readable header.
    """
    now = datetime.now(UTC).astimezone()  # local: where the CT states no zone, its own times are local too
    context = StudyContext(identity.study_instance_uid, _read_headers(image_files, finding))
    return build_reports(ReportRequest(identity, context, finding, model, (*steps, Step("report built", now)), now))


def _read_headers(files: Sequence[Path], finding: TriageFinding) -> tuple[Dataset, ...]:
    headers = [header for header in map(_read_header, files) if header is not None]
    if not headers:
        raise ReportError("no image of the series has a readable header to report on")
    scored = {one.sop_instance_uid: number for number, one in enumerate(finding.slices)}
    ordered = sorted(headers, key=lambda header: scored.get(str(header.SOPInstanceUID), len(scored)))
    return tuple(ordered)


def _read_header(path: Path) -> Dataset | None:
    try:
        header = dcmread(path, stop_before_pixels=True)
        return header if "SOPInstanceUID" in header else None
    except (InvalidDicomError, OSError, ValueError, KeyError, EOFError, NotImplementedError):
        return None
