"""Tables on the terminal that are Markdown too."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

MISSED = "**missed**"


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    """Print a Markdown table with aligned columns; give the number of targets that were missed in it."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    print(f"\n{title}\n\n" + "\n".join([lines[0], rule, *lines[1:]]), flush=True)
    return sum(MISSED in cell for row in cells for cell in row)


def median_and_range(values: Sequence[float], digits: int = 1) -> str:
    """Write several measurements as their median, and the least and the largest."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def at_least(measured: float, target: float, unit: str) -> str:
    """Say what was wanted, and mark it where it was missed."""
    return f"≥ {target:g} {unit}" + ("" if measured >= target else f" {MISSED}")


def at_most(measured: float, target: float, unit: str) -> str:
    """Say what was wanted, and mark it where it was missed."""
    return f"≤ {target:g} {unit}" + ("" if measured <= target else f" {MISSED}")


def machine() -> str:
    """Describe where this is measured; other work on the machine shows in the load."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory_gib:.0f} GiB; Linux {platform.release()}, "
        f"Python {platform.python_version()}; load average before: {load}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
