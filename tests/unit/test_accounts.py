"""Accounts, sessions and tokens: who gets in, for how long, and what the database keeps of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from ich_node.accounts import (
    LONGEST_PASSWORD,
    Account,
    Role,
    SessionRules,
    add_account,
    add_token,
    begin_session,
    change_password,
    change_role,
    disable_account,
    enable_account,
    end_session,
    end_sessions_of,
    find_session,
    find_token,
    forget_old_sessions,
    list_accounts,
    list_tokens,
    log_in,
    revoke_token,
)
from ich_node.accounts.people import FIRST_LOCK_S, FREE_TRIES, LONGEST_LOCK_S
from ich_node.database import AccountRow, ApiTokenRow, Database, SessionRow
from ich_node.errors import AccountError
from tests.unit.queueing import change, copied_queue, rows

PASSWORD = "correct horse battery"
RULES = SessionRules(idle_s=3600, longest_s=12 * 3600)


@pytest.fixture
def database(tmp_path: Path, migrated_database: Path) -> Iterator[Database]:
    database = copied_queue(migrated_database, tmp_path)
    yield database
    database.close()


@pytest.fixture
def eva(database: Database) -> Account:
    return add_account(database, "eva", Role.READER, PASSWORD)


def ago(database: Database, **seconds: float) -> None:
    """Let time pass for every session."""
    with database.writing() as connection:
        earlier = {name: getattr(SessionRow, name) - value for name, value in seconds.items()}
        connection.execute(update(SessionRow).values(earlier))


# ----------------------------------------------------------------------------------------------- accounts


def test_there_is_no_account_to_begin_with(database: Database) -> None:
    assert list_accounts(database) == []
    assert log_in(database, "admin", "admin").account is None


@pytest.mark.parametrize("name", ["", "a", "-ab", ".ab", "a b", "a/b", "é" * 3, "a" * 65, "<b>", "ab\n"])
def test_a_name_that_will_not_do_is_refused(database: Database, name: str) -> None:
    with pytest.raises(AccountError, match="a name has 2 to 64"):
        add_account(database, name, Role.READER, PASSWORD)
    with pytest.raises(AccountError, match="a name has 2 to 64"):
        add_token(database, name, Role.READER)
    assert list_accounts(database) == []


@pytest.mark.parametrize(
    ("password", "says"),
    [("short", "12 characters or more"), ("x" * (LONGEST_PASSWORD + 1), "at most"), ("abababababab", "again and again"),
     ("my name is EVA.", "hold the name")],
)  # fmt: skip
def test_a_password_that_will_not_do_is_refused(database: Database, password: str, says: str) -> None:
    with pytest.raises(AccountError, match=says):
        add_account(database, "eva", Role.READER, password)
    assert list_accounts(database) == []


def test_a_name_is_taken_once(database: Database, eva: Account) -> None:
    with pytest.raises(AccountError, match="there is an account eva already"):
        add_account(database, eva.name, Role.VIEWER, PASSWORD)


def test_a_password_is_kept_as_argon2id_and_nowhere_said(database: Database, eva: Account) -> None:
    (row,) = rows(database, AccountRow)
    assert row.password_hash.startswith("$argon2id$v=19$m=65536,")
    assert PASSWORD not in repr(row)
    assert log_in(database, "eva", PASSWORD).account == eva


def test_each_role_may_do_what_those_before_may() -> None:
    roles = list(Role)
    assert roles == ["viewer", "reader", "operator", "administrator"]
    assert [[one.includes(other) for other in roles] for one in roles] == [
        [column <= row for column in range(4)] for row in range(4)
    ]


def test_the_only_administrator_stays_one(database: Database) -> None:
    add_account(database, "ada", Role.ADMINISTRATOR, PASSWORD)
    for what in (lambda: change_role(database, "ada", Role.OPERATOR), lambda: disable_account(database, "ada")):
        with pytest.raises(AccountError, match="only administrator"):
            what()
    add_account(database, "bob", Role.ADMINISTRATOR, PASSWORD)
    disable_account(database, "ada")
    with pytest.raises(AccountError, match="only administrator"):
        change_role(database, "bob", Role.VIEWER)
    assert [(one.name, one.disabled) for one in list_accounts(database)] == [("ada", True), ("bob", False)]


def test_what_is_changed_has_to_be_there(database: Database) -> None:
    for what in (disable_account, enable_account):
        with pytest.raises(AccountError, match="there is no account nobody"):
            what(database, "nobody")


# ------------------------------------------------------------------------------------------------ lock-out


def test_wrong_passwords_lock_an_account_for_longer_and_longer(database: Database, eva: Account) -> None:
    waits = []
    for _ in range(FREE_TRIES + 8):
        waits.append(log_in(database, "eva", "wrong").locked_s)
        change(database, AccountRow, locked_until=None)
    assert waits[: FREE_TRIES - 1] == [0.0] * (FREE_TRIES - 1)
    locks = waits[FREE_TRIES - 1 :]
    assert locks == [min(FIRST_LOCK_S * 2**number, LONGEST_LOCK_S) for number in range(len(locks))]
    assert locks[-1] == LONGEST_LOCK_S


def test_while_it_is_locked_the_right_password_does_not_help(database: Database, eva: Account) -> None:
    for _ in range(FREE_TRIES):
        log_in(database, "eva", "wrong")
    tried = log_in(database, "eva", PASSWORD)
    assert tried.account is None
    assert 0 < tried.locked_s <= FIRST_LOCK_S
    change(database, AccountRow, locked_until=time.time() - 1)
    assert log_in(database, "eva", PASSWORD).account is not None
    assert rows(database, AccountRow)[0].failures == 0, "it counts anew"


@pytest.mark.parametrize("mend", [enable_account, lambda database, name: change_password(database, name, PASSWORD)])
def test_a_lock_is_ended_by_an_administrator(database: Database, eva: Account, mend: object) -> None:
    for _ in range(FREE_TRIES):
        log_in(database, "eva", "wrong")
    assert callable(mend)
    mend(database, "eva")
    assert log_in(database, "eva", PASSWORD).account is not None


def test_a_disabled_account_is_told_only_to_the_audit_trail(database: Database, eva: Account) -> None:
    disable_account(database, "eva")
    right, wrong = log_in(database, "eva", PASSWORD), log_in(database, "eva", "wrong")
    assert (right.account, right.locked_s, wrong.account, wrong.locked_s) == (None, 0.0, None, 0.0)
    assert right.why == "the account is disabled"


# ------------------------------------------------------------------------------------------------- sessions


def test_a_session_is_found_by_its_token_alone(database: Database, eva: Account) -> None:
    session = begin_session(database, eva)
    found = find_session(database, session.token, RULES)
    assert found == session
    assert find_session(database, session.token + "x", RULES) is None
    assert find_session(database, "", RULES) is None
    (row,) = rows(database, SessionRow)
    assert session.token not in (row.token_sha256, repr(session))
    assert len(row.token_sha256) == 64


def test_a_form_is_of_one_session(database: Database, eva: Account) -> None:
    one, other = begin_session(database, eva), begin_session(database, eva)
    assert one.owns(one.form_token)
    assert not one.owns(other.form_token)
    assert not one.owns("")
    assert not one.owns("é")
    assert one.token not in one.form_token


def test_a_session_ends_when_it_is_idle_and_in_any_case_in_the_end(database: Database, eva: Account) -> None:
    session = begin_session(database, eva)
    ago(database, seen_at=RULES.idle_s - 60)
    assert find_session(database, session.token, RULES, by_person=False) is not None
    ago(database, seen_at=61)
    assert find_session(database, session.token, RULES) is None

    session = begin_session(database, eva)
    ago(database, created_at=RULES.longest_s + 1)
    assert find_session(database, session.token, RULES) is None, "although it was used a moment ago"


def test_only_a_person_keeps_a_session_alive(database: Database, eva: Account) -> None:
    session = begin_session(database, eva)
    ago(database, seen_at=1800)
    seen_at = rows(database, SessionRow)[0].seen_at
    assert find_session(database, session.token, RULES, by_person=False) is not None
    assert rows(database, SessionRow)[0].seen_at == seen_at
    assert find_session(database, session.token, RULES) is not None
    assert rows(database, SessionRow)[0].seen_at >= seen_at + 1800


def test_what_changes_an_account_ends_its_sessions_or_holds_at_once(database: Database, eva: Account) -> None:
    session = begin_session(database, eva)
    change_role(database, "eva", Role.OPERATOR)
    found = find_session(database, session.token, RULES)
    assert found is not None
    assert found.role == Role.OPERATOR
    change_password(database, "eva", "another " + PASSWORD)
    assert find_session(database, session.token, RULES) is None
    session = begin_session(database, eva)
    disable_account(database, "eva")
    enable_account(database, "eva")
    assert find_session(database, session.token, RULES) is None


def test_logging_out_ends_one_session_or_all(database: Database, eva: Account) -> None:
    one, two, three = (begin_session(database, eva) for _ in range(3))
    end_session(database, one.token)
    assert [find_session(database, each.token, RULES) is None for each in (one, two, three)] == [True, False, False]
    assert end_sessions_of(database, "eva") == 2
    assert end_sessions_of(database, "nobody") == 0


def test_of_too_many_sessions_the_oldest_ends(database: Database, eva: Account) -> None:
    sessions = [begin_session(database, eva) for _ in range(21)]
    alive = [find_session(database, one.token, RULES) is not None for one in sessions]
    assert alive == [False] + [True] * 20


def test_sessions_that_have_ended_are_forgotten(database: Database, eva: Account) -> None:
    begin_session(database, eva)
    ago(database, seen_at=RULES.idle_s + 1)
    session = begin_session(database, eva)
    assert forget_old_sessions(database, RULES) == 1
    assert find_session(database, session.token, RULES) is not None


# --------------------------------------------------------------------------------------------------- tokens


def test_a_token_is_shown_once_and_kept_as_a_hash(database: Database) -> None:
    token = add_token(database, "ris", Role.READER)
    assert token.startswith("ich_")
    (row,) = rows(database, ApiTokenRow)
    assert token not in row.token_sha256
    found = find_token(database, token)
    assert found is not None
    assert (found.name, found.role, found.revoked_at) == ("ris", Role.READER, None)
    assert list_tokens(database)[0].used_at is not None
    assert find_token(database, token[:-1]) is None


def test_a_revoked_token_is_used_no_more(database: Database) -> None:
    token = add_token(database, "ris", Role.READER)
    assert revoke_token(database, "ris")
    assert find_token(database, token) is None
    assert not revoke_token(database, "ris"), "it was before"
    assert not revoke_token(database, "nobody")
    with pytest.raises(AccountError, match="already"):
        add_token(database, "ris", Role.READER)
    with database.reading() as connection:
        assert connection.execute(select(ApiTokenRow.revoked_at)).scalar_one() is not None


def test_an_account_stays_locked_after_however_many_tries(database: Database) -> None:
    add_account(database, "rita", Role.READER, PASSWORD)
    with database.writing() as connection:
        connection.execute(update(AccountRow).values(failures=100_000))
    tried = log_in(database, "rita", "wrong")
    assert (tried.account, tried.locked_s) == (None, 3600.0)
    assert log_in(database, "rita", PASSWORD).account is None


def test_who_is_disabled_while_the_password_is_looked_at_is_not_let_in(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_account(database, "ada", Role.ADMINISTRATOR, PASSWORD)
    add_account(database, "rita", Role.READER, PASSWORD)

    def slowly(_kept: str, _password: str) -> bool:
        disable_account(database, "rita")
        return True

    monkeypatch.setattr("ich_node.accounts.people.fits", slowly)
    assert log_in(database, "rita", PASSWORD).account is None
