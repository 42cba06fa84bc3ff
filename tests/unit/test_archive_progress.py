"""What is told while an archive is scored."""

from __future__ import annotations

import io

from ich_node.archive_scoring.progress import Progress, files_in_words, series_in_words


def test_rate_and_hours_left_are_of_this_run() -> None:
    assert series_in_words(1_200, 25_000, 200, 100.0) == "1,200 of 25,000 series, 2.00 series/s, 3.3 hours left"
    assert series_in_words(1_000, 25_000, 0, 5.0) == "1,000 of 25,000 series"
    assert files_in_words(12_000, 60.0) == "headers: 12,000 files, 200 files/s"


def test_in_a_log_a_line_stands_at_the_beginning_and_at_the_end() -> None:
    log = io.StringIO()
    progress = Progress(log)
    progress.begin_series(3, 0)
    for _ in range(3):
        progress.series_scored()
    progress.end()
    first, last = log.getvalue().splitlines()
    assert first == "0 of 3 series"
    assert last.startswith("3 of 3 series, ")
    assert last.endswith("0.0 hours left")
    assert "\r" not in log.getvalue()
