"""The line from an archive to a table: index ▶ what is not scored yet ▶ score ▶ parts ▶ one table."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ich_node.archive_scoring.indexing import index_archive
from ich_node.archive_scoring.parts import Parts, number_of
from ich_node.archive_scoring.progress import Progress
from ich_node.archive_scoring.scorer import fingerprint
from ich_node.database.archive_index import ArchiveIndex
from ich_node.decode import DecoderPool
from ich_node.durable import replace_durably
from ich_node.errors import BulkScoringStopped
from ich_node.records import ArchivedSeries, BadFile
from ich_node.score_table import ScoreRow, join_parts

_INDEX, _PARTS, _UNPACKED, _JOINED = "index.sqlite", "parts", "unpacked", "joined.parquet"
_MOST_FAILED_IN_A_ROW: Final = 20
_BAD_COLUMNS: Final = ("path", "reason")

ScoreAll = Callable[[Iterator[ArchivedSeries]], Iterable[ScoreRow]]
"""Takes series as it has hands free, and gives their rows in any order."""


@dataclass(frozen=True, slots=True)
class ArchiveTask:
    """What is to be scored, and where the answers go."""

    sources: tuple[Path, ...]
    scores: Path
    work: Path
    """Folder for index and parts."""
    series_a_part: int
    largest_member: int
    """Bytes of a member of a zip file, unpacked."""

    @property
    def bad(self) -> Path:
        return self.scores.with_name(f"{self.scores.name}.bad.csv")

    @property
    def unpacked(self) -> Path:
        """Folder that members of zip files are unpacked into."""
        return self.work / _UNPACKED


@dataclass(slots=True)
class ArchiveSummary:
    """What became of an archive."""

    series: int = 0
    scored_before: int = 0
    """By earlier runs."""
    analysed: int = 0
    failed: int = 0
    bad_files: int = 0


def score_archive(
    task: ArchiveTask, setup_digest: str, decoder: DecoderPool, score_all: ScoreAll, progress: Progress
) -> ArchiveSummary:
    """Score every series of an archive that is not scored yet, and write the table of all.

    Args:
        setup_digest: of model and settings; what was scored under another one is scored anew.

    Raises:
        BulkScoringStopped: series after series could not be scored.
        IchNodeError: model, processor or disk failed. What was scored until then is kept.
    """
    _make_ready(task)
    with ArchiveIndex(task.work / _INDEX) as index:
        leave_out = {one.absolute() for one in (task.work, task.scores, task.bad)}
        index_archive(index, task.sources, leave_out, decoder, task.largest_member, progress.file_read)
        index.set_fingerprints(
            (study, series, fingerprint(setup_digest, files)) for study, series, files in index.every_series()
        )
        parts = Parts(task.work / _PARTS, index)
        parts.take_in()
        every, before = index.series_counts()
        progress.begin_series(every, before)
        _score_into_parts(score_all(index.unscored_series()), parts, task.series_a_part, progress)
        progress.end()
        return _join(task, index, parts, ArchiveSummary(series=every, scored_before=before))


def _make_ready(task: ArchiveTask) -> None:
    shutil.rmtree(task.unpacked, ignore_errors=True)  # of a run that was killed
    for folder in (task.work / _PARTS, task.unpacked):
        folder.mkdir(parents=True, exist_ok=True)


def _score_into_parts(rows: Iterable[ScoreRow], parts: Parts, series_a_part: int, progress: Progress) -> None:
    waiting: list[ScoreRow] = []
    failed_in_a_row = 0
    try:
        for row in rows:
            waiting.append(row)
            progress.series_scored()
            failed_in_a_row = failed_in_a_row + 1 if row["failed"] else 0
            if failed_in_a_row == _MOST_FAILED_IN_A_ROW:
                why = row["not_analysed_reason"]
                raise BulkScoringStopped(f"{failed_in_a_row} series in a row could not be scored; the last: {why}")
            if len(waiting) >= series_a_part:
                parts.add(waiting)
                waiting = []
    finally:
        if waiting:
            parts.add(waiting)


def _join(task: ArchiveTask, index: ArchiveIndex, parts: Parts, summary: ArchiveSummary) -> ArchiveSummary:
    """Write the table, then the list of bad files, which it tells of too."""

    def counts(part: Path, position: int, study: str, series: str) -> bool:
        return index.counts(number_of(part), position, study, series)

    told = join_parts(parts.files(), counts, task.scores, task.work / _JOINED)
    replace_durably(task.bad, _as_csv(_bad_files(index, told, summary)))
    return summary


def _bad_files(index: ArchiveIndex, rows: Iterable[ScoreRow], summary: ArchiveSummary) -> Iterator[BadFile]:
    for one in index.bad_files():
        summary.bad_files += 1
        yield one
    for row in rows:
        summary.analysed += row["analysed"]
        summary.failed += row["failed"]
        for unread in row["unread"]:
            summary.bad_files += 1
            yield BadFile(unread["name"], unread["why"])


def _as_csv(bad: Iterator[BadFile]) -> Iterator[bytes]:
    yield _line(_BAD_COLUMNS)
    for one in bad:
        yield _line((one.name, one.why))


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
