"""The result on one page, as an image: what people see in every PACS."""

from collections.abc import Sequence
from typing import Final

from ich_node.errors import ReportError
from ich_node.records import KeySlicePicture, ReportRequest, ResultObject, Triage
from ich_node.report import page_style as look
from ich_node.report import wording
from ich_node.report.drawing import Canvas, Colour, Style, lettering
from ich_node.report.references import replaced_images, replaced_objects, source_images
from ich_node.report.result_header import SUMMARY, in_zone_of_images, odd_values_allowed
from ich_node.report.secondary_capture import Capture, secondary_capture
from ich_node.report.summary_charts import draw_key_slices, draw_probabilities, draw_strip
from ich_node.report.summary_text import SummaryText, summary_text

LEAST_HEIGHT: Final = 768
_SHEET: Final = 3200
"""More than any page needs; what is left is cut off."""
_MOST_WARNINGS: Final = 9
_MOST_FIRST: Final = 4
_SIGN_PX: Final = 68
_STEP_COLUMNS: Final = 3
_LABEL_PX: Final = 104

_GROUNDS: Final[dict[Triage | None, Colour]] = {
    Triage.POSITIVE: look.RED,
    Triage.INDETERMINATE: look.AMBER,
    Triage.NEGATIVE: look.TEAL,
    None: look.GREY,
}


def build_summary_image(request: ReportRequest, pictures: Sequence[KeySlicePicture]) -> ResultObject:
    """Draw the result on one page.

    The same request and pictures always give the same bytes, on a machine with the same fonts.

    Raises: ReportError where there is no image, or a picture is of no image of the study.
    """
    if not request.study.evidence:
        raise ReportError("a summary needs the header of at least one image")
    with odd_values_allowed():
        request = in_zone_of_images(request)
        shown = pictures if request.finding.triage is not None else ()
        capture = Capture(
            kind=SUMMARY.kind,
            instance_number=request.identity.revision,
            conversion_type="SYN",
            rgb=draw_summary(request, shown).pixels(),
            derivation="Summary of an automatic analysis, with reduced key slices in the brain window",
            source_images=source_images(request, shown),
            replaced_images=replaced_images(request, SUMMARY.kind),
            replaced=replaced_objects(request, SUMMARY.kind),
        )
        return secondary_capture(request, SUMMARY, capture)


def draw_summary(request: ReportRequest, pictures: Sequence[KeySlicePicture]) -> Canvas:
    """Draw the page from top to bottom; it is as high as what stands on it.

    Args:
        request: In the zone of the images.
        pictures: Of the key slices; only where there is a result.
    """
    text = summary_text(request)
    page = Canvas(look.WIDTH, _SHEET, look.PAGE, lettering())
    y = _draw_patient(page, text)
    y = _draw_mark(page, y, text)
    y = _draw_verdict(page, y, request, text)
    y = _draw_warnings(page, y, text)
    if request.finding.triage is not None:
        y = _draw_result(page, y, request, pictures)
    y = _draw_origin(page, y, text)
    return page.cut(max(LEAST_HEIGHT, _draw_foot(page, max(y, LEAST_HEIGHT - 46))))


def _draw_result(page: Canvas, y: float, request: ReportRequest, pictures: Sequence[KeySlicePicture]) -> float:
    y = draw_probabilities(page, y, request.finding) + 10
    if request.finding.slices:
        y = draw_strip(page, y, request, pictures) + 8
    if pictures:
        y = draw_key_slices(page, y, request, pictures) + 4
    return y


def _draw_patient(page: Canvas, text: SummaryText) -> float:
    y = 22.0
    page.text(look.MARGIN, y, "AI hemorrhage triage, head CT", look.SMALL)
    page.text(look.WIDTH - look.MARGIN, y, wording.DISCLAIMER, look.SMALL, align="right", width=620)
    y += 30
    name = page.lettering.shrunk(text.patient_name, Style(34, look.WHITE, bold=True), look.INNER, 22)
    y = page.paragraph(look.MARGIN, y + (34 - name.size_px) / 2, text.patient_name, name, width=look.INNER, lines=3) + 4
    if not page.lettering.readable(text.patient_name):
        page.text(look.MARGIN, y, "This machine has no font for this name; see the patient ID.", look.PLAIN)
        y += 28
    return _draw_fields(page, y, text.patient) + 12


