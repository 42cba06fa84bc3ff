"""The key slices in the brain window with a line round the hottest region: Grayscale Softcopy Presentation State."""

from collections.abc import Sequence
from typing import Final

from pydicom import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from ich_node.errors import ReportError
from ich_node.records import KeySlicePicture, ReportRequest, ResultObject
from ich_node.report import codes, wording
from ich_node.report.key_slice_images import LABEL, shown_with_attention
from ich_node.report.outline import hottest_region, outline
from ich_node.report.references import referenced_image, replaced_objects
from ich_node.report.result_header import (
    PRESENTATION,
    in_zone_of_images,
    odd_values_allowed,
    result_header,
    result_object,
)
from ich_node.report.slice_pictures import CENTER_HU, WIDTH_HU, positive_shares
from ich_node.report.study_attributes import valid_text

ENCODING: Final = "GrayscaleSoftcopyPresentationState"
_LAYER: Final = "AI_ATTENTION"
_YELLOW_CIELAB: Final = (63646, 33151, 51556)
"""CIELab of yellow as PS3.3 C.10.7.1.1 scales it: L* 97, a* -1, b* 74."""


def build_presentation_state(request: ReportRequest, pictures: Sequence[KeySlicePicture]) -> ResultObject | None:
    """Outline where the network looked, over the original key slices.

    None where no picture has a map, or where the headers do not say how stored values become Hounsfield units: a
    presentation state has to say it itself (PS3.4 N.2.1), and a wrong one would show another window.

    Raises: ReportError where a picture is of no image of the study.
    """
    shown = [one for one in shown_with_attention(request.finding, pictures) if positive_shares(one).any()]
    with odd_values_allowed():
        rescale = _common_rescale(request, shown)
        if rescale is None:
            return None
        request = in_zone_of_images(request)
        state = result_header(request, PRESENTATION)
        for part in (_identification(request), _relationship(request, shown), rescale, _softcopy()):
            state.update(part)
        state.DisplayedAreaSelectionSequence = [_displayed_area(request, one) for one in shown]
        state.GraphicAnnotationSequence = [_annotation(request, one) for one in shown]
        return result_object(state, request, PRESENTATION.kind, ENCODING, GrayscaleSoftcopyPresentationStateStorage)


def _identification(request: ReportRequest) -> Dataset:
    """Build the Presentation State Identification module (PS3.3 C.11.10)."""
    module = Dataset()
    module.BodyPartExamined = "HEAD"  # else Laterality is required, type 2C
    module.ContentLabel = _LAYER
    module.ContentDescription = _description(request)
    module.PresentationCreationDate = request.created_at.strftime("%Y%m%d")
    module.PresentationCreationTime = request.created_at.strftime("%H%M%S.%f")
    module.ContentCreatorName = None
    return module


def _description(request: ReportRequest) -> str:
    """Name the revision, and the object that is replaced, in the 64 characters of an LO."""
    mark, revision = "TEST MODEL " if request.finding.test_model else "", request.identity.revision
    for before in replaced_objects(request, PRESENTATION.kind):
        return f"Rev {revision} replaces {before.sop_instance_uid}"[:64]
    return f"{mark}AI attention, not a segmentation, revision {revision}"


def _relationship(request: ReportRequest, shown: Sequence[KeySlicePicture]) -> Dataset:
    """Name the images that the state is for, by series (PS3.3 C.11.11)."""
    by_series: dict[str, list[Dataset]] = {}
    for one in shown:
        series = str(_header_of(request, one).SeriesInstanceUID)
        by_series.setdefault(series, []).append(_reference(request, one))
    module = Dataset()
    module.ReferencedSeriesSequence = [_referenced_series(uid, images) for uid, images in by_series.items()]
    return module


