"""What a PACS said that it holds, on disk: so that a run which was stopped need not ask for it again.

A file of its own beside the index of bulk scoring. It can be asked for anew, so it is not written with the care that
results get.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from ich_node.database.scratch_file import ScratchFile
from ich_node.records import ListedSeries

_SCHEMA: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS question (digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS day (day TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS doubt (day TEXT NOT NULL, why TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS series (
    study TEXT NOT NULL, series TEXT NOT NULL, images INTEGER NOT NULL, PRIMARY KEY (study, series)
) WITHOUT ROWID;
"""
_AT_ONCE: Final = 500


class PacsList(ScratchFile):
    """The list, open; use it as a context manager.

    Raises:
        StartError: the file is no list of this version, or damaged.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _TABLES, _SCHEMA, "the PACS is asked anew")

    def begin(self, question: str) -> set[str]:
        """Begin to ask. What another question was answered, or this one of a run that came to its end, is forgotten.

        Args:
            question: digest of what is asked, and whom.

        Returns:
            The days that this question was answered for already, by a run that was stopped.
        """
        if self._database.execute("SELECT digest FROM question").fetchall() != [(question,)]:
            self._forget()
            self._database.execute("INSERT INTO question VALUES (?)", (question,))
            self._database.commit()
        return {day for (day,) in self._database.execute("SELECT day FROM day")}

    def add_day(self, day: str, series: Iterable[ListedSeries], doubts: Iterable[str]) -> None:
        """Enter what the PACS holds of a day, and why there may be more."""
        rows = [(one.study_instance_uid, one.series_instance_uid, one.images) for one in series]
        self._database.executemany("INSERT OR REPLACE INTO series VALUES (?, ?, ?)", rows)
        self._database.executemany("INSERT INTO doubt VALUES (?, ?)", [(day, why) for why in doubts])
        self._database.execute("INSERT INTO day VALUES (?)", (day,))
        self._database.commit()

    def end(self) -> None:
        """Note that the run came to its end: the next one asks anew."""
        self._database.execute("DELETE FROM question")
        self._database.commit()

    def count(self) -> int:
        """Count the series."""
        (count,) = self._database.execute("SELECT count(*) FROM series").fetchone()
        return int(count)

    def every_series(self) -> Iterator[ListedSeries]:
        """Give every series, in the order of their UIDs."""
        after = ("", "")
        while page := self._page(after):
            for row in page:
                yield ListedSeries(*row)
            after = page[-1][:2]

    def series(self, study: str, series: str) -> ListedSeries:
        """Give one that is listed."""
        asked = "SELECT study, series, images FROM series WHERE study = ? AND series = ?"
        return ListedSeries(*self._database.execute(asked, (study, series)).fetchone())

    def doubts(self) -> Iterator[tuple[str, str]]:
        """Give days, and why there may be more of them."""
        yield from self._database.execute("SELECT DISTINCT day, why FROM doubt ORDER BY day, why")

    def _page(self, after: tuple[str, str]) -> list[Any]:
        return self._database.execute(
            "SELECT study, series, images FROM series WHERE (study, series) > (?, ?) ORDER BY study, series LIMIT ?",
            (*after, _AT_ONCE),
        ).fetchall()

    def _forget(self) -> None:
        self._database.executescript("DELETE FROM question; DELETE FROM day; DELETE FROM doubt; DELETE FROM series;")
