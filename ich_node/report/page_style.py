"""Colours, letters and measures of the summary page and the key slice images: light on dark, readable when printed."""

from typing import Final

from ich_node.records import Presence
from ich_node.report.drawing import Colour, Style

WIDTH: Final = 1024
MARGIN: Final = 36
INNER: Final = WIDTH - 2 * MARGIN

PAGE: Final[Colour] = (14, 18, 23)
PANEL: Final[Colour] = (30, 36, 44)
RULE: Final[Colour] = (78, 88, 98)
WHITE: Final[Colour] = (240, 243, 245)
MUTED: Final[Colour] = (172, 182, 191)
RED: Final[Colour] = (190, 32, 38)
BRIGHT_RED: Final[Colour] = (240, 90, 84)
AMBER: Final[Colour] = (246, 183, 60)
TEAL: Final[Colour] = (22, 106, 112)
BRIGHT_TEAL: Final[Colour] = (96, 176, 184)
GREY: Final[Colour] = (76, 86, 96)
VIOLET: Final[Colour] = (104, 62, 150)
BLACK: Final[Colour] = (10, 12, 15)

PLAIN: Final = Style(19, WHITE)
SMALL: Final = Style(16, MUTED)
STRONG: Final = Style(19, WHITE, bold=True)
LABEL: Final = Style(16, MUTED)
TITLE: Final = Style(19, WHITE, bold=True)

PRESENCE_COLOURS: Final[dict[Presence, Colour]] = {
    Presence.PRESENT: BRIGHT_RED,
    Presence.INDETERMINATE: AMBER,
    Presence.ABSENT: BRIGHT_TEAL,
    Presence.UNDETERMINED: MUTED,
}


def zone(probability: float, low: float, high: float) -> Presence:
    """Say on which side of its two thresholds a probability lies."""
    if probability >= high:
        return Presence.PRESENT
    return Presence.INDETERMINATE if probability >= low else Presence.ABSENT