def _draw_fields(page: Canvas, y: float, fields: Sequence[tuple[str, str]]) -> float:
    """Write labels and values in two columns; what is too long for one takes a line of its own."""
    column, right = look.INNER // 2 - 10, False
    for label, value in fields:
        long = page.lettering.width(value, Style(16, look.WHITE)) > column - _LABEL_PX
        if long and right:
            y, right = y + 27, False
        x = look.MARGIN + (column + 20) * right
        page.text(x, y + 2, label, look.LABEL, width=_LABEL_PX - 8)
        room = (look.INNER if long else column) - _LABEL_PX
        style = page.lettering.shrunk(value, look.PLAIN, room, 14)
        page.text(x + _LABEL_PX, y + (19 - style.size_px), value, style, width=room)
        right = not (long or right)
        y += 0 if right else 27
    return y + (27 if right else 0)


def _draw_mark(page: Canvas, y: float, text: SummaryText) -> float:
    """Draw the stripe of a model that was not trained."""
    if not text.mark:
        return y
    page.box(look.MARGIN, y, look.INNER, 40, fill=look.AMBER)
    style = page.lettering.shrunk(text.mark, Style(20, look.BLACK, bold=True), look.INNER - 150, 12)
    page.text(look.WIDTH / 2, y + (32 - style.size_px) / 2, text.mark, style, align="centre")
    for x in (look.MARGIN, look.WIDTH - look.MARGIN - 56):
        page.hatched(x, y, 56, 40, look.BLACK, step=9)
    return y + 50


def _draw_verdict(page: Canvas, y: float, request: ReportRequest, text: SummaryText) -> float:
    """Draw the answer on its colour, with a sign of its own."""
    finding = request.finding
    ground = look.VIOLET if finding.withdrawn else _GROUNDS[finding.triage]
    ink = look.BLACK if ground == look.AMBER else look.WHITE
    left, width = look.MARGIN + 116, look.INNER - 134
    height = _write_verdict(Canvas(look.WIDTH, _SHEET, ground, page.lettering), 0, ink, left, width, text)
    height = max(height + 12, _SIGN_PX + 40)
    page.box(look.MARGIN, y, look.INNER, height, fill=ground, radius=8)
    _draw_sign(page, look.MARGIN + 24, y + (height - _SIGN_PX) / 2, request, ink)
    _write_verdict(page, y, ink, left, width, text)
    return y + height + 14


def _write_verdict(page: Canvas, y: float, ink: Colour, left: float, width: float, text: SummaryText) -> float:
    """Write the answer; return where it ends."""
    y += 12
    for sentence in _shortened(text.first):
        y = page.paragraph(left, y, sentence, Style(20, ink, bold=True), width=width, lines=3)
    verdict = page.lettering.shrunk(text.verdict, Style(42, ink, bold=True), width, 24)
    page.text(left, y + 42 - verdict.size_px, text.verdict, verdict, width=width)
    y = page.paragraph(left, y + 58, " ".join(text.sentences), Style(20, ink), width=width, lines=6)
    page.text(left, y + 2, text.revision, Style(18 if text.replaces else 16, ink, bold=text.replaces), width=width)
    return y + 27


def _shortened(sentences: Sequence[str]) -> Sequence[str]:
    """Leave out the middle of many sentences; the last says what the others mean for what follows."""
    if len(sentences) <= _MOST_FIRST:
        return sentences
    left_out = len(sentences) - _MOST_FIRST + 1
    return [*sentences[: _MOST_FIRST - 2], f"{left_out} more: see the report.", sentences[-1]]


