"""Small archives for bulk scoring, and what was made of them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ich_node.archive_scoring.running import ArchiveTask
from ich_node.archive_scoring.scorer import ScoringSetup
from ich_node.decode import DecodeLimits
from ich_node.eligibility import slice_ineligibility
from ich_node.phantom import LESIONS, PhantomSettings, write_series
from ich_node.records import EligibilityRules

HEAD = PhantomSettings(slices=12, rows=64, slice_spacing_mm=11.0)
LARGEST = 1024 * 1024


def write_heads(folder: Path, count: int = 4) -> list[str]:
    """Write heads, a folder each; give the UIDs of their studies."""
    uids = [f"1.2.5.{number}" for number in range(count)]
    for number, uid in enumerate(uids):
        lesion = (None, *LESIONS)[number % 6]
        write_series(folder / f"head{number}", replace(HEAD, lesion=lesion, seed=number, study_instance_uid=uid))
    return uids


def zip_up(folder: Path, to: Path, prefix: str = "") -> None:
    """Put the files of a folder into a zip file, and delete them."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as packed:
        for one in sorted(folder.iterdir()):
            packed.write(one, prefix + one.name)
            one.unlink()
    folder.rmdir()


def task_of(folder: Path, *sources: Path, part: int = 2) -> ArchiveTask:
    """Say what to score, with table and work beside each other in a folder."""
    return ArchiveTask(sources, folder / "scores.parquet", folder / "work", part, LARGEST)


def setup_of(bundle: Path, **changes: Any) -> ScoringSetup:
    """Score as the session's model and decoder do."""
    return replace(
        ScoringSetup(
            bundle, "torch", 1, True, None, None, DecodeLimits(), slice_ineligibility, EligibilityRules(), 1, LARGEST
        ),
        **changes,
    )


def rows_of(table: Path) -> list[dict[str, Any]]:
    """Read a table of scores, in the order of studies."""
    return sorted(pq.read_table(table).to_pylist(), key=lambda row: row["study_instance_uid"])


def without_seconds(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {name: value for name, value in row.items() if name != "seconds"}
