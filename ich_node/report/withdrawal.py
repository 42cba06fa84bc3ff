"""What a withdrawing report is made of: the report that it withdraws, since the images may be gone or disputed."""

from pydicom import Dataset

from ich_node.errors import ReportError
from ich_node.records import StudyContext
from ich_node.report.wording import TEST_MODEL


def withdrawn_context(previous: Dataset) -> StudyContext:
    """Make the context of the withdrawing report from an earlier report of this node.

    It speaks for the patient whom the earlier report named, and refers to the same images.

    Raises: ReportError where the earlier report names no image.
    """
    evidence = tuple(
        _minimal_header(series.SeriesInstanceUID, image)
        for study in previous.get("CurrentRequestedProcedureEvidenceSequence", ())
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    )
    if not evidence:
        raise ReportError("the report to withdraw names no image")
    return StudyContext(str(previous.StudyInstanceUID), evidence, header=previous)


def is_of_test_model(previous: Dataset) -> bool:
    """Tell a report of a model that was not trained, which lies in a series of its own."""
    return str(previous.get("SeriesDescription") or "").startswith(TEST_MODEL)


def _minimal_header(series_instance_uid: str, image: Dataset) -> Dataset:
    header = Dataset()
    header.SOPClassUID = image.ReferencedSOPClassUID
    header.SOPInstanceUID = image.ReferencedSOPInstanceUID
    header.SeriesInstanceUID = series_instance_uid
    return header
