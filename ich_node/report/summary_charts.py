"""The charts of the summary page: a bar for each class, the scores along the head, the key slices small."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from ich_node.records import (
    HEMORRHAGE_CLASSES,
    ClassThresholds,
    KeySlicePicture,
    Presence,
    ReportRequest,
    SliceProbability,
    TriageFinding,
)
from ich_node.report import page_style as look
from ich_node.report import wording
from ich_node.report.drawing import Canvas, Colour, Style
from ich_node.report.slice_pictures import plain_slice
from ich_node.report.summary_text import percent_or_nothing, slice_label

_ROW_PX: Final = 32
_BAR_X: Final = look.MARGIN + 200
_BAR_WIDTH: Final = 408
_STRIP_PX: Final = 96
_NUMBER_PX: Final = 20
_MOST_THUMBS: Final = 5
_THUMB_PX: Final = 178
_GAP_PX: Final = (look.INNER - _MOST_THUMBS * _THUMB_PX) // (_MOST_THUMBS - 1)


def draw_probabilities(page: Canvas, y: float, finding: TriageFinding) -> float:
    """Draw one bar for each class with both of its thresholds; return where it ends."""
    page.text(look.MARGIN, y, "Probability of the whole series", look.TITLE)
    page.text(look.WIDTH - look.MARGIN, y + 2, "no finding below | suspected from", look.SMALL, align="right")
    y += 34
    for name in HEMORRHAGE_CLASSES:
        _draw_class(page, y, finding, name)
        y += _ROW_PX + (6 if name == "any" else 0)
    return y


def _draw_class(page: Canvas, y: float, finding: TriageFinding, name: str) -> None:
    presence = finding.presence.get(name, Presence.UNDETERMINED)
    probability, thresholds = finding.probabilities.get(name), finding.thresholds.get(name)
    letters = look.STRONG if name == "any" else look.PLAIN
    page.text(look.MARGIN, y + 2, "any hemorrhage" if name == "any" else name, letters, width=_BAR_X - look.MARGIN - 8)
    page.box(_BAR_X, y + 4, _BAR_WIDTH, 20, fill=look.PANEL)
    if probability is not None:
        page.box(_BAR_X, y + 4, max(1, probability * _BAR_WIDTH), 20, fill=look.PRESENCE_COLOURS[presence])
    for threshold in (thresholds.low, thresholds.high) if thresholds else ():
        x = _BAR_X + threshold * _BAR_WIDTH
        page.line([(x, y + 1), (x, y + 27)], look.WHITE, 2)
    x = _BAR_X + _BAR_WIDTH
    page.text(x + 84, y + 2, percent_or_nothing(probability), letters, align="right")
    word = Style(16, look.PRESENCE_COLOURS[presence], bold=presence is Presence.PRESENT)
    page.text(x + 96, y + 4, presence.value, word, width=118)
    if thresholds:
        limits = f"{100 * thresholds.low:.1f} | {100 * thresholds.high:.1f} %"
        page.text(look.WIDTH - look.MARGIN, y + 4, limits, look.SMALL, align="right", width=110)


class HeadStrip:
    """Where the positions of a series lie on the page, from foot to head."""

    def __init__(self, slices: Sequence[SliceProbability], finding: TriageFinding) -> None:
        positions = [one.position_mm for one in slices]
        steps = [above - below for below, above in pairwise(positions) if above > below]
        self.step_mm = median(steps) if steps else 1.0
        gaps = finding.completeness.gaps
        lowest = min([positions[0], *(gap.from_mm for gap in gaps)])
        highest = max([positions[-1], *(gap.to_mm for gap in gaps)])
        self._from_mm = lowest - self.step_mm / 2
        self._px_per_mm = look.INNER / max(highest - lowest + self.step_mm, 1e-3)

    def x(self, position_mm: float) -> float:
        return look.MARGIN + (position_mm - self._from_mm) * self._px_per_mm

    def extents(self, slices: Sequence[SliceProbability], finding: TriageFinding) -> list[tuple[float, float]]:
        """Give every slice the room up to half-way to its neighbours, but not into a gap."""
        ends = [self._half_ways(below, above, finding) for below, above in pairwise(slices)]
        half = self.step_mm / 2
        starts = [slices[0].position_mm - half, *(start for _, start in ends)]
        stops = [*(stop for stop, _ in ends), slices[-1].position_mm + half]
        return [(self.x(start), self.x(stop)) for start, stop in zip(starts, stops, strict=True)]

    def _half_ways(
        self, below: SliceProbability, above: SliceProbability, finding: TriageFinding
    ) -> tuple[float, float]:
        """Say where the slice below ends and the one above begins."""
        low, high = below.position_mm, above.position_mm
        gap = any(gap.from_mm < high and gap.to_mm > low for gap in finding.completeness.gaps)
        room = min((high - low) / 2, self.step_mm / 2 if gap else 1.5 * self.step_mm)
        return low + room, high - room


def draw_strip(page: Canvas, y: float, request: ReportRequest, pictures: Sequence[KeySlicePicture]) -> float:
    """Draw the probability of ``any`` in every slice along the head; return where it ends."""
    finding = request.finding
    slices = sorted(finding.slices, key=lambda one: one.position_mm)
    strip = HeadStrip(slices, finding)
    count = "1 slice" if len(slices) == 1 else f"{len(slices)} {'slabs' if _slabs(slices) else 'slices'}"
    page.text(look.MARGIN, y, f"Probability of any hemorrhage along the head ({count})", look.TITLE)
    y += 30
    numbers = {(one.sop_instance_uid, one.frame): number for number, one in enumerate(pictures, start=1)}
    if numbers:
        _number_slices(page, y, strip, slices, numbers)
        y += _NUMBER_PX + 8
    y = round(y)
    page.box(look.MARGIN, y, look.INNER, _STRIP_PX, fill=look.PANEL)
    _draw_slices(page, y, strip, slices, finding)
    if (thresholds := finding.thresholds.get("any")) is not None:
        _draw_thresholds(page, y, thresholds)
    _draw_gaps(page, y, strip, finding)
    return _draw_ends(page, y + _STRIP_PX + 6, slices, finding)


def _slabs(slices: Sequence[SliceProbability]) -> bool:
    return any(len(one.members) > 1 for one in slices)


def _draw_slices(
    page: Canvas, y: float, strip: HeadStrip, slices: Sequence[SliceProbability], finding: TriageFinding
) -> None:
    bars = zip((one.probabilities.get("any", 0.0) for one in slices), strip.extents(slices, finding), strict=True)
    for probability, (start, stop) in sorted(bars):  # where several share a pixel the highest is seen
        left, right = round(start), round(stop) - (stop - start > 4)
        height = max(2, round(probability * _STRIP_PX))
        colour = _bar_colour(probability, finding)
        page.box(left, y + _STRIP_PX - height, max(right - left, 1), height, fill=colour)


def _bar_colour(probability: float, finding: TriageFinding) -> Colour:
    thresholds = finding.thresholds.get("any")
    if thresholds is None:
        return look.MUTED
    return look.PRESENCE_COLOURS[look.zone(probability, thresholds.low, thresholds.high)]


def _draw_gaps(page: Canvas, y: float, strip: HeadStrip, finding: TriageFinding) -> None:
    for gap in finding.completeness.gaps:
        start, stop = strip.x(gap.from_mm + strip.step_mm / 2), strip.x(gap.to_mm - strip.step_mm / 2)
        page.hatched(start, y, max(stop - start, 6), _STRIP_PX, look.AMBER)
        if stop - start > 90:
            page.box((start + stop) / 2 - 40, y + 2, 80, 24, fill=look.PANEL)
            page.text((start + stop) / 2, y + 4, "missing", Style(16, look.AMBER, True), align="centre")


def _draw_thresholds(page: Canvas, y: float, thresholds: ClassThresholds) -> None:
    for value in (thresholds.low, thresholds.high):
        at = y + _STRIP_PX * (1 - value)
        page.dashed((look.MARGIN, at), (look.MARGIN + look.INNER, at), look.WHITE)


def _number_slices(
    page: Canvas,
    y: float,
    strip: HeadStrip,
    slices: Sequence[SliceProbability],
    numbers: dict[tuple[str, int | None], int],
) -> None:
    """Write the numbers of the key slices above their bars, side by side where these are close together."""
    marked = sorted(
        (strip.x(one.position_mm), numbers[key])
        for one in slices
        if (key := (one.sop_instance_uid, one.frame)) in numbers
    )
    for place, (at, number) in zip(_side_by_side([at for at, _ in marked]), marked, strict=True):
        page.text(place, y - 2, str(number), Style(16, look.WHITE, bold=True), align="centre")
        page.line([(place, y + _NUMBER_PX - 2), (at, y + _NUMBER_PX + 5)], look.WHITE, 2)


def _side_by_side(wanted: list[float], room: float = 18) -> list[float]:
    """Move rising places apart, each crowd about its middle, and none over the edge of the page."""
    crowds: list[list[float]] = []
    for at in wanted:
        crowds.append([at])
        while len(crowds) > 1 and _last(crowds[-2], room) + room > _first(crowds[-1], room):
            crowds[-2:] = [crowds[-2] + crowds[-1]]
    return [_first(crowd, room) + room * number for crowd in crowds for number in range(len(crowd))]


def _first(crowd: list[float], room: float) -> float:
    width = room * (len(crowd) - 1)
    edge = look.MARGIN + look.INNER - room / 2 - width
    return min(max(sum(crowd) / len(crowd) - width / 2, look.MARGIN + room / 2), edge)


def _last(crowd: list[float], room: float) -> float:
    return _first(crowd, room) + room * (len(crowd) - 1)


def _draw_ends(page: Canvas, y: float, slices: Sequence[SliceProbability], finding: TriageFinding) -> float:
    """Name the two ends, and say where the head goes on beyond them."""
    below = " (cut: the head goes on)" if finding.completeness.cut_below else ""
    above = " (cut: the head goes on)" if finding.completeness.cut_above else ""
    page.text(look.MARGIN, y, f"foot {slices[0].position_mm:.0f} mm{below}", look.SMALL, width=330)
    right = look.WIDTH - look.MARGIN
    page.text(right, y, f"{slices[-1].position_mm:.0f} mm head{above}", look.SMALL, align="right", width=330)
    thresholds = finding.thresholds.get("any")
    if thresholds is not None:
        lines = f"dashed: {wording.percent(thresholds.low)} and {wording.percent(thresholds.high)}"
        page.text(look.WIDTH / 2, y, lines, look.SMALL, align="centre", width=280)
    return y + 30


def draw_key_slices(page: Canvas, y: float, request: ReportRequest, pictures: Sequence[KeySlicePicture]) -> float:
    """Draw the key slices small, best first; return where they end."""
    page.text(look.MARGIN, y, "Slices to look at first (brain window, W 80 L 40)", look.TITLE)
    y += 32
    for number, picture in enumerate(pictures[:_MOST_THUMBS]):
        x = look.MARGIN + number * (_THUMB_PX + _GAP_PX)
        _draw_thumb(page, x, y, picture)
        page.text(x + 4, y + 1, str(number + 1), Style(20, look.WHITE, bold=True))
        below = y + _THUMB_PX + 4
        page.text(x, below, f"Slice {slice_label(request, picture)}", Style(16, look.WHITE), width=_THUMB_PX)
        chance = percent_or_nothing(picture.probabilities.get("any"))
        page.text(x, below + 21, f"{chance}, {picture.position_mm:.1f} mm", look.SMALL, width=_THUMB_PX)
    return y + _THUMB_PX + 54


def _draw_thumb(page: Canvas, x: int, y: float, picture: KeySlicePicture) -> None:
    rgb = plain_slice(picture, _THUMB_PX)
    page.box(x, y, _THUMB_PX, _THUMB_PX, fill=look.BLACK)
    page.picture(x + (_THUMB_PX - rgb.shape[1]) // 2, round(y) + (_THUMB_PX - rgb.shape[0]) // 2, rgb)
    page.box(x, y, _THUMB_PX, _THUMB_PX, outline=look.RULE)
