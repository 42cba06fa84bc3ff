"""The index of an archive on disk: which file belongs to which series, and what was scored.

A file of its own beside the scores, not the node's database. It can be made anew from the archive and the parts, so it
is not written with the care that results get.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ich_node.database.scratch_file import ScratchFile
from ich_node.records import ArchivedFile, ArchivedHeader, ArchivedSeries, BadFile

_SCHEMA: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS file (
    path BLOB NOT NULL, member INTEGER NOT NULL, source INTEGER NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL, checksum INTEGER NOT NULL, study TEXT NOT NULL, series TEXT NOT NULL,
    station TEXT NOT NULL, sex TEXT NOT NULL, why TEXT NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (path, member)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS file_of_series ON file (study, series);
CREATE TABLE IF NOT EXISTS zip (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, changed_ns INTEGER NOT NULL, largest INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series (
    study TEXT NOT NULL, series TEXT NOT NULL, fingerprint TEXT NOT NULL, PRIMARY KEY (study, series)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS part (number INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS scored (
    study TEXT NOT NULL, series TEXT NOT NULL, fingerprint TEXT NOT NULL, failed INTEGER NOT NULL,
    part INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (study, series)
) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS unscored AS SELECT study, series, fingerprint FROM series WHERE NOT EXISTS (
    SELECT 1 FROM scored WHERE scored.study = series.study AND scored.series = series.series
    AND scored.fingerprint = series.fingerprint AND NOT scored.failed
);
"""
_NO_MEMBER: Final = -1
_COMMIT_EVERY: Final = 1000
_AT_ONCE: Final = 500


