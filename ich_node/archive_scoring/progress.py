"""How far bulk scoring is, on standard error: a line that is written over on a terminal, else one now and then."""

from __future__ import annotations

import time
from typing import Final, TextIO

_ON_A_TERMINAL_S: Final = 0.5
_IN_A_LOG_S: Final = 30.0
_A_WHILE_S: Final = 3600.0


class Progress:
    """Count what is done, and say so from time to time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._every_s = _ON_A_TERMINAL_S if self._terminal else _IN_A_LOG_S
        self._said_at = self._began = time.monotonic()
        self._files = 0
        self._done = 0
        self._every = 0
        self._before = 0

    def file_read(self) -> None:
        """Count a file whose header was read."""
        self._files += 1
        self._say(files_in_words(self._files, time.monotonic() - self._began))

    def day_listed(self, done: int, every: int, series: int) -> None:
        """Count a day of which a PACS said what it holds."""
        self._say(f"list of the PACS: {done:,} of {every:,} days, {series:,} series", now=done == every)

    def waits(self, why: str, seconds: float) -> None:
        """Say why nothing happens for a while."""
        length = f"{seconds:.0f} s" if seconds < _A_WHILE_S else f"{seconds / 3600:.1f} hours"
        self._say(f"waiting {length}: {why}", now=True)

    def begin_series(self, every: int, scored_before: int) -> None:
        """Begin to count series."""
        self._every, self._before, self._done = every, scored_before, scored_before
        self._began = time.monotonic()
        self._say(self._series(), now=True)

    def series_scored(self) -> None:
        """Count a series."""
        self._done += 1
        self._say(self._series(), now=self._done == self._every)

    def end(self) -> None:
        """Leave a line that was written over."""
        if self._terminal:
            self._stream.write("\n")

    def _series(self) -> str:
        return series_in_words(self._done, self._every, self._done - self._before, time.monotonic() - self._began)

    def _say(self, text: str, *, now: bool = False) -> None:
        at = time.monotonic()
        if not now and at - self._said_at < self._every_s:
            return
        self._said_at = at
        self._stream.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        self._stream.flush()


def files_in_words(files: int, seconds: float) -> str:
    """Say how many headers were read."""
    return f"headers: {files:,} files" + (f", {files / seconds:,.0f} files/s" if seconds else "")


def series_in_words(done: int, every: int, now: int, seconds: float) -> str:
    """Say how far it is, how fast, and how long it will take at this rate.

    Args:
        done: series that are scored, those of earlier runs too.
        every: series there are.
        now: series that were scored in this run.
        seconds: of this run.
    """
    text = f"{done:,} of {every:,} series"
    if not now or not seconds:
        return text
    rate = now / seconds
    return f"{text}, {rate:.2f} series/s, {(every - done) / rate / 3600:.1f} hours left"
