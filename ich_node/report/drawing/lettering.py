"""Text that always comes out: each character in a font that has it, shortened or broken where it would be clipped."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from PIL import ImageFont, features

from ich_node.report.drawing.fonts import FontFiles, installed_fonts

Colour = tuple[int, int, int]

ELLIPSIS: Final = "…"
_BEFORE_ELLIPSIS: Final = " .,;"
_ABSENT: Final = "\U0010ffff"
"""A noncharacter, which no font draws: what it gives is the font's sign for a missing glyph."""
_TEST_SIZE: Final = 24
_RIGHT_TO_LEFT: Final = re.compile(
    r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]+(?:\s+[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]+)*"
)
"""Words of Hebrew, Arabic and their neighbours."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a text looks."""

    size_px: int
    colour: Colour
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """Characters that one font draws."""

    text: str
    font: ImageFont.FreeTypeFont


class Lettering:
    """Fonts in the order of preference, with the one that Pillow brings along as the last."""

    def __init__(self, files: FontFiles) -> None:
        self._files = files
        self._shapes = features.check("raqm")
        self._fonts: dict[tuple[bool, int, int], ImageFont.FreeTypeFont] = {}
        self._covered: dict[tuple[bool, int, str], bool] = {}

    def runs(self, text: str, style: Style) -> list[Run]:
        """Split a text by the fonts that draw it; what no font has becomes a visible replacement."""
        parts: list[tuple[int, str]] = []
        for character in _printable(text):
            number, drawn = self._font_of(character, style.bold, parts[-1][0] if parts else 0)
            if parts and parts[-1][0] == number:
                parts[-1] = number, parts[-1][1] + drawn
            else:
                parts.append((number, drawn))
        return [Run(self._ordered(part), self._font(style.bold, number, style.size_px)) for number, part in parts]

    def width(self, text: str, style: Style) -> float:
        """Measure a text in pixels."""
        return sum(run.font.getlength(run.text) for run in self.runs(text, style))

    def readable(self, text: str) -> bool:
        """Tell whether a text has a character that some font draws."""
        characters = [one for one in _printable(text) if one.isalnum()]
        numbers = range(len(self._files.regular) + 1)
        return not characters or any(self._covers(False, number, one) for number in numbers for one in characters)

    def fitted(self, text: str, style: Style, width: float) -> str:
        """Shorten a text to a width; an ellipsis says that something is left out."""
        if self.width(text, style) <= width:
            return text
        low, high = 0, len(text)
        while low < high:  # the longest beginning that fits
            middle = (low + high + 1) // 2
            if self.width(text[:middle].rstrip(_BEFORE_ELLIPSIS) + ELLIPSIS, style) <= width:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip(_BEFORE_ELLIPSIS) + ELLIPSIS

    def wrapped(self, text: str, style: Style, width: float, lines: int) -> list[str]:
        """Break a text into at most so many lines; the last ends with an ellipsis where not all of it fits."""
        broken: list[str] = []
        rest = text.strip()
        while rest and len(broken) < lines - 1:
            line, rest = self._first_line(rest, style, width)
            broken.append(line)
        return [*broken, self.fitted(rest, style, width)] if rest else broken

    def shrunk(self, text: str, style: Style, width: float, smallest_px: int) -> Style:
        """Make letters smaller until a text fits, but not smaller than this."""
        while style.size_px > smallest_px and self.width(text, style) > width:
            style = Style(style.size_px - 1, style.colour, style.bold)
        return style

    def _first_line(self, text: str, style: Style, width: float) -> tuple[str, str]:
        """Take as many words as fit, or as many characters of a word that is too long."""
        line = ""
        for word in re.findall(r"\s*\S+(?:\s%\S*)?", text):
            if line and self.width(line + word, style) > width:
                break
            line += word
        if self.width(line, style) > width:
            count = max(1, len(self.fitted(line, style, width)) - len(ELLIPSIS))
            return line[:count], text[count:].lstrip()
        return line, text[len(line) :].lstrip()

    def _font_of(self, character: str, bold: bool, before: int) -> tuple[int, str]:
        """Choose a font: that of the character before where it will do, so that words keep together."""
        if character.isspace():
            return before, " "
        if unicodedata.combining(character) and self._covers(bold, before, character):
            return before, character
        last = len(self._names(bold))
        for number in range(last + 1):
            if self._covers(bold, number, character):
                return number, character
        return (0, "□") if self._covers(bold, 0, "□") else (last, "?")

    def _covers(self, bold: bool, number: int, character: str) -> bool:
        """Draw a character and see whether it is the sign for a missing one."""
        key = bold, number, character
        if key not in self._covered:
            font = self._test_font(bold, number)
            self._covered[key] = _image(font, character) != _image(font, _ABSENT)
        return self._covered[key]

    def _test_font(self, bold: bool, number: int) -> ImageFont.FreeTypeFont:
        """Give a font without shaping, which would put a circle under a mark that stands alone."""
        font = self._font(bold, number, _TEST_SIZE)
        return font.font_variant(layout_engine=ImageFont.Layout.BASIC)

    def _font(self, bold: bool, number: int, size_px: int) -> ImageFont.FreeTypeFont:
        key = bold, number, size_px
        if key not in self._fonts:
            self._fonts[key] = self._open(bold, number, size_px)
        return self._fonts[key]

    def _open(self, bold: bool, number: int, size_px: int) -> ImageFont.FreeTypeFont:
        names = self._names(bold)
        if number < len(names):
            return ImageFont.truetype(names[number], size_px)
        bundled = ImageFont.load_default(size_px)
        if not isinstance(bundled, ImageFont.FreeTypeFont):
            raise RuntimeError("this Pillow has no FreeType; install its wheel from PyPI")
        return bundled

    def _names(self, bold: bool) -> tuple[Path, ...]:
        return self._files.bold if bold else self._files.regular

    def _ordered(self, text: str) -> str:
        """Put what is written from right to left into the order of drawing, where no library does it."""
        return text if self._shapes else _RIGHT_TO_LEFT.sub(lambda words: words[0][::-1], text)


@lru_cache(maxsize=1)
def lettering() -> Lettering:
    """Give the lettering of this machine; its fonts are looked for once."""
    return Lettering(installed_fonts())


def _printable(text: str) -> Iterator[str]:
    """Leave out control characters, and what steers the direction of text."""
    for character in unicodedata.normalize("NFC", text):
        if character.isspace():
            yield " "
        elif unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
            yield character


def _image(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
