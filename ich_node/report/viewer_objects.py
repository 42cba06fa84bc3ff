"""The objects that a viewer shows, beside the report that machines read."""

from collections.abc import Collection, Sequence
from typing import Final

from ich_node.records import KeySlicePicture, ReportRequest, ResultObject
from ich_node.report.key_objects import build_key_objects
from ich_node.report.key_slice_images import build_key_slice_images
from ich_node.report.presentation_state import build_presentation_state
from ich_node.report.result_header import KEY_OBJECTS, KEY_SLICES, PRESENTATION, SUMMARY
from ich_node.report.summary_image import build_summary_image

VIEWER_KINDS: Final = (SUMMARY.kind, KEY_SLICES.kind, KEY_OBJECTS.kind, PRESENTATION.kind)


def build_viewer_objects(
    request: ReportRequest, pictures: Sequence[KeySlicePicture], kinds: Collection[str]
) -> tuple[ResultObject, ...]:
    """Build the kinds that are asked for, of VIEWER_KINDS and in their order; only a summary there always is.

    Raises: ReportError where there is no image, or a slice is not among the images of the study.
    """
    if unknown := set(kinds) - set(VIEWER_KINDS):
        raise ValueError(f"no such kind of object: {', '.join(sorted(unknown))}; one of {', '.join(VIEWER_KINDS)}")
    built: list[ResultObject | None] = []
    if SUMMARY.kind in kinds:
        built.append(build_summary_image(request, pictures))
    if KEY_SLICES.kind in kinds:
        built += build_key_slice_images(request, pictures)
    if KEY_OBJECTS.kind in kinds:
        built.append(build_key_objects(request))
    if PRESENTATION.kind in kinds:
        built.append(build_presentation_state(request, pictures))
    return tuple(one for one in built if one is not None)