class ArchiveIndex(ScratchFile):
    """The index, open; use it as a context manager.

    Raises:
        StartError: the file is no index of this version, or damaged.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _TABLES, _SCHEMA, "it is made anew")
        self._run = 0
        self._changes = 0

    def begin_scan(self) -> None:
        """Begin to look at all files; those that are not seen until ``end_scan`` are forgotten."""
        (last,) = self._database.execute("SELECT coalesce(max(seen), 0) FROM file").fetchone()
        self._run = last + 1

    def knows(self, file: ArchivedFile) -> bool:
        """Tell whether a file was read as it is now, and could be used; remember then that it was seen."""
        found = self._database.execute(
            "UPDATE file SET seen = ?, source = ? WHERE path = ? AND member = ? AND size = ? AND changed_ns = ?"
            " AND checksum = ? AND why = ''",
            (self._run, file.source, *_key(file), file.size, file.changed_ns, file.checksum),
        )
        self._changed()
        return found.rowcount == 1

    def knows_zip(self, path: Path, size: int, changed_ns: int, largest: int, source: int) -> bool:
        """Tell whether all members of a zip file were read and can be used, and it is as it was; they are then seen."""
        asked = (os.fsencode(path), size, changed_ns, largest)
        found = self._database.execute(
            "SELECT 1 FROM zip WHERE path = ? AND size = ? AND changed_ns = ? AND largest = ?"
            " AND NOT EXISTS (SELECT 1 FROM file WHERE file.path = zip.path AND file.why <> '')",
            asked,
        ).fetchone()
        if found:
            self._database.execute(
                "UPDATE file SET seen = ?, source = ? WHERE path = ?", (self._run, source, os.fsencode(path))
            )
            self._changed()
        return found is not None

    def add(self, file: ArchivedFile, header: ArchivedHeader) -> None:
        """Enter what was read of a file."""
        what = (header.study_instance_uid, header.series_instance_uid, header.station_name, header.sex, header.why)
        values = (*_key(file), file.source, file.name, file.size, file.changed_ns, file.checksum, *what, self._run)
        self._database.execute("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        self._changed()

    def add_zip(self, path: Path, size: int, changed_ns: int, largest: int) -> None:
        """Enter that every member of a zip file was read."""
        self._database.execute(
            "INSERT OR REPLACE INTO zip VALUES (?, ?, ?, ?)", (os.fsencode(path), size, changed_ns, largest)
        )
        self._changed()

    def end_scan(self) -> None:
        """Forget the files that are gone."""
        self._database.execute("DELETE FROM file WHERE seen <> ?", (self._run,))
        self._database.execute("DELETE FROM zip WHERE path NOT IN (SELECT path FROM file)")
        self._database.commit()

    def bad_files(self) -> Iterator[BadFile]:
        """Give the files that cannot be used, in order."""
        rows = self._database.execute("SELECT name, why FROM file WHERE why <> '' ORDER BY path, member")
        for name, why in rows:
            yield BadFile(name, why)

    # -------------------------------------------------------------------------------- what is to be scored

    def every_series(self) -> Iterator[tuple[str, str, tuple[ArchivedFile, ...]]]:
        """Give study, series and files of every series, in the order of their UIDs."""
        for study, series in self._page_by_page(
            "SELECT DISTINCT study, series FROM file WHERE why = '' AND (study, series) > (?, ?)"
            " ORDER BY study, series LIMIT ?"
        ):
            yield study, series, self._files_of(study, series)

    def set_fingerprints(self, series: Iterable[tuple[str, str, str]]) -> None:
        """Keep the fingerprints that the series have now, in the place of those of the run before."""
        self._database.execute("DELETE FROM series")
        self._database.executemany("INSERT INTO series VALUES (?, ?, ?)", series)
        self._database.commit()

    def series_counts(self) -> tuple[int, int]:
        """Count the series, and those among them that are scored as they are now."""
        row = self._database.execute("SELECT (SELECT count(*) FROM series), (SELECT count(*) FROM unscored)")
        every, unscored = row.fetchone()
        return int(every), int(every - unscored)

    def unscored_series(self) -> Iterator[ArchivedSeries]:
        """Give the series that are not scored as they are now; what is scored meanwhile may be entered meanwhile."""
        for study, series, fingerprint in self.unscored():
            about = self._database.execute(
                "SELECT station, sex FROM file WHERE study = ? AND series = ? AND why = ''"
                " ORDER BY path, member LIMIT 1",
                (study, series),
            ).fetchone()
            yield ArchivedSeries(study, series, fingerprint, self._files_of(study, series), *about)

    def unscored(self) -> Iterator[tuple[str, str, str]]:
        """Give study, series and fingerprint of those, likewise."""
        yield from self._page_by_page(
            "SELECT study, series, fingerprint FROM unscored WHERE (study, series) > (?, ?)"
            " ORDER BY study, series LIMIT ?"
        )

    def _files_of(self, study: str, series: str) -> tuple[ArchivedFile, ...]:
        rows = self._database.execute(
            "SELECT source, path, member, name, size, changed_ns, checksum FROM file"
            " WHERE study = ? AND series = ? AND why = ''",
            (study, series),
        )
        return tuple(sorted(map(_file, rows), key=lambda one: (one.source, one.path, one.member or 0)))

    def _page_by_page(self, query: str) -> Iterator[Any]:
        """Give the rows of a query after study and series, some at a time, so that others may write between."""
        after = ("", "")
        while page := self._database.execute(query, (*after, _AT_ONCE)).fetchall():
            yield from page
            after = page[-1][:2]

    # ------------------------------------------------------------------------------------- what was scored

    def parts(self) -> set[int]:
        """Give the numbers of the parts that were entered."""
        return {number for (number,) in self._database.execute("SELECT number FROM part")}

    def add_part(self, number: int, rows: Sequence[tuple[str, str, str, bool]]) -> None:
        """Enter the rows of a part: study, series, fingerprint, and whether to try it again. The latest part counts."""
        self._database.execute("INSERT INTO part VALUES (?)", (number,))
        self._database.executemany(
            "INSERT OR REPLACE INTO scored VALUES (?, ?, ?, ?, ?, ?)",
            [(*row, number, position) for position, row in enumerate(rows)],
        )
        self._database.commit()

    def forget_parts(self) -> None:
        """Forget what was scored: a part is gone, so all are entered anew."""
        self._database.executescript("DELETE FROM part; DELETE FROM scored;")

    def counts(self, part: int, position: int, study: str, series: str) -> bool:
        """Tell whether a row of a part is the one that counts for its series as that is now."""
        asked = "SELECT 1 FROM scored JOIN series USING (study, series, fingerprint) WHERE study = ? AND series = ?"
        row = self._database.execute(f"{asked} AND part = ? AND position = ?", (study, series, part, position))
        return row.fetchone() is not None

    def _changed(self) -> None:
        self._changes += 1
        if self._changes % _COMMIT_EVERY == 0:
            self._database.commit()


def _key(file: ArchivedFile) -> tuple[bytes, int]:
    return os.fsencode(file.path), _NO_MEMBER if file.member is None else file.member


def _file(row: tuple[int, bytes, int, str, int, int, int]) -> ArchivedFile:
    source, path, member, name, size, changed_ns, checksum = row
    in_zip = None if member == _NO_MEMBER else member
    return ArchivedFile(source, Path(os.fsdecode(path)), in_zip, name, size, changed_ns, checksum)
