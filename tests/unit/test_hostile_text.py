"""Texts of others, where people and programs read them: as text, and as nothing else."""

from __future__ import annotations

import json
import logging
from io import StringIO

import pytest
from rich.console import Console

from ich_node.cli.status import show_status
from ich_node.cli.terminal import plain, printable
from ich_node.log import _JsonLines
from ich_node.queries import NodeStatus, SeriesStatus, StudyStatus
from tests.corruption import NASTY


def line_of(**fields: object) -> str:
    record = logging.LogRecord("ich_node.receive", logging.WARNING, "scp.py", 1, "object refused", (), None)
    record.fields = fields
    return _JsonLines("receive").format(record)


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("times", [1, 2000])
def test_a_line_of_the_log_is_one_line_of_ascii_of_at_most_4_kb(text: str, times: int) -> None:
    line = line_of(**{f"field{number}": text * times for number in range(20)}, series=3)
    assert len(line) <= 4096
    assert all(0x20 <= ord(one) < 0x7F for one in line)
    read = json.loads(line)
    assert read["event"] == "object refused"
    if times == 1 and len(json.dumps(text)) < 100:
        assert read["field0"] == text
        assert read["series"] == 3


def test_a_list_or_a_mapping_makes_no_longer_line() -> None:
    assert len(line_of(many=["\u202e" * 900] * 50, more={"\x1b": "\x1b" * 5000})) <= 4096


@pytest.mark.parametrize("text", NASTY)
def test_a_terminal_gets_text_and_no_orders(text: str) -> None:
    shown = StringIO()
    Console(file=shown, force_terminal=True, color_system=None, width=4000).print(plain(text), end="")
    assert "\x1b" not in shown.getvalue()
    assert all(one.isprintable() or one == "\n" for one in shown.getvalue())
    said = shown.getvalue().replace("\n", "").rstrip("\\")  # rich doubles a backslash at the end
    assert said == printable(text).replace("\n", "").rstrip("\\")


@pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;x\x07", "[red]CT[/red]", "[/]"])
def test_the_modality_of_a_series_is_shown_as_text(text: str) -> None:
    series = _of(SeriesStatus, modality=text, state="RECEIVING", series_instance_uid="1.2", why="", steps=None)
    study = _of(StudyStatus, study_instance_uid="1.2", series=(series,), outcome="", received_at=0.0, prior="none")
    shown = StringIO()
    show_status(_of(NodeStatus, studies=(study,), mode="live"), Console(file=shown, width=200), full=True)
    assert "\x1b" not in shown.getvalue()
    assert printable(text) in shown.getvalue()


def _of(kind: type, **values: object):
    """A record with what is given, and nothing of the rest."""
    import dataclasses
    from types import SimpleNamespace

    empty = {"dict": {}, "tuple": (), "int": 0, "str": "", "bool": False, "float": 0.0}
    names = {one.name: str(one.type).split("[", 1)[0].split(" ", 1)[0] for one in dataclasses.fields(kind)}
    return SimpleNamespace(**{name: empty.get(kind_) for name, kind_ in names.items()} | values)
