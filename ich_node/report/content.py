"""The content tree of a report: PS3.16 TID 1500 with a measurement group (TID 1501) for each hemorrhage class.

``Finding`` is written for present classes only: a reader that lists findings must never show "Subdural hemorrhage" for
a negative class. The qualitative evaluation, whose concept is the class itself, is the machine's key and always there.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from highdicom import sr
from highdicom.sr import ContentItem, ContentSequence
from pydicom import Dataset
from pydicom.uid import UID

from ich_node.errors import ReportError
from ich_node.records import (
    HEMORRHAGE_CLASSES,
    ModelIdentity,
    Presence,
    ReportRequest,
    SliceProbability,
    Triage,
    TriageFinding,
)
from ich_node.report import codes, wording
from ich_node.report.identity import device_observer_uid, device_serial_number, tracking_uid
from ich_node.report.result_header import MANUFACTURER, MODEL_NAME

_VALUES: Final = {
    Presence.PRESENT: codes.PRESENT,
    Presence.INDETERMINATE: codes.INDETERMINATE,
    Presence.ABSENT: codes.ABSENT,
    Presence.UNDETERMINED: codes.UNDETERMINED,
}
_TRIAGE_CATEGORIES: Final = {
    Triage.POSITIVE: codes.ACTIONABLE_CATEGORY_1,
    Triage.INDETERMINATE: codes.INDETERMINATE,
    Triage.NEGATIVE: codes.NO_FINDING,
    None: codes.NOT_ANALYSED,
}


def report_content(request: ReportRequest) -> Dataset:
    """Build the root container of the report.

    Raises: ReportError where the finding names a slice that is not among the images of the study.
    """
    images = _Images(request.study.evidence)
    groups = [_measurement_group(request, name, images) for name in HEMORRHAGE_CLASSES]
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device_observer(request)),
        procedure_reported=codes.CT_PROCEDURE,
        imaging_measurements=groups,
        title=codes.IMAGING_MEASUREMENT_REPORT,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(codes.ENGLISH),
    )
    root: Dataset = report[0]
    # TID 1500 is ordered: the image library stands before the measurements, the evaluations after them.
    # highdicom's own library needs geometry that real headers lack, and makes the report ten times as long.
    root.ContentSequence.insert(len(root.ContentSequence) - 1, images.library())
    root.ContentSequence.append(_qualitative_evaluations(request))
    return root


class _Images:
    """The images of the study, and which of them the report refers to."""

    def __init__(self, evidence: tuple[Dataset, ...]) -> None:
        self._evidence = evidence
        self._by_uid: Mapping[str, Dataset] = {str(header.SOPInstanceUID): header for header in evidence}
        self._referenced: dict[tuple[str, int | None], Dataset] = {}

    def reference(self, one: SliceProbability) -> tuple[UID, str, list[int] | None]:
        """Return class, instance and frame numbers of a slice, and remember it for the library."""
        header = self._by_uid.get(one.sop_instance_uid)
        if header is None:
            raise ReportError("the finding names a slice that is not among the images of the study")
        self._referenced.setdefault((one.sop_instance_uid, one.frame), header)
        return header.SOPClassUID, one.sop_instance_uid, None if one.frame is None else [one.frame]

    def library(self) -> ContentItem:
        """List every referenced image, or the middle one: viewers fail on a report without images (TID 1600)."""
        if not self._referenced:
            middle = self._evidence[len(self._evidence) // 2]
            self._referenced[str(middle.SOPInstanceUID), None] = middle
        entries = [
            sr.ImageContentItem(codes.SOURCE, header.SOPClassUID, uid, frame, relationship_type="CONTAINS")
            for (uid, frame), header in self._referenced.items()
        ]
        group = container(codes.IMAGE_LIBRARY_GROUP, entries)
        return container(codes.IMAGE_LIBRARY, [group])


def _measurement_group(request: ReportRequest, name: str, images: _Images) -> sr.MeasurementsAndQualitativeEvaluations:
    finding = request.finding
    presence = finding.presence.get(name, Presence.UNDETERMINED)
    present = presence is Presence.PRESENT
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(tracking_uid(request.identity, name), f"ich-node {name}"),
        finding_type=codes.FINDINGS[name] if present else None,
        finding_sites=[sr.FindingSite(codes.FINDING_SITES[name])],
        algorithm_id=_algorithm(request.model, finding, name),
        measurements=[] if presence is Presence.UNDETERMINED else _certainty(finding, name, images),
        qualitative_evaluations=[sr.QualitativeEvaluation(codes.FINDINGS[name], _VALUES[presence])],
    )
    if present:
        group[0].ContentSequence.extend(_key_slices(finding, name, images))
    return group


def _certainty(finding: TriageFinding, name: str, images: _Images) -> list[sr.Measurement]:
    if name not in finding.probabilities:
        return []
    top = _top_slice(finding, name)
    return [
        sr.Measurement(
            name=codes.CERTAINTY_OF_FINDING,
            value=round(100 * finding.probabilities[name], 2),
            unit=codes.PERCENT,
            referenced_images=[sr.SourceImageForMeasurement(*images.reference(top))] if top else None,
        )
    ]


def _top_slice(finding: TriageFinding, name: str) -> SliceProbability | None:
    key_slices = finding.key_slices.get(name)
    if key_slices:
        return key_slices[0]
    return max(finding.slices, key=lambda one: one.probabilities.get(name, 0.0), default=None)


def _key_slices(finding: TriageFinding, name: str, images: _Images) -> list[sr.ImageContentItem]:
    return [
        sr.ImageContentItem(codes.BEST_ILLUSTRATION, *images.reference(one), relationship_type="CONTAINS")
        for one in finding.key_slices.get(name, ())
    ]


def _algorithm(model: ModelIdentity | None, finding: TriageFinding, name: str) -> sr.AlgorithmIdentification | None:
    """Identify the model (TID 4019); None where none was asked."""
    if model is None:
        return None
    parameters = [f"weights SHA-256: {model.sha256}"]
    if model.backbone:
        parameters.append(f"backbone: {model.backbone}")
    thresholds = finding.thresholds.get(name)
    if thresholds is not None:
        parameters.append(f"thresholds: absent below {thresholds.low:g}, present from {thresholds.high:g}")
    if model.site_thresholds:
        parameters.append(f"thresholds of the site: {model.site_thresholds}")
    if name in model.operating_points:
        parameters.append(f"measured at the thresholds: {model.operating_points[name]}")
    if model.engine:
        parameters.append(f"computed by: {model.engine}")
    if model.signature:
        parameters.append(f"signature: {model.signature}")
    if not model.trained:
        parameters.append("trained: no")
    title = f"{wording.TEST_MODEL} {model.name}" if finding.test_model else model.name
    return sr.AlgorithmIdentification(
        name=wording.ascii_text(title),
        version=wording.ascii_text(model.version),
        parameters=[wording.ascii_text(parameter) for parameter in parameters],
        family=codes.ARTIFICIAL_INTELLIGENCE,
    )


def device_observer(request: ReportRequest) -> sr.ObserverContext:
    """Name this installation as who observed (PS3.16 TID 1002)."""
    installation_uid = request.identity.installation_uid
    return sr.ObserverContext(
        observer_type=codes.DEVICE,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=device_observer_uid(installation_uid),
            name="ich-node",
            manufacturer_name=MANUFACTURER,
            model_name=MODEL_NAME,
            serial_number=device_serial_number(installation_uid),
        ),
    )


def _qualitative_evaluations(request: ReportRequest) -> ContentItem:
    """Say what holds for the study as a whole (TID 1500 row 12, for which highdicom has no argument)."""
    finding = request.finding
    steps = [wording.step_text(step, request.created_at.tzinfo) for step in request.steps]
    return container(
        codes.QUALITATIVE_EVALUATIONS,
        [
            sr.TextContentItem(codes.CONCLUSION, wording.conclusion(request), "CONTAINS"),
            sr.CodeContentItem(codes.TRIAGE_CATEGORY, _triage_category(finding), "CONTAINS"),
            sr.CodeContentItem(codes.PROCESSING_SUMMARY, _processing_status(finding), "CONTAINS"),
            *(sr.TextContentItem(codes.PROCESSING_STEP, step, "CONTAINS") for step in steps),
        ],
    )


def _triage_category(finding: TriageFinding) -> sr.CodedConcept:
    return codes.WITHDRAWN if finding.withdrawn else _TRIAGE_CATEGORIES[finding.triage]


def _processing_status(finding: TriageFinding) -> sr.CodedConcept:
    """Choose from PS3.16 CID 6047."""
    if finding.triage is None:
        return codes.NONE_SUCCEEDED
    positive = finding.triage is Triage.POSITIVE
    if not finding.completeness.complete:
        return codes.SOME_SUCCEEDED_WITH_FINDINGS if positive else codes.SOME_SUCCEEDED_WITHOUT_FINDINGS
    return codes.ALL_SUCCEEDED_WITH_FINDINGS if positive else codes.ALL_SUCCEEDED_WITHOUT_FINDINGS


def container(name: sr.CodedConcept, items: Sequence[ContentItem]) -> ContentItem:
    """Put content items under one heading."""
    filled = sr.ContainerContentItem(name, relationship_type="CONTAINS")
    filled.ContentSequence = ContentSequence(items)
    return filled
