"""What a report refers to: the images it rests on and the report before (PS3.3 C.17.2.1, C.17.2.3)."""

from collections.abc import Iterable

from pydicom import Dataset

from ich_node.records import ReportRequest, StudyContext


def evidence_item(study: StudyContext) -> Dataset:
    """List every image that was read once, by series."""
    by_series: dict[str, dict[str, Dataset]] = {}
    for header in study.evidence:
        images = by_series.setdefault(str(header.SeriesInstanceUID), {})
        uid = str(header.SOPInstanceUID)
        images.setdefault(uid, _referenced_sop(str(header.SOPClassUID), uid))
    series = [_referenced_series(uid, images.values()) for uid, images in by_series.items()]
    return _referenced_study(study.study_instance_uid, series)


def predecessor_item(request: ReportRequest, encoding: str) -> Dataset | None:
    """Name the report before in the same encoding, or in whichever there is; None where there is none."""
    reports = [one for one in request.predecessors if one.kind == "SR"]
    if not reports:
        return None
    before = next((one for one in reports if one.encoding == encoding), reports[0])
    document = _referenced_sop(before.sop_class_uid, before.sop_instance_uid)
    series = _referenced_series(before.series_instance_uid, [document])
    return _referenced_study(request.study.study_instance_uid, [series])


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
