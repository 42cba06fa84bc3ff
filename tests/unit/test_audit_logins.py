"""Wrong passwords in the audit trail: what comes fast is counted, and a flood of names writes no flood of records."""

from __future__ import annotations

from pathlib import Path

from ich_node.audit import open_trail
from ich_node.config import parse_config
from ich_node.repeats import MOST
from tests.auditing import recorded_in
from tests.running import settings

WHY = "no such account"


def test_wrong_passwords_are_counted_to_the_last(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    trail = open_trail(parse_config(settings(tmp_path / "state", Path("no-model"))), "web")
    for _ in range(7):
        trail.authenticated("rita", "10.0.0.9", login=True, why_not="wrong password")
    trail.authenticated("rita", "10.0.0.9", login=True)
    trail.close()
    said = [one.why for one in recorded_in(tmp_path / "state", "User Authentication")]
    assert said == ["wrong password", "", "wrong password, 6 times"]


def test_invented_names_write_no_record_each(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    trail = open_trail(parse_config(settings(tmp_path / "state", Path("no-model"))), "web")
    for number in range(MOST + 500):
        trail.authenticated(f"name-{number}", "10.0.0.9", login=True, why_not=WHY)
    trail.close()
    recorded = recorded_in(tmp_path / "state", "User Authentication")
    assert len(recorded) <= MOST + 2
    assert recorded[-1].why == f"{WHY}, 499 times"
