"""The line from an archive to a table: index ▶ what is not scored yet ▶ score ▶ parts ▶ one table."""

from __future__ import annotations

import csv
import io
import shutil
import time
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
_LONGEST_UNSAVED_S: Final = 600.0
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
    def index(self) -> Path:
        return self.work / _INDEX

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
    not_whole: int = 0
    """Of a PACS, which did not send all of their images."""


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
    make_ready(task)
    with ArchiveIndex(task.index) as index:
        leave_out = {one.parent.resolve() / one.name for one in (task.work, task.scores, task.bad)}
        index_archive(index, task.sources, leave_out, decoder, task.largest_member, progress.file_read)
        index.set_fingerprints(
            (study, series, fingerprint(setup_digest, files)) for study, series, files in index.every_series()
        )
        keeping = Keeping(task, index, progress)
        keeping.take_in(score_all(index.unscored_series()))
        return keeping.join(index.bad_files())


def make_ready(task: ArchiveTask) -> None:
    shutil.rmtree(task.unpacked, ignore_errors=True)  # of a run that was killed
    for folder in (task.work / _PARTS, task.unpacked):
        folder.mkdir(parents=True, exist_ok=True)


class Keeping:
    """Takes rows into parts as they come, and makes the table of them.

    Raises:
        DamagedTable: a part is damaged.
    """

    def __init__(self, task: ArchiveTask, index: ArchiveIndex, progress: Progress) -> None:
        self._task = task
        self._index = index
        self._parts = Parts(task.work / _PARTS, index)
        self._progress = progress
        self._waiting: list[ScoreRow] = []
        self._saved_at = time.monotonic()
        self._parts.take_in()
        every, before = index.series_counts()
        self._summary = ArchiveSummary(series=every, scored_before=before)
        progress.begin_series(every, before)

    def take_in(self, rows: Iterable[ScoreRow]) -> None:
        """Keep rows in parts; also those that came before something failed.

        Raises:
            BulkScoringStopped: series after series could not be scored.
        """
        failed_in_a_row = 0
        try:
            for row in rows:
                self._waiting.append(row)
                self._progress.series_scored()
                failed_in_a_row = failed_in_a_row + 1 if row["failed"] else 0
                if failed_in_a_row == _MOST_FAILED_IN_A_ROW:
                    why = row["not_analysed_reason"]
                    raise BulkScoringStopped(f"{failed_in_a_row} series in a row could not be scored; the last: {why}")
                if len(self._waiting) >= self._task.series_a_part or self._is_late:
                    self.save()
        finally:
            self.save()
            self._progress.end()

    def save(self) -> None:
        """Keep what has come since the last part, if anything; it survives a power cut then."""
        waiting, self._waiting = self._waiting, []
        self._saved_at = time.monotonic()
        if waiting:
            self._parts.add(waiting)

    @property
    def _is_late(self) -> bool:
        return time.monotonic() - self._saved_at > _LONGEST_UNSAVED_S

    def join(self, bad: Iterable[BadFile]) -> ArchiveSummary:
        """Write the table, then the list of bad files, which it tells of too."""
        index = self._index

        def counts(part: Path, position: int, study: str, series: str) -> bool:
            return index.counts(number_of(part), position, study, series)

        told = join_parts(self._parts.files(), counts, self._task.scores, self._task.work / _JOINED)
        replace_durably(self._task.bad, _as_csv(self._bad_files(bad, told)))
        return self._summary

    def _bad_files(self, bad: Iterable[BadFile], rows: Iterable[ScoreRow]) -> Iterator[BadFile]:
        for one in bad:
            self._summary.bad_files += 1
            yield one
        for row in rows:
            self._summary.analysed += row["analysed"]
            self._summary.failed += row["failed"]
            self._summary.not_whole += row["not_received"] > 0
            for unread in row["unread"]:
                self._summary.bad_files += 1
                yield BadFile(unread["name"], unread["why"])


def _as_csv(bad: Iterator[BadFile]) -> Iterator[bytes]:
    yield _line(_BAD_COLUMNS)
    for one in bad:
        yield _line((one.name, one.why))


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
