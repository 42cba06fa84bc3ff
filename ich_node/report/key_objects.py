"""The key slices flagged where they lie, in the original series: PS3.16 TID 2010."""

from typing import Final

from highdicom import sr
from highdicom.sr import ContentSequence
from pydicom import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from ich_node.errors import ReportError
from ich_node.records import ReportRequest, ResultObject, SliceProbability, Triage
from ich_node.report import codes, wording
from ich_node.report.content import device_observer
from ich_node.report.references import evidence_item, replaced_objects
from ich_node.report.result_header import (
    KEY_OBJECTS,
    in_zone_of_images,
    odd_values_allowed,
    result_header,
    result_object,
)
from ich_node.report.study_attributes import referenced_request

ENCODING: Final = "KeyObjectSelection"


def build_key_objects(request: ReportRequest) -> ResultObject | None:
    """Flag the key slices of ``any``, best first; None where the result names none.

    The same request always gives the same bytes.

    Raises: ReportError where the finding names a slice that is not among the images of the study.
    """
    slices = flagged_slices(request)
    if not slices:
        return None
    with odd_values_allowed():
        request = in_zone_of_images(request)
        document = _document(request, slices)
        return result_object(document, request, KEY_OBJECTS.kind, ENCODING, KeyObjectSelectionDocumentStorage)


def flagged_slices(request: ReportRequest) -> tuple[SliceProbability, ...]:
    """Name the slices that are flagged: none of a negative result, nor where there is no result."""
    if request.finding.triage not in (Triage.POSITIVE, Triage.INDETERMINATE):
        return ()
    return request.finding.key_slices.get("any", ())


def _document(request: ReportRequest, slices: tuple[SliceProbability, ...]) -> Dataset:
    """Build the modules of a Key Object Selection Document (PS3.3 C.17.6)."""
    document = result_header(request, KEY_OBJECTS)
    document.ReferencedPerformedProcedureStepSequence = []
    document.ContentDate = request.created_at.strftime("%Y%m%d")
    document.ContentTime = request.created_at.strftime("%H%M%S.%f")
    document.CodingSchemeIdentificationSequence = codes.coding_schemes()
    request_item = referenced_request(request.study.speaker)
    if request_item is not None:
        document.ReferencedRequestSequence = [request_item]
    uids = {one.sop_instance_uid for one in slices}
    document.CurrentRequestedProcedureEvidenceSequence = [evidence_item(request.study, only=uids)]
    document.update(_content(request, slices))
    return document


def _content(request: ReportRequest, slices: tuple[SliceProbability, ...]) -> Dataset:
    classes = {str(header.SOPInstanceUID): header.SOPClassUID for header in request.study.evidence}
    if any(one.sop_instance_uid not in classes for one in slices):
        raise ReportError("the finding names a slice that is not among the images of the study")
    root = sr.ContainerContentItem(codes.OF_INTEREST, template_id="2010")
    root.ContentSequence = ContentSequence(
        [
            *sr.LanguageOfContentItemAndDescendants(codes.ENGLISH),
            *sr.ObservationContext(observer_device_context=device_observer(request)),
            sr.TextContentItem(codes.KEY_OBJECT_DESCRIPTION, _description(request), "CONTAINS"),
            *(_image(one, classes[one.sop_instance_uid]) for one in slices),
        ]
    )
    for item in root.ContentSequence:
        if item.ValueType == "IMAGE":
            del item.ConceptNameCodeSequence  # TID 2010 gives images no name, highdicom's sequence wants one
    content = Dataset()
    content.update(root)
    return content


def _image(one: SliceProbability, sop_class_uid: str) -> sr.ImageContentItem:
    frames = None if one.frame is None else [one.frame]
    return sr.ImageContentItem(codes.SOURCE, sop_class_uid, one.sop_instance_uid, frames, relationship_type="CONTAINS")


def _description(request: ReportRequest) -> str:
    """Say what the flags mean, and which flags they replace: a viewer may show both."""
    finding, revision = request.finding, request.identity.revision
    assert finding.triage is not None
    sentences = [
        wording.test_model_mark(finding) if finding.test_model else "",
        *wording.answer(finding, finding.triage),
    ]
    sentences.append(f"Revision {revision}.")
    sentences += [
        f"Superseded: replaces revision {revision - 1}, {one.sop_instance_uid}."
        for one in replaced_objects(request, KEY_OBJECTS.kind)
    ]
    sentences += [wording.origin(request), wording.DISCLAIMER]
    return wording.ascii_text(" ".join(sentence for sentence in sentences if sentence))
