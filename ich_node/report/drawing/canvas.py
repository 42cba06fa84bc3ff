"""A sheet to draw on: text that is never clipped, boxes, lines, pictures."""

import io
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ich_node.report.drawing.lettering import Colour, Lettering, Style

LINE_HEIGHT: Final = 1.35
"""Of the size of the letters; room for the tall ones of every script."""
_BASELINE: Final = 1.02
_SMOOTH: Final = 4

Point = tuple[float, float]


class Canvas:
    """An RGB sheet; places are in pixels from the top left corner."""

    def __init__(self, width: int, height: int, background: Colour, lettering: Lettering) -> None:
        self._image = Image.new("RGB", (width, height), background)
        self._draw = ImageDraw.Draw(self._image)
        self.lettering = lettering
        self.texts: list[str] = []
        """All that was written, as it was drawn."""

    @property
    def width(self) -> int:
        return self._image.width

    def text(
        self,
        x: float,
        y: float,
        text: str,
        style: Style,
        *,
        width: float | None = None,
        align: Literal["left", "centre", "right"] = "left",
    ) -> float:
        """Write one line whose top is at ``y``; return how wide it came out.

        ``width`` is the most it may take, up to the edge of the sheet where it is None.
        """
        room = {"left": self.width - x, "right": x, "centre": 2 * min(x, self.width - x)}[align]
        fitted = self.lettering.fitted(text, style, room if width is None else min(width, room))
        wide = self.lettering.width(fitted, style)
        at = x - {"left": 0.0, "centre": wide / 2, "right": wide}[align]
        self.texts.append(fitted)
        for run in self.lettering.runs(fitted, style):
            place = at, y + _BASELINE * style.size_px
            self._draw.text(place, run.text, fill=style.colour, font=run.font, anchor="ls")
            at += run.font.getlength(run.text)
        return wide

    def paragraph(self, x: float, y: float, text: str, style: Style, *, width: float, lines: int) -> float:
        """Write a text in at most so many lines; return where the next line would begin."""
        for line in self.lettering.wrapped(text, style, width, lines):
            self.text(x, y, line, style, width=width)
            y += LINE_HEIGHT * style.size_px
        return y

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: Colour | None = None,
        outline: Colour | None = None,
        *,
        radius: float = 0,
        thick: int = 1,
    ) -> None:
        """Draw a rectangle; less than a pixel wide or high it is one pixel."""
        corners = (x, y, x + max(width - 1, 0), y + max(height - 1, 0))
        self._draw.rounded_rectangle(corners, radius, fill, outline, thick)

    def line(self, points: Sequence[Point], colour: Colour, thick: int = 1) -> None:
        """Draw a broken line."""
        self._draw.line(list(points), fill=colour, width=thick)

    def dashed(self, start: Point, end: Point, colour: Colour, *, dash: float = 5, thick: int = 1) -> None:
        """Draw a dashed straight line."""
        (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
        length = max((dx * dx + dy * dy) ** 0.5, 1e-6)
        for number in range(int(length // (2 * dash)) + 1):
            begin, stop = 2 * dash * number / length, min((2 * number + 1) * dash / length, 1)
            self.line([(x + begin * dx, y + begin * dy), (x + stop * dx, y + stop * dy)], colour, thick)

    def hatched(self, x: float, y: float, width: float, height: float, colour: Colour, *, step: int = 7) -> None:
        """Fill a rectangle with slanting lines."""
        for start in range(-int(height), int(width), step):
            low, high = max(start, 0), min(start + height, width)
            if low < high:
                self.line([(x + low, y + height - (low - start)), (x + high, y + height - (high - start))], colour)

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """Fill a polygon, with smooth edges."""
        left, top = int(min(x for x, _ in points)), int(min(y for _, y in points))
        size = int(max(x for x, _ in points)) - left + 2, int(max(y for _, y in points)) - top + 2
        mask = Image.new("L", (size[0] * _SMOOTH, size[1] * _SMOOTH))
        scaled = [((x - left) * _SMOOTH, (y - top) * _SMOOTH) for x, y in points]
        ImageDraw.Draw(mask).polygon(scaled, fill=255)
        self._image.paste(fill, (left, top), mask.resize(size, Image.Resampling.BOX))

    def picture(self, x: int, y: int, rgb: NDArray[np.uint8]) -> None:
        """Put a picture (rows, columns, 3) on the sheet."""
        self._image.paste(Image.fromarray(np.ascontiguousarray(rgb)), (x, y))

    def cut(self, height: int) -> "Canvas":
        """Cut off what lies below a height; return the sheet."""
        self._image = self._image.crop((0, 0, self.width, height))
        self._draw = ImageDraw.Draw(self._image)
        return self

    def pixels(self) -> NDArray[np.uint8]:
        """Give the sheet as (rows, columns, 3)."""
        return np.array(self._image, np.uint8)


def resized(values: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Bring values (rows, columns) to another grid: averaged where it is coarser, bicubic where it is finer."""
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC), np.float32)


def grey_png(grey: NDArray[np.uint8]) -> bytes:
    """Write a picture (rows, columns) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
