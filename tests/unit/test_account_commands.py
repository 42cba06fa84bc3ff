"""The commands by which accounts are made and changed: what they do, what they refuse, and what is recorded."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from ich_node.accounts import Role, list_accounts, log_in
from ich_node.cli import main
from ich_node.config import parse_config
from ich_node.database import open_database
from tests.auditing import recorded_in
from tests.running import as_toml, settings

PASSWORD = "correct horse battery staple"
User = Callable[..., int]


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    file = tmp_path / "ich-node.toml"
    file.write_text(as_toml(settings(tmp_path / "state", Path("no-model"))))

    def run(*words: str, typed: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return main(["user", *words, "--config", str(file)])

    return run


def test_an_account_is_made_changed_and_locked_out(
    user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert user("list") == 0
    assert "nobody may log in yet" in capsys.readouterr().out
    add = ("add", "--password-stdin", "--role")
    assert user(*add, "administrator", "ada", typed=f"{PASSWORD}\n") == 0
    assert user(*add, "reader", "rita", typed=f"{PASSWORD}\n") == 0
    assert user(*add, "reader", "rita", typed=f"{PASSWORD}\n") == 1, "the name is taken"
    assert user(*add, "reader", "rob", typed="short\n") == 1
    assert user("role", "rita", "operator") == 0
    assert user("password", "rita", "--password-stdin", typed="another horse battery\n") == 0
    assert user("disable", "ada") == 1, "the only administrator"
    assert user("disable", "rita") == 0
    assert user("enable", "rita") == 0
    assert user("enable", "nobody") == 1
    capsys.readouterr()
    assert user("list") == 0
    said = capsys.readouterr().out

    database = open_database(parse_config(settings(tmp_path / "state", Path("no-model"))).database_url)
    assert [(one.name, one.role) for one in list_accounts(database)] == [
        ("ada", Role.ADMINISTRATOR), ("rita", Role.OPERATOR),
    ]  # fmt: skip
    assert log_in(database, "rita", PASSWORD).account is None
    assert log_in(database, "rita", "another horse battery").account is not None
    database.close()
    assert [line.split()[:2] for line in said.splitlines()] == [["ada", "administrator"], ["rita", "operator"]]
    done = [thing for one in recorded_in(tmp_path / "state", "Security Alert") for thing in one.things]
    assert [one for one in done if one.startswith("ich-node:user")] == [
        "ich-node:user-add", "ich-node:user-add", "ich-node:user-role", "ich-node:user-password",
        "ich-node:user-disable", "ich-node:user-enable",
    ]  # fmt: skip
