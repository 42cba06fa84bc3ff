"""The report on a series, what it refers to, and whether it says anything new."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from ich_node.decode import position_along_normal_mm
from ich_node.errors import ReportError
from ich_node.records import (
    KeySlicePicture,
    ModelIdentity,
    OtherSeriesFinding,
    ReportIdentity,
    ReportReference,
    ReportRequest,
    ResultObject,
    SeriesContent,
    SliceFacts,
    Step,
    StudyContext,
    TriageFinding,
)
from ich_node.report.structured_report import build_reports
from ich_node.report.study_attributes import content_digest
from ich_node.report.viewer_objects import build_viewer_objects


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
    mode: str = "",
) -> tuple[ResultObject, ...]:
    """Build the report, in every encoding a destination may ask for, and beside it the objects for viewers.

    Args:
        pictures: of the key slices, best first.
        kinds: of VIEWER_KINDS, what is to be built beside the report.
        mode: of the node, as the report states it.

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
        mode=mode,
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
