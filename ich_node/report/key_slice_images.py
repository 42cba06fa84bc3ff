"""Each key slice beside itself with the network's attention on it, as an image."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from ich_node.records import MOST_KEY_SLICES, KeySlicePicture, ReportRequest, ResultObject, TriageFinding
from ich_node.report import page_style as look
from ich_node.report import wording
from ich_node.report.drawing import Canvas, Style, lettering
from ich_node.report.references import picture_members, replaced_images, replaced_objects, source_images
from ich_node.report.result_header import KEY_SLICES, in_zone_of_images, odd_values_allowed
from ich_node.report.secondary_capture import Capture, secondary_capture
from ich_node.report.slice_pictures import (
    Rgb,
    heated,
    heated_slice,
    plain_slice,
    positive_shares,
    speaks_clearly,
)
from ich_node.report.summary_text import SummaryText, slice_label, summary_text

LABEL: Final = "AI attention, not a segmentation; research use"
_KIND: Final = "KEY_SLICE"
_NUMBERS_PER_REVISION: Final = 10
_SLICE_PX: Final = 560
_EDGE_PX: Final = 16
_BETWEEN_PX: Final = 12
_BAR_PX: Final = 22
_RIGHT_PX: Final = 92
"""For the colour bar and its numbers."""
_TOP_PX: Final = 96
_BOTTOM_PX: Final = 78
_WIDTH: Final = 2 * _SLICE_PX + 2 * _EDGE_PX + _BETWEEN_PX + _RIGHT_PX
_MIDDLE_GREY: Final = 70


def build_key_slice_images(request: ReportRequest, pictures: Sequence[KeySlicePicture]) -> tuple[ResultObject, ...]:
    """Draw the key slices that speak clearly for hemorrhage and have a map, best first, at most five.

    All share one scale of colours, so that they can be compared. The same request and pictures always give the same
    bytes, on a machine with the same fonts.

    Raises: ReportError where a picture is of no image of the study.
    """
    shown = shown_with_attention(request.finding, pictures)
    highest = max((float(positive_shares(one).max()) for one in shown), default=0.0)
    with odd_values_allowed():
        request = in_zone_of_images(request)
        return tuple(_build(request, one, number, highest) for number, one in enumerate(shown, start=1))


def shown_with_attention(finding: TriageFinding, pictures: Sequence[KeySlicePicture]) -> list[KeySlicePicture]:
    """Choose the pictures whose attention may be shown: with a map, and themselves above an upper threshold."""
    if finding.triage is None:
        return []
    shown = [one for one in pictures if one.shares is not None and speaks_clearly(one.probabilities, finding)]
    return shown[:MOST_KEY_SLICES]


def draw_key_slice(request: ReportRequest, picture: KeySlicePicture, highest: float) -> Canvas:
    """Draw one key slice twice, with the scale of its colours.

    Args:
        request: In the zone of the images.
        highest: The share that gets the last colour, in logits.
    """
    plain = plain_slice(picture, _SLICE_PX)
    high = plain.shape[0]
    page = Canvas(_WIDTH, _TOP_PX + high + _BOTTOM_PX, look.PAGE, lettering())
    text = summary_text(request)
    _write_top(page, request, text, picture)
    second = _EDGE_PX + _SLICE_PX + _BETWEEN_PX
    for x, rgb in ((_EDGE_PX, plain), (second, heated_slice(picture, _SLICE_PX, highest))):
        page.box(x, _TOP_PX, _SLICE_PX, high, fill=look.BLACK)
        page.picture(x + (_SLICE_PX - rgb.shape[1]) // 2, _TOP_PX, rgb)
    _draw_scale(page, high, highest)
    _write_foot(page, _TOP_PX + high, text, highest)
    return page


def kind_and_revision(instance_number: int) -> tuple[str, int]:
    """Read from its Instance Number which kind of object an image is, and of which revision."""
    revision, number = divmod(instance_number, _NUMBERS_PER_REVISION)
    return f"{_KIND}_{number}", revision


def _build(request: ReportRequest, picture: KeySlicePicture, number: int, highest: float) -> ResultObject:
    count = len(picture_members(request, picture))
    of_slab = f"mean of {count} slices, " if count > 1 else ""
    capture = Capture(
        kind=f"{_KIND}_{number}",
        instance_number=_NUMBERS_PER_REVISION * request.identity.revision + number,
        conversion_type="WSD",
        rgb=draw_key_slice(request, picture, highest).pixels(),
        derivation=f"{LABEL}: {of_slab}brain window (W 80 L 40), beside it with the class activation map of a network",
        source_images=source_images(request, [picture]),
        replaced_images=replaced_images(request, _KIND),
        replaced=replaced_objects(request, _KIND),
    )
    return secondary_capture(request, KEY_SLICES, capture)


def _write_top(page: Canvas, request: ReportRequest, text: SummaryText, picture: KeySlicePicture) -> None:
    right = _WIDTH - _EDGE_PX
    identity = "   ".join([text.patient_name, *(value for _, value in text.patient[:2])])
    page.text(_EDGE_PX, 8, identity, Style(17, look.MUTED), width=right - _EDGE_PX - 420)
    page.text(right, 8, f"Accession {text.patient[2][1]}", Style(17, look.MUTED), align="right", width=400)
    name = f"Slice {slice_label(request, picture)}, {picture.position_mm:.1f} mm"
    page.text(_EDGE_PX, 34, name, Style(24, look.WHITE, bold=True), width=520)
    page.text(right, 36, _chances(picture), Style(20, look.WHITE), align="right", width=right - _EDGE_PX - 540)
    page.text(_EDGE_PX, 68, "brain window, W 80 L 40", Style(16, look.MUTED))
    second = _EDGE_PX + _SLICE_PX + _BETWEEN_PX
    page.text(second, 66, LABEL, Style(18, look.AMBER, bold=True), width=right - second)
    if request.finding.test_model:
        mark = f"{wording.TEST_MODEL}: means nothing"
        page.text(second - _BETWEEN_PX, 66, mark, Style(18, look.AMBER, bold=True), align="right", width=340)


def _chances(picture: KeySlicePicture) -> str:
    """Give the probabilities of this slice: of any hemorrhage, and of its likeliest subtype."""
    chances = picture.probabilities
    any_text = f"any hemorrhage {wording.percent(chances['any'])}" if "any" in chances else ""
    subtypes = [name for name in wording.SUBTYPES if name in chances]
    if not subtypes:
        return any_text
    likeliest = max(subtypes, key=lambda name: chances[name])
    return f"this slice: {any_text}, {likeliest} {wording.percent(chances[likeliest])}"


def _draw_scale(page: Canvas, high: int, highest: float) -> None:
    """Draw the colour bar, as the colours look on grey matter."""
    x, y, length = _WIDTH - _RIGHT_PX - _EDGE_PX + 14, _TOP_PX + 30, high - 60
    strength = np.linspace(1, 0, length, dtype=np.float32)[:, np.newaxis].repeat(_BAR_PX, axis=1)
    grey: Rgb = np.full((length, _BAR_PX, 3), _MIDDLE_GREY, np.uint8)
    page.picture(x, y, heated(grey, strength) if highest > 0 else grey)
    page.box(x, y, _BAR_PX, length, outline=look.RULE)
    beside = Style(16, look.WHITE)
    for share in (1.0, 0.5, 0.0):
        at = y + (1 - share) * length - 11
        page.text(x + _BAR_PX + 7, at, f"{share * highest:.1f}", beside)
    page.text(x, y - 28, "logits", Style(16, look.MUTED))


def _write_foot(page: Canvas, y: float, text: SummaryText, highest: float) -> None:
    scale = (
        "Colour: what each place adds to the score; the score is the mean over all places, and a constant. "
        "Not shown: the least, and what speaks against."
        if highest > 0
        else "No place of this slice adds to the score."
    )
    width = _WIDTH - 2 * _EDGE_PX
    page.text(_EDGE_PX, y + 6, scale, Style(16, look.MUTED), width=width)
    page.text(_EDGE_PX, y + 28, f"{text.revision}. {text.origin}", Style(16, look.WHITE), width=width)
    page.text(_EDGE_PX, y + 51, wording.DISCLAIMER, Style(16, look.WHITE, bold=True), width=width)
