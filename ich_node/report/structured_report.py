"""The result as DICOM Structured Reports: one content, three encodings."""

from typing import Final

from pydicom import Dataset
from pydicom.uid import UID, Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from ich_node.errors import ReportError
from ich_node.records import ReportRequest, ResultObject
from ich_node.report import codes, wording
from ich_node.report.content import report_content
from ich_node.report.references import evidence_item, predecessor_item
from ich_node.report.result_header import REPORT, in_zone_of_images, odd_values_allowed, result_header, result_object
from ich_node.report.study_attributes import referenced_request

KIND: Final = REPORT.kind
ENCODINGS: Final = (
    ("Comprehensive3DSR", Comprehensive3DSRStorage),
    ("ComprehensiveSR", ComprehensiveSRStorage),
    ("EnhancedSR", EnhancedSRStorage),
)
"""Name and SOP class, the preferred one first; the others are for peers that do not accept it."""


def build_reports(request: ReportRequest) -> tuple[ResultObject, ...]:
    """Build the report once and encode it as Comprehensive 3D SR, Comprehensive SR and Enhanced SR.

    The same request always gives the same bytes.

    Raises: ReportError where there is no image, the finding names a slice that is not among the images, or it is
    withdrawn and still says something.
    """
    if not request.study.evidence:
        raise ReportError("a report needs the header of at least one image")
    if request.finding.withdrawn and request.finding.triage is not None:
        raise ReportError("a finding that is withdrawn has no triage")
    with odd_values_allowed():
        request = in_zone_of_images(request)
        document = _document(request)
        return tuple(_encode(document, request, encoding, sop_class_uid) for encoding, sop_class_uid in ENCODINGS)


def _document(request: ReportRequest) -> Dataset:
    """Build all attributes but those that differ between the encodings.

    Written out rather than taken from highdicom's document classes: they refuse headers without a Study ID or with an
    unusual sex, and stamp the current time.
    """
    document = result_header(request, REPORT)
    document.ReferencedPerformedProcedureStepSequence = []
    document.update(_general(request))
    request_item = referenced_request(request.study.speaker)
    if request_item is not None:
        document.ReferencedRequestSequence = [request_item]
    document.update(report_content(request))
    return document


def _general(request: ReportRequest) -> Dataset:
    """Build the SR Document General module (PS3.3 C.17.2)."""
    general = Dataset()
    general.ContentDate = request.created_at.strftime("%Y%m%d")
    general.ContentTime = request.created_at.strftime("%H%M%S.%f")
    missing = wording.completion_flag_description(request.finding)
    general.CompletionFlag = "PARTIAL" if missing else "COMPLETE"
    if missing:
        general.CompletionFlagDescription = missing
    general.VerificationFlag = "UNVERIFIED"
    general.PreliminaryFlag = "PRELIMINARY"
    general.PerformedProcedureCodeSequence = []
    general.CodingSchemeIdentificationSequence = codes.coding_schemes()
    general.CurrentRequestedProcedureEvidenceSequence = [evidence_item(request.study)]
    return general


def _encode(document: Dataset, request: ReportRequest, encoding: str, sop_class_uid: UID) -> ResultObject:
    encoded = Dataset()
    encoded.update(document)
    before = predecessor_item(request, encoding)
    if before is not None:
        encoded.PredecessorDocumentsSequence = [before]
    return result_object(encoded, request, KIND, encoding, sop_class_uid)
