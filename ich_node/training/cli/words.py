"""What the commands share: values on the command line, prepared sets, words for people."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from ich_node.errors import TrainingError

if TYPE_CHECKING:
    from ich_node.training.prepared import PreparedSet

Commands = Any
"""argparse keeps the type of its subparsers private."""


def pair(text: str) -> tuple[str, str]:
    """Split NAME=VALUE.

    Raises:
        TrainingError: it is none.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise TrainingError(f"{text!r}: write NAME=VALUE")
    return name, value


def parsed(text: str) -> Any:
    """A value as JSON writes it, or as it stands; words with commas are a list."""
    try:
        return json.loads(text)
    except ValueError:
        return text.split(",") if "," in text else text


def whole_numbers(text: str) -> list[int]:
    """Read whole numbers with commas between them.

    Raises:
        TrainingError: they are none.
    """
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise TrainingError(f"{text!r}: write whole numbers with commas between them, such as 0,1,2") from None


def open_data(options: argparse.Namespace) -> list[PreparedSet]:
    """Open the prepared sets that were named."""
    from ich_node.training.prepared import open_prepared

    return [open_prepared(directory) for directory in options.data]


def say(text: str) -> None:
    """Tell the person who waits; standard output holds results alone."""
    sys.stderr.write(f"{text}\n")


def figure(value: float | None) -> str:
    """Write a figure that may not be known."""
    return "unknown" if value is None else f"{value:.4f}"
