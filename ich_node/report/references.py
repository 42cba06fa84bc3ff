"""What a report refers to: the images it rests on and the report before (PS3.3 C.17.2.1, C.17.2.3)."""

from collections.abc import Collection, Iterable

from highdicom.sr import CodedConcept
from pydicom import Dataset

from ich_node.errors import ReportError
from ich_node.records import REPORT_KIND, KeySlicePicture, ReportReference, ReportRequest, SliceKey, StudyContext
from ich_node.report import codes


def evidence_item(study: StudyContext, only: Collection[str] | None = None) -> Dataset:
    """List every image that was read once, by series; ``only`` those of these SOP Instance UIDs."""
    by_series: dict[str, dict[str, Dataset]] = {}
    for header in study.evidence:
        if only is not None and str(header.SOPInstanceUID) not in only:
            continue
        images = by_series.setdefault(str(header.SeriesInstanceUID), {})
        uid = str(header.SOPInstanceUID)
        images.setdefault(uid, _referenced_sop(str(header.SOPClassUID), uid))
    series = [_referenced_series(uid, images.values()) for uid, images in by_series.items()]
    return _referenced_study(study.study_instance_uid, series)


def predecessor_item(request: ReportRequest, encoding: str) -> Dataset | None:
    """Name the report before in the same encoding, or in whichever there is; None where there is none."""
    reports = [one for one in request.predecessors if one.kind == REPORT_KIND]
    if not reports:
        return None
    before = next((one for one in reports if one.encoding == encoding), reports[0])
    document = _referenced_sop(before.sop_class_uid, before.sop_instance_uid)
    series = _referenced_series(before.series_instance_uid, [document])
    return _referenced_study(request.study.study_instance_uid, [series])


def source_images(request: ReportRequest, pictures: Iterable[KeySlicePicture]) -> list[Dataset]:
    """Refer to the slices that pictures were made of, each once; to the middle image where there is no picture.

    Raises: ReportError where a picture is of no image of the study.
    """
    keys = list(dict.fromkeys(key for one in pictures for key in picture_members(request, one)))
    if not keys:
        keys = [(str(request.study.evidence[len(request.study.evidence) // 2].SOPInstanceUID), None)]
    classes = {str(header.SOPInstanceUID): str(header.SOPClassUID) for header in request.study.evidence}
    if any(uid not in classes for uid, _ in keys):
        raise ReportError("a picture is of a slice that is not among the images of the study")
    return [_with_purpose(referenced_image(classes[uid], uid, frame), codes.SOURCE_IMAGE) for uid, frame in keys]


def picture_members(request: ReportRequest, picture: KeySlicePicture) -> list[SliceKey]:
    """Name the slices that a picture was made of: its slab, or itself."""
    here = picture.sop_instance_uid, picture.frame
    for one in request.finding.slices:
        if (one.sop_instance_uid, one.frame) == here and one.members:
            return [member.key for member in one.members]
    return [here]


def replaced_objects(request: ReportRequest, kind: str) -> list[ReportReference]:
    """Name the objects of the revision before whose kind begins like this."""
    return [one for one in request.predecessors if one.kind.startswith(kind)]


def replaced_images(request: ReportRequest, kind: str) -> list[Dataset]:
    """Refer to the images that are replaced."""
    return [
        _with_purpose(_referenced_sop(one.sop_class_uid, one.sop_instance_uid), codes.REPLACED)
        for one in replaced_objects(request, kind)
    ]


def referenced_image(sop_class_uid: str, sop_instance_uid: str, frame: int | None) -> Dataset:
    """Refer to an image, or to one of its frames (PS3.3 10.3)."""
    item = _referenced_sop(sop_class_uid, sop_instance_uid)
    if frame is not None:
        item.ReferencedFrameNumber = frame
    return item


def _with_purpose(item: Dataset, purpose: CodedConcept) -> Dataset:
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _referenced_study(study_instance_uid: str, series: list[Dataset]) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = study_instance_uid
    item.ReferencedSeriesSequence = series
    return item


def _referenced_series(series_instance_uid: str, instances: Iterable[Dataset]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = series_instance_uid
    item.ReferencedSOPSequence = list(instances)
    return item


def _referenced_sop(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item
