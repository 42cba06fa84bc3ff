"""Legal holds, what was deleted and what is not committed, as the commands show them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ich_node.cli import main
from ich_node.database import DeliveryRow, ResultRow, SeriesRow
from ich_node.housekeeping import delete_expired
from tests.outbox import Outbox, outbox
from tests.running import as_toml, free_port, settings
from tests.unit.queueing import change

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Outbox]:
    with outbox(tmp_path / "state", free_port()) as one:
        yield one


@pytest.fixture
def command(box: Outbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command; give exit status and standard output."""
    config = tmp_path / "ich-node.toml"
    config.write_text(as_toml(settings(tmp_path / "state", Path("no-model"))))

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        return main([*words, "--config", str(config)]), capsys.readouterr().out

    return run


def test_a_hold_is_set_shown_and_lifted(box: Outbox, command: Command) -> None:
    uid = box.add_study()
    assert command("legal-hold", "set", "1.2.3", "--reason", "x")[0] == 1
    assert command("legal-hold", "set", uid, "--reason", "  ")[0] == 2
    reason = "claim 4711\x1b[2J [bold]"
    assert command("legal-hold", "set", uid, "--reason", reason, "--by", "J. Doe") == (
        0,
        "held: nothing of it is deleted\n",
    )
    assert command("legal-hold", "set", uid, "--reason", "again")[0] == 1

    status, listed = command("legal-hold", "list")
    assert (status, listed.count("\n")) == (0, 1)
    assert uid in listed
    assert "by J. Doe: claim 4711?[2J [bold]" in listed, "what a terminal would obey is not shown to it"
    assert "legal holds 1: ich-node legal-hold list" in command("status")[1]
    shown = command("status", uid)[1]
    assert "legal hold, nothing is deleted: claim 4711" in shown
    assert "[bold] (J. Doe)" in shown, "as it was entered"
    assert "\x1b[2J" not in shown

    assert command("legal-hold", "lift", uid) == (0, "lifted: its days count again\n")
    assert command("legal-hold", "lift", uid)[0] == 1
    assert command("legal-hold", "list") == (0, "")
    assert "lifted" in command("legal-hold", "list", "--all")[1]
    assert "legal hold" not in command("status")[1]


def test_status_says_what_was_deleted_of_a_study_and_by_which_rule(box: Outbox, command: Command) -> None:
    uid = box.add_study()
    change(box.database, DeliveryRow, state="DELIVERED")
    change(box.database, SeriesRow, last_received_at=9.0)
    change(box.database, ResultRow, created_at=9.0)
    assert delete_expired(box.config, box.database) == 4
    shown = command("status", uid)[1]
    assert ": 1 files of images, 1 bytes (images_days = 14)" in shown
    assert ": 3 files of reports, " in shown
    assert "(results_days = 365)" in shown
    assert not list((box.config.state_directory / "results").glob("*.dcm"))


def test_status_says_what_is_kept_past_its_days_and_what_is_not_committed(box: Outbox, command: Command) -> None:
    uid = box.add_study()
    change(box.database, SeriesRow, last_received_at=9.0)
    waiting = {"state": "DELIVERED", "commitment_ask_at": time.time() + 60, "commitment_asks": 2, "finished_at": 9.0}
    change(box.database, DeliveryRow, **waiting)
    shown = command("status")[1]
    assert "kept: images of 1 studies are kept past their days" in shown
    assert "kept: destination pacs-0 has not committed to 1 objects within 24 h" in shown
    assert "pacs-0 DELIVERED" in command("status", uid)[1]
    assert "commitment asked 2 times" in command("status", uid)[1]
    stays = json.loads(command("status", "--json")[1])["stays"]
    assert set(stays) == {"retention", "commitment pacs-0"}
    change(box.database, DeliveryRow, state="COMMITTED", commitment_ask_at=None)
    assert "kept:" not in command("status")[1]
