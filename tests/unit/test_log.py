"""The log: JSON lines that never hold what came from a patient's header."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CANARY = "Canary^Jane"


def logged(code: str, status: int = 0) -> list[dict[str, Any]]:
    """Run code in a process of its own, with logging started, and give its lines."""
    program = f"import logging, sys, threading, warnings\nfrom ich_node.log import EventLog, start_logging\n{code}"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert ended.returncode == status, ended.stderr
    assert ended.stdout == ""
    assert CANARY not in ended.stderr
    return [json.loads(line, parse_constant=pytest.fail) for line in ended.stderr.splitlines()]


def test_an_event_is_one_line_of_json_with_its_fields() -> None:
    (line,) = logged("start_logging('INFO', 'receive'); EventLog('x').info('stored', series=3, triage=None)")
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "INFO", "role": "receive", "event": "stored", "series": 3, "triage": None}


def test_events_below_the_level_are_not_written() -> None:
    lines = logged("start_logging('WARNING'); log = EventLog('x'); log.info('a'); log.debug('b'); log.warning('c')")
    assert [line["event"] for line in lines] == ["c"]


def test_control_characters_cannot_forge_a_line() -> None:
    forged = 'A\\n{\\"event\\": \\"forged\\"}\\x1b[31m\\u2028\\ud800'
    (line,) = logged(f"start_logging(); EventLog('x').info('refused', calling_ae_title=\"{forged}\")")
    assert line["event"] == "refused"
    assert line["calling_ae_title"].startswith('A\n{"event"')


def test_numbers_that_json_lacks_stay_readable() -> None:
    (line,) = logged("start_logging(); EventLog('x').info('scored', position=float('nan'), most=float('inf'))")
    assert (line["position"], line["most"]) == ("nan", "inf")


def test_long_texts_are_cut() -> None:
    (line,) = logged("start_logging(); EventLog('x').info('odd', text='y' * 100_000)")
    assert len(line["text"]) == 1000


@pytest.mark.parametrize(
    "code",
    [
        f"warnings.warn('Invalid value for VR PN: {CANARY}', stacklevel=1)",
        f"logging.getLogger('pydicom').error('{CANARY}')",
        f"logging.getLogger('pynetdicom.acse').warning('{CANARY}')",
        f"logging.getLogger('sqlalchemy').warning('%s', '{CANARY}')",
        f"logging.getLogger('other').warning('%d', '{CANARY}')",  # an argument that does not fit
    ],
)
def test_texts_of_libraries_are_left_out(code: str) -> None:
    lines = logged(f"start_logging('DEBUG')\n{code}")
    assert len(lines) <= 1
    assert all("left out" in line["event"] for line in lines)


def test_of_a_foreign_exception_only_type_and_place_are_kept() -> None:
    lines = logged(f"""
start_logging()
try:
    raise ValueError("bad name {CANARY}")
except ValueError as error:
    EventLog("x").error("object refused", error)
""")
    assert lines[0]["error"] == "ValueError"
    assert lines[0]["where"].startswith("<string>:")
    assert "detail" not in lines[0]


def test_an_exception_of_ours_is_told_whole() -> None:
    lines = logged("""
from ich_node.errors import SpoolFull
start_logging()
EventLog("x").error("object refused", SpoolFull("no space left on the disk"))
""")
    assert (lines[0]["error"], lines[0]["detail"]) == ("SpoolFull", "no space left on the disk")


def test_what_ends_the_process_is_logged_without_its_text() -> None:
    (line,) = logged(f"start_logging()\ndef fall(): raise KeyError('{CANARY}')\nfall()", status=1)
    assert line["event"] == "ended by an error nobody expected"
    assert line["error"] == "KeyError"
    assert [step.split()[-1] for step in line["stack"]] == ["<module>", "fall"]


def test_what_ends_a_thread_is_logged_without_its_text() -> None:
    (line,) = logged(f"""
start_logging()
def fall(): raise KeyError("{CANARY}")
thread = threading.Thread(target=fall)
thread.start()
thread.join()
""")
    assert line["error"] == "KeyError"


def test_what_fails_while_an_object_is_thrown_away_is_logged_without_its_text() -> None:
    (line,) = logged(f"""
start_logging()
class Thing:
    def __del__(self): raise KeyError("{CANARY}")
Thing()
""")
    assert line["error"] == "KeyError"


def test_a_line_that_cannot_be_written_is_not_printed_either() -> None:
    assert not logged(f"""
start_logging()
class Odd:
    def __str__(self): raise ValueError("{CANARY}")
EventLog("x").info("odd", value=Odd())
""")
