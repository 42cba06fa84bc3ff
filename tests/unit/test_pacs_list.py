"""What a PACS said is kept until the run that asked has come to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from ich_node.database.pacs_list import PacsList
from ich_node.errors import StartError
from ich_node.records import ListedSeries

FIRST, SECOND = ListedSeries("1.2", "1.2.1", 12), ListedSeries("1.3", "1.3.1", 0)


def test_a_run_that_was_stopped_goes_on_with_its_list_and_one_that_ended_does_not(tmp_path: Path) -> None:
    path = tmp_path / "pacs.sqlite"
    with PacsList(path) as listed:
        assert listed.begin("of 2024") == set()
        listed.add_day("2024-01-01", [FIRST, SECOND], ["its answer is cut"])
    with PacsList(path) as listed:
        assert listed.begin("of 2024") == {"2024-01-01"}
        assert list(listed.every_series()) == [FIRST, SECOND]
        assert listed.series("1.3", "1.3.1") == SECOND
        assert list(listed.doubts()) == [("2024-01-01", "its answer is cut")]
        listed.end()
    with PacsList(path) as listed:
        assert listed.begin("of 2024") == set()
        assert listed.count() == 0
        assert list(listed.doubts()) == []


def test_another_question_is_asked_from_its_beginning(tmp_path: Path) -> None:
    with PacsList(tmp_path / "pacs.sqlite") as listed:
        listed.begin("of 2024")
        listed.add_day("2024-01-01", [FIRST], [])
        assert listed.begin("of 2025") == set()
        assert listed.count() == 0


def test_pages_do_not_lose_series(tmp_path: Path) -> None:
    many = [ListedSeries(f"1.{number // 3:04}", f"1.{number:05}", 1) for number in range(1201)]
    with PacsList(tmp_path / "pacs.sqlite") as listed:
        listed.begin("")
        listed.add_day("2024-01-01", many, [])
        assert list(listed.every_series()) == many


def test_a_file_that_is_no_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "pacs.sqlite").write_text("no database, and longer than the head of one" * 100)
    with pytest.raises(StartError, match="delete it"):
        PacsList(tmp_path / "pacs.sqlite")
