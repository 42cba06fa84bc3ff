"""The log of a run: a table that grows by one row now and then, and what is said on the terminal."""

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tqdm import tqdm

COLUMNS: Final = (
    "step", "epoch", "seconds", "size_px", "learning_rate", "loss", "slices_per_s", "validation_log_loss",
    "validation_auc_any",
)  # fmt: skip


class RunLog:
    """Appends rows to ``log.csv``; rows of steps that are done again after an interruption are dropped first.

    Args:
        path: Of the table.
        from_step: Where the run goes on.
        steps: Of the whole run.
    """

    def __init__(self, path: Path, from_step: int, steps: int) -> None:
        self._path = path
        self._bar = tqdm(total=steps, initial=from_step, unit="step", disable=None, file=sys.stderr)
        kept: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= from_step]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)

    def add(self, figures: Mapping[str, float | int | None]) -> None:
        """Write one row; what is not known stays empty."""
        with self._path.open("a", newline="") as file:
            row = {name: _written(figures.get(name)) for name in COLUMNS}
            csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)

    def say(self, text: str) -> None:
        """Tell the person who waits."""
        tqdm.write(text, file=sys.stderr)

    def advance(self) -> None:
        """Move the bar, which is drawn on a terminal alone."""
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


def read_log(path: Path) -> list[dict[str, float | None]]:
    """Read a log as numbers, for plotting."""
    with path.open(newline="") as file:
        return [{name: float(text) if text else None for name, text in row.items()} for row in csv.DictReader(file)]


def _written(value: float | int | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
