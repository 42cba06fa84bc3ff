"""Rows of the one table: printed, kept as JSON, and two runs side by side."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.tables import at_least, machine, median_and_range, print_table

FOLDER: Final = Path("var/bench")


@dataclass(frozen=True, slots=True)
class Row:
    """One step: what is done a second, here and by an alternative, in each round."""

    step: str
    unit: str
    here: list[float]
    alternative: str = ""
    there: list[float] = field(default_factory=list)
    limit: float | None = None
    """What the machine could do in the same unit."""
    limit_of: str = ""
    target_ratio: float | None = None
    why_not: str = ""
    """Why it was not measured here; ``here`` is empty then."""

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the alternative, at the median."""
        return statistics.median(self.here) / statistics.median(self.there) if self.here and self.there else None


def print_rows(rows: Sequence[Row]) -> int:
    """Print the table; give the number of targets that were missed."""
    cells = [
        (
            row.step,
            row.unit,
            _figures(row.here) if row.here else f"not measured ({row.why_not})",
            row.alternative or "not measured",
            _figures(row.there) if row.there else "",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.target_ratio is None else _wanted(row),
            "" if row.limit is None else f"{_figure(row.limit)}: {row.limit_of}",
            "" if row.limit is None else f"{100 * statistics.median(row.here) / row.limit:.0f} %",
        )
        for row in rows
    ]
    head = ("step", "unit", "here", "best alternative", "there", "ratio", "target", "the machine's limit", "reached")
    return print_table("Where the time goes; median, with least and largest", head, cells)


def _wanted(row: Row) -> str:
    return "not measured" if row.ratio is None else at_least(row.ratio, row.target_ratio or 0.0, "x")


def _figure(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _figures(values: Sequence[float]) -> str:
    return median_and_range(values) if statistics.median(values) < 1000 else _figure(statistics.median(values))


def keep(rows: Sequence[Row]) -> Path:
    """Write a run as JSON, named after the time; give its path."""
    now = datetime.now(UTC)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"steps-{now:%Y%m%dT%H%M%S}.json"
    content = {
        "machine": machine(),
        "measured_at": now.isoformat(timespec="seconds"),
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def compare(paths: Sequence[str]) -> None:
    """Print two runs side by side."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compare")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args(paths)
    old, new = (_read(path) for path in (options.old, options.new))
    print(f"old: {old['machine']}\nnew: {new['machine']}")
    before = {row["step"]: row for row in old["rows"]}
    cells = []
    for row in new["rows"]:
        was = before.pop(row["step"], None)
        both = _seen(was), _seen(row), _change(was, row), _against(was), _against(row)
        cells.append((row["step"], row["unit"], *both))
    cells += [(step, row["unit"], _seen(row), "", "", _against(row), "") for step, row in before.items()]
    head = ("step", "unit", "old", "new", "new / old", "old / its alternative", "new / its alternative")
    print_table("Two runs; where the machines or their loads differ, compare the last two columns", head, cells)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _seen(row: dict[str, Any] | None) -> str:
    return _figures(row["here"]) if row and row["here"] else ""


def _change(was: dict[str, Any] | None, row: dict[str, Any]) -> str:
    if was is None or not (was["here"] and row["here"]):
        return ""
    return f"{statistics.median(row['here']) / statistics.median(was['here']):.2f}"


def _against(row: dict[str, Any] | None) -> str:
    if row is None or not (row["here"] and row["there"]):
        return ""
    return f"{statistics.median(row['here']) / statistics.median(row['there']):.2f}"
