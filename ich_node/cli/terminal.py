"""Text of others on a terminal: as text, and never as an order to it."""

from __future__ import annotations

import getpass
from typing import Final

from rich.markup import escape

_LONGEST_NAME: Final = 64


def printable(text: str) -> str:
    """Replace what cannot be printed by question marks.

    ESC and the other control characters of ISO 646 and ISO 6429 move the cursor, rename the window or write to its
    clipboard; those of Unicode for the direction of writing hide what stands there.
    """
    return "".join(one if one.isprintable() or one == "\n" else "?" for one in text)


def plain(text: str) -> str:
    """Show a text of others in a table or line of ours: what is printable of it, and none of it as markup."""
    return escape(printable(text))


def deliveries_in_words(count: int) -> str:
    """Count deliveries."""
    return "1 delivery" if count == 1 else f"{count} deliveries"


def who_says_so(named: str | None) -> str:
    """Name who gives a command: as it says itself, or the user of the system."""
    return printable(" ".join((named or "").split()) or getpass.getuser())[:_LONGEST_NAME]