def _draw_sign(page: Canvas, x: float, y: float, request: ReportRequest, ink: Colour) -> None:
    """Draw a sign that tells the answers apart without their colours."""
    ground = look.PAGE if ink == look.WHITE else look.AMBER
    middle, foot = x + _SIGN_PX / 2, y + _SIGN_PX
    letter = Style(44, ground, bold=True)
    finding = request.finding
    if finding.triage is Triage.POSITIVE:
        page.polygon([(middle, y), (x + _SIGN_PX, foot), (x, foot)], ink)
        page.text(middle, y + 20, "!", Style(40, ground, bold=True), align="centre")
    elif finding.triage is Triage.INDETERMINATE:
        page.polygon([(middle, y), (x + _SIGN_PX, y + _SIGN_PX / 2), (middle, foot), (x, y + _SIGN_PX / 2)], ink)
        page.text(middle, y + 7, "?", letter, align="centre")
    elif finding.triage is Triage.NEGATIVE:
        page.box(x, y, _SIGN_PX, _SIGN_PX, outline=ink, radius=_SIGN_PX / 2, thick=5)
        page.box(x + 18, y + _SIGN_PX / 2 - 4, _SIGN_PX - 36, 8, fill=ink)
    else:
        page.box(x, y, _SIGN_PX, _SIGN_PX, outline=ink, thick=5)
        page.polygon(_stroke(x, y, rising=False), ink)
        if finding.withdrawn:
            page.polygon(_stroke(x, y, rising=True), ink)


def _stroke(x: float, y: float, *, rising: bool) -> list[tuple[float, float]]:
    """Give a thick diagonal of the sign's square."""
    low, high = 12, _SIGN_PX - 12
    corners = [(low, low + 4), (low + 4, low), (high, high - 4), (high - 4, high)]
    return [(x + across, y + (_SIGN_PX - down if rising else down)) for across, down in corners]


def _draw_warnings(page: Canvas, y: float, text: SummaryText) -> float:
    """Write what limits the result, and what else is to be said of it."""
    for warning in text.warnings[:_MOST_WARNINGS]:
        start = y
        y = page.paragraph(look.MARGIN + 40, y, warning, Style(19, look.AMBER), width=look.INNER - 40, lines=3)
        page.polygon(
            [(look.MARGIN + 16, start + 3), (look.MARGIN + 27, start + 22), (look.MARGIN + 5, start + 22)], look.AMBER
        )
        page.text(look.MARGIN + 16, start + 6, "!", Style(14, look.PAGE, bold=True), align="centre")
        y += 4
    left_out = len(text.warnings) - _MOST_WARNINGS
    if left_out > 0:
        page.text(look.MARGIN + 40, y, f"{left_out} more: see the report.", Style(19, look.AMBER))
        y += 28
    for remark in text.remarks:
        y = page.paragraph(look.MARGIN, y, remark, look.SMALL, width=look.INNER, lines=2)
    return y + 12


def _draw_origin(page: Canvas, y: float, text: SummaryText) -> float:
    """Write which model and software it was, and when each step happened."""
    page.line([(look.MARGIN, y), (look.WIDTH - look.MARGIN, y)], look.RULE)
    y = page.paragraph(look.MARGIN, y + 8, text.origin, Style(16, look.WHITE), width=look.INNER, lines=2)
    if not text.steps:
        return y
    page.text(look.MARGIN, y + 2, text.steps_title, look.SMALL)
    y += 26
    column = look.INNER // _STEP_COLUMNS
    rows = -(-len(text.steps) // _STEP_COLUMNS)
    for number, step in enumerate(text.steps):
        x, down = look.MARGIN + column * (number // rows), y + 22 * (number % rows)
        page.text(x, down, f"{step.time}  {step.name} {step.after}", Style(15, look.WHITE), width=column - 12)
    return y + 22 * rows + 8


def _draw_foot(page: Canvas, y: float) -> int:
    page.line([(look.MARGIN, y), (look.WIDTH - look.MARGIN, y)], look.RULE)
    page.text(look.WIDTH / 2, y + 8, wording.DISCLAIMER, Style(17, look.WHITE, bold=True), align="centre")
    return round(y) + 46