def _referenced_series(series_instance_uid: str, images: list[Dataset]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = series_instance_uid
    item.ReferencedImageSequence = images
    return item


def _softcopy() -> Dataset:
    """Build window, grey scale and the layer of the line (PS3.3 C.11.8, C.11.6, C.10.7)."""
    module, window, layer = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = f"{CENTER_HU:g}", f"{WIDTH_HU:g}"
    window.WindowCenterWidthExplanation = "BRAIN"
    module.SoftcopyVOILUTSequence = [window]
    module.PresentationLUTShape = "IDENTITY"
    layer.GraphicLayer, layer.GraphicLayerOrder = _LAYER, 1
    layer.GraphicLayerRecommendedDisplayCIELabValue = list(_YELLOW_CIELAB)
    layer.GraphicLayerDescription = LABEL
    module.GraphicLayerSequence = [layer]
    module.CodingSchemeIdentificationSequence = codes.coding_schemes()
    return module


def _displayed_area(request: ReportRequest, picture: KeySlicePicture) -> Dataset:
    """Show the whole slice (PS3.3 C.10.4)."""
    rows, columns = picture.hu.shape
    area = Dataset()
    area.ReferencedImageSequence = [_reference(request, picture)]
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [columns, rows]
    area.PresentationSizeMode = "SCALE TO FIT"
    area.PresentationPixelSpacing = [f"{spacing:.6g}" for spacing in picture.pixel_spacing_mm]
    return area


def _annotation(request: ReportRequest, picture: KeySlicePicture) -> Dataset:
    """Draw the line and say what it is (PS3.3 C.10.5)."""
    points = outline(hottest_region(positive_shares(picture)))
    line, text, annotation = Dataset(), Dataset(), Dataset()
    line.GraphicAnnotationUnits = text.AnchorPointAnnotationUnits = "PIXEL"
    line.GraphicDimensions, line.NumberOfGraphicPoints = 2, len(points)
    line.GraphicData = [coordinate for point in points for coordinate in point]
    line.GraphicType, line.GraphicFilled = "POLYLINE", "N"
    mark = f"{wording.TEST_MODEL}: " if request.finding.test_model else ""
    text.UnformattedTextValue = f"{mark}{LABEL}"
    text.AnchorPoint = [max(x for x, _ in points), min(y for _, y in points)]
    text.AnchorPointVisibility = "N"
    annotation.ReferencedImageSequence = [_reference(request, picture)]
    annotation.GraphicLayer = _LAYER
    annotation.TextObjectSequence, annotation.GraphicObjectSequence = [text], [line]
    return annotation


def _reference(request: ReportRequest, picture: KeySlicePicture) -> Dataset:
    return referenced_image(str(_header_of(request, picture).SOPClassUID), picture.sop_instance_uid, picture.frame)


def _header_of(request: ReportRequest, picture: KeySlicePicture) -> Dataset:
    for header in request.study.evidence:
        if header.SOPInstanceUID == picture.sop_instance_uid:
            return header
    raise ReportError("a picture is of a slice that is not among the images of the study")


def _common_rescale(request: ReportRequest, shown: Sequence[KeySlicePicture]) -> Dataset | None:
    """Build the Modality LUT module (PS3.3 C.11.1) that holds for all slices; None where there is no such one."""
    found = [_rescale(request, one) for one in shown]
    if not found or found[0] is None or any(one != found[0] for one in found):
        return None
    module = Dataset()
    module.RescaleIntercept, module.RescaleSlope = found[0]
    module.RescaleType = "HU"
    return module


def _rescale(request: ReportRequest, picture: KeySlicePicture) -> tuple[str, str] | None:
    """Read intercept and slope from the slice's own header, or from that of another of its series."""
    own, speaker = _header_of(request, picture), request.study.speaker
    headers = [own, speaker] if own.SeriesInstanceUID == speaker.get("SeriesInstanceUID") else [own]
    for header in headers:
        for source in (header, *_functional_groups(header)):
            values = valid_text(source, "RescaleIntercept"), valid_text(source, "RescaleSlope")
            if all(values):
                return values
    return None


def _functional_groups(header: Dataset) -> list[Dataset]:
    """Give the shared value transformation of an enhanced object (PS3.3 C.7.6.16.2.9)."""
    shared = header.get("SharedFunctionalGroupsSequence") or []
    return [item for group in shared for item in group.get("PixelValueTransformationSequence") or []]
