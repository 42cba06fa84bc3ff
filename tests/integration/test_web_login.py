"""Who gets in: log in, be locked out, log out; each role on each page; and forms that are no forms of ours."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from pydicom import dcmread
from sqlalchemy import update

from ich_node.accounts import Role, add_account, disable_account
from ich_node.accounts.people import FREE_TRIES
from ich_node.database import SessionRow
from ich_node.decode import DecoderPool
from ich_node.pipeline import Model
from ich_node.web.gate import COOKIE
from tests.browsing import PASSWORD, Pages, form_token, log_in, serving_pages


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, tiny_model: Model, decoder: DecoderPool) -> Iterator[Pages]:
    """One ``ich-node web`` for all tests here."""
    with serving_pages(tmp_path_factory.mktemp("login"), tiny_model, decoder) as one:
        yield one


# ------------------------------------------------------------------------------------------------ in and out


def test_without_a_session_a_page_leads_to_the_login_and_data_are_refused(pages: Pages) -> None:
    browser = pages.stranger()
    for path in ("/", "/worklist", "/live", f"/studies/{pages.uid}", "/studies/1.2.3", f"/studies/{pages.uid}/slices"):
        answer = browser.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
        assert browser.get(path, headers={"Accept": "application/json"}).status_code == 401
    assert browser.post(f"/studies/{pages.uid}/feedback", json={"agrees": True}).status_code == 303


def test_a_session_is_a_cookie_that_no_script_reads(pages: Pages) -> None:
    browser = pages.stranger()
    cookie = log_in(browser, "reader").headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie, "without TLS the browser would not send it"
    assert browser.get("/login").headers["location"] == "/", "who is logged in is not asked again"
    assert "reader" in browser.get("/").text


def test_a_wrong_password_and_a_name_that_there_is_not_are_answered_alike(pages: Pages) -> None:
    browser = pages.stranger()
    answers = [log_in(browser, "operator", "wrong"), log_in(browser, "nobody", "wrong"), log_in(browser, "", "")]
    assert {one.status_code for one in answers} == {401}
    assert len({one.text for one in answers}) == 1
    assert "set-cookie" not in answers[0].headers
    log_in(browser, "operator")


def test_after_wrong_passwords_the_right_one_does_not_help_either(pages: Pages) -> None:
    add_account(pages.database, "mallory", Role.READER, PASSWORD)
    browser = pages.stranger()
    said = [log_in(browser, "mallory", "wrong").text for _ in range(FREE_TRIES)]
    assert ["locked for 1 minute " in one for one in said] == [False] * (FREE_TRIES - 1) + [True]
    locked = log_in(browser, "mallory")
    assert locked.status_code == 401
    assert "locked for 1 minute " in locked.text
    why = [one.why for one in pages.recorded("User Authentication") if "mallory" in one.users]
    assert why == ["wrong password", "locked after wrong passwords"], "what comes fast is counted"


def test_who_logs_out_is_out_at_that_browser_alone(pages: Pages) -> None:
    here, there = pages.browser("reader"), pages.browser("reader")
    assert here.post("/logout", data={"form_token": "x"}).status_code == 403
    assert here.post("/logout", data={"form_token": form_token(here)}).headers["location"] == "/login"
    assert here.get("/").headers["location"] == "/login"
    assert there.get("/").status_code == 200
    types = [one.types[0] for one in pages.recorded("User Authentication") if "reader" in one.users]
    assert {"Login", "Logout"} <= set(types)


def test_a_cookie_that_was_kept_is_worth_nothing_after_the_logout(pages: Pages) -> None:
    browser, thief = pages.browser("reader"), pages.stranger()
    thief.cookies.set(COOKIE, browser.cookies[COOKIE])
    assert thief.get("/").status_code == 200
    browser.post("/logout", data={"form_token": form_token(browser)})
    assert thief.get("/").status_code == 303


def test_an_account_that_is_disabled_is_out_at_once(pages: Pages) -> None:
    add_account(pages.database, "leaver", Role.ADMINISTRATOR, PASSWORD)
    browser = pages.browser("leaver")
    disable_account(pages.database, "leaver")
    assert browser.get("/").status_code == 303
    assert log_in(browser, "leaver").status_code == 401


def test_a_session_ends_when_nobody_has_clicked_for_long(pages: Pages) -> None:
    browser = pages.browser("viewer")
    idle_s = 60 * pages.config.web.session_idle_min
    with pages.database.writing() as connection:
        connection.execute(update(SessionRow).values(seen_at=SessionRow.seen_at - idle_s - 1))
    assert browser.get("/").headers["location"] == "/login"


def test_the_database_holds_neither_password_nor_token(pages: Pages) -> None:
    browser = pages.browser("reader")
    token, form = browser.cookies[COOKIE], form_token(browser)
    with closing(sqlite3.connect(pages.config.state_directory / "ich-node.sqlite")) as opened:
        dump = "\n".join(opened.iterdump())
    assert "$argon2id$" in dump
    assert not [secret for secret in (PASSWORD, token, form) if secret in dump]
    assert not [secret for secret in (PASSWORD, token, form) if secret in pages.node.log("web").read_text()]


# ----------------------------------------------------------------------------------------------------- roles


def test_each_role_gets_what_it_may(pages: Pages) -> None:
    study = f"/studies/{pages.uid}"
    slice_ = f"{study}/slices/{dcmread(pages.sent[0], stop_before_pixels=True).SOPInstanceUID}"
    for role in Role:
        browser = pages.browser(role)
        reads = role.includes(Role.READER)
        for path in ("/", "/worklist", study, f"{study}/facts"):
            assert browser.get(path).status_code == 200, (role, path)
        images = browser.get(f"{study}/slices")
        assert images.status_code == (200 if reads else 403)
        if reads:
            first = images.json()["series"][0]["slices"][0]["uid"]
            assert browser.get(f"{study}/slices/{first}").status_code == 200
        else:
            assert browser.get(slice_).status_code == 403
        token = {"X-Form-Token": form_token(browser)}
        for path, of_nothing in {"feedback": 422, "acknowledge": 404}.items():
            answer = browser.post(f"{study}/{path}", json={}, headers=token)
            assert answer.status_code == (of_nothing if reads else 403), (role, path)


def test_a_viewer_is_shown_no_patient_and_no_image(pages: Pages) -> None:
    browser, study = pages.browser("viewer"), f"/studies/{pages.uid}"
    reader = pages.browser("reader")
    secrets = ("Eve", "alert(1)", "P&#34;1", "ACC0001")
    shown = reader.get("/").text
    assert not [one for one in secrets if one not in shown], "there is something to hide"
    for path in ("/", "/worklist", study, f"{study}/facts", "/?search=CT", "/?show=needs-a-person"):
        text = browser.get(path).text
        assert not [one for one in secrets if one in text], path
        assert "<canvas" not in text
        assert "/objects/" not in text
    objects = re.findall(rf"{study}/objects/[^\"]+", reader.get(study).text)
    assert objects
    assert browser.get(objects[0]).status_code == 403


def test_who_may_not_is_told_so_on_a_page(pages: Pages) -> None:
    answer = pages.browser("viewer").get(f"/studies/{pages.uid}/slices")
    assert answer.status_code == 403
    assert "not for your role" in answer.text


# ---------------------------------------------------------------------------------------- forms of others


def _refused(answer: httpx.Response) -> bool:
    return answer.status_code == 403


def test_a_form_of_another_site_does_nothing(pages: Pages) -> None:
    mine, other = pages.browser("reader"), pages.browser("operator")
    study, said = f"/studies/{pages.uid}/feedback", {"agrees": True}
    token = form_token(mine)
    for headers in (
        {}, {"X-Form-Token": ""}, {"X-Form-Token": form_token(other)}, {"X-Form-Token": token[:-1]},
        {"X-Form-Token": token, "Origin": "https://evil.example"}, {"X-Form-Token": token, "Origin": "null"},
        {"X-Form-Token": token, "Origin": f"http://127.0.0.1:{pages.config.web.port + 1}"},
    ):  # fmt: skip
        assert _refused(mine.post(study, json=said, headers=headers)), headers
        assert _refused(mine.post("/logout", data={"form_token": headers.get("X-Form-Token", "")}, headers=headers))
    with pages.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM feedback").scalar() == 0
    assert mine.get("/").status_code == 200, "still logged in"


def test_nobody_is_logged_in_by_a_form_of_another_site(pages: Pages) -> None:
    data = {"name": "reader", "password": PASSWORD}
    assert _refused(pages.stranger().post("/login", data=data, headers={"Origin": "https://evil.example"}))


def test_what_is_no_form_is_refused(pages: Pages) -> None:
    browser = pages.browser("reader")
    headers = {"X-Form-Token": form_token(browser)}
    study = f"/studies/{pages.uid}/feedback"
    for body, status in ((b"{", 400), (b"[]", 400), (b"[" * 60_000, 400), (b"x" * 70_000, 413), (b"\xff", 400)):
        assert browser.post(study, content=body, headers=headers).status_code == status
    assert browser.post("/login", content=b"x" * 5000).status_code == 413
    assert browser.post("/login", content=b"&".join([b"a=b"] * 30)).status_code == 400
