"""The operator's pages over a real ``ich-node web``: what they show, what they do, and whom they refuse."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import insert, update

from ich_node.database import AlertRow, ConditionRow, DeliveryRow, DestinationRow, SelfTestRow, SeriesRow
from ich_node.role_lock import holding_role
from tests.operators import Person, ServedSite, served_site, words_of
from tests.outbox import peer
from tests.running import free_port, leaks_a_socket, wait_for


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    """One ``ich-node web`` for all tests of these pages; nobody answers at pacs-0."""
    folder = tmp_path_factory.mktemp("operating")
    destinations = [
        {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": free_port(), "objects": ["report"]}
        for name in ("pacs-0", "pacs-1")
    ]
    with served_site(folder, destination=destinations) as served:
        yield served


@pytest.fixture
def operator(served: ServedSite) -> Person:
    return served.people["operator"]


def failed(served: ServedSite, state: str = "FAILED", **values: Any) -> str:
    """A study whose series needs a person."""
    uid = served.add_study()
    series = {"state": state, "reason": "ANALYSIS_FAILED", "detail": "the device said no"} | values
    served.change(SeriesRow, {"id": served.series_of(uid).id}, **series)
    return uid


def series_uid(uid: str) -> str:
    return f"{uid}.1"[:64]


def dead(served: ServedSite) -> str:
    """A study whose deliveries are dead."""
    uid = served.add_study()
    served.change(DeliveryRow, {"study_id": served.study_of(uid).id}, state="DEAD", error="0xC000", attempts=5)
    return uid


def deliveries(served: ServedSite, uid: str) -> dict[str, Any]:
    return {row.destination: row for row in served.rows(DeliveryRow, study_id=served.study_of(uid).id)}


def alert(served: ServedSite, state: str) -> str:
    """An alert of a study of its own; its identifier."""
    uid = served.add_study()
    identifier = f"A{served.study_of(uid).id:019}"
    values = {
        "identifier": identifier, "study_id": served.study_of(uid).id, "revision": 1, "kind": "final",
        "outcome": "positive", "told_before": "", "channel": "ris", "channel_kind": "hl7", "step": 0, "state": state,
        "attempts": 2, "next_attempt_at": 0.0, "created_at": 1.0, "sent_at": 2.0, "error": "nobody listens",
    }  # fmt: skip
    with served.database.writing() as connection:
        connection.execute(insert(AlertRow).values(values))
    return identifier


# ------------------------------------------------------------------------------------------ the node


def test_the_node_says_what_needs_a_person(served: ServedSite, operator: Person) -> None:
    failed(served)
    failed(served, "QUARANTINED", reason="TWO_PATIENTS")
    dead(served)
    alert(served, "UNANSWERED")
    with served.database.writing() as connection:
        connection.execute(insert(ConditionRow).values(name="backlog", text="the queue grows", since=1.0))
        paused = {"name": "pacs-1", "paused_at": 1.0, "next_attempt_at": 2.0, "error": "AE title not recognized"}
        connection.execute(insert(DestinationRow).values(paused))
    page = operator.see("/node")
    for said in (
        "the queue grows", "Destination pacs-1 is paused: AE title not recognized", "deliveries given up as dead",
        "that nobody has acknowledged", "series failed", "series in quarantine", "MiB",
        "Database schema", "Images of heads 14 days",
    ):  # fmt: skip
        assert said in page
    roles = re.findall(r"(receive|work|deliver|web) (runs|does not run)", page)
    assert dict(roles) == {"receive": "does not run", "work": "does not run", "deliver": "does not run", "web": "runs"}
    wait_for(lambda: "being added up" not in operator.see("/node"), "sizes are added up")


@leaks_a_socket
def test_a_destination_is_asked_by_a_button(served: ServedSite, operator: Person) -> None:
    port = served.site.box.config.destination[0].port
    assert "not asked from here yet" in operator.see("/node")
    assert "does not answer" in operator.do("/node/echo", destination="pacs-0")
    with peer(lambda _: 0, port=port, classes=("1.2.840.10008.1.1",)):
        page = operator.do("/node/echo", destination="pacs-0")
    assert " answers " in page
    assert "does not answer" not in page
    assert [(one.details["To"], one.details["Answers"]) for one in served.recorded("echo")] == [
        ("pacs-0", "no"), ("pacs-0", "yes"),
    ]  # fmt: skip
    assert operator.post("/node/echo", destination="elsewhere").status_code == 404


@leaks_a_socket
def test_the_node_is_examined_by_a_button_alone(served: ServedSite, operator: Person) -> None:
    assert "whole and writable" not in operator.see("/node")
    answer = operator.post("/node/examine")
    assert answer.status_code == 200
    said = words_of(answer)
    assert "ok database whole and writable" in said
    assert "BAD destination pacs-0" in said
    assert served.recorded("doctor")[-1].details["By"] == "operator-1"


def test_a_self_test_is_asked_for_by_a_button_where_somebody_would_run_it(served: ServedSite, operator: Person) -> None:
    assert "None has run yet." in operator.see("/node")
    assert operator.post("/node/self-test").status_code == 409, "deliver does not run"
    assert served.rows(SelfTestRow) == []
    with holding_role(served.state, "deliver"):
        assert "A self-test is asked for." in operator.do("/node/self-test")
        assert operator.post("/node/self-test").status_code == 409, "one waits already"
    (row,) = served.rows(SelfTestRow)
    assert (row.asked_by, row.started_at) == ("operator-1", None)
    assert served.recorded("self-test")[-1].details["By"] == "operator-1"
    with served.database.writing() as connection:
        connection.execute(update(SelfTestRow).values(finished_at=time.time(), passed=False, fault="no <b>report</b>"))
    page = operator.browser.get("/node").text
    assert "no &lt;b&gt;report&lt;/b&gt;" in page


# ------------------------------------------------------------------------------------------ series


def test_series_are_listed_with_why_and_in_pages(served: ServedSite, operator: Person) -> None:
    uid = failed(served, detail="<b>the device</b> said no")
    page = operator.browser.get("/node/series?state=failed").text
    assert uid[-12:] in page
    assert "&lt;b&gt;the device&lt;/b&gt;" in page
    served.multiply_series(failed(served, "QUARANTINED", reason="TWO_PATIENTS"), 51)
    seen: list[str] = []
    path = "/node/series?state=quarantined"
    while path:
        page = operator.browser.get(path).text
        seen += re.findall(r'name="uid" value="([\d.]+)"', page)
        more = re.search(r'href="([^"]*before=\d+)">Older', page)
        path = more[1].replace("&amp;", "&") if more else ""
    wanted = [row.series_instance_uid for row in served.rows(SeriesRow, state="QUARANTINED")]
    assert seen == wanted[::-1]
    assert len(seen) > 50
    assert operator.browser.get("/node/series?state=elsewhere").status_code == 404


def test_a_failed_series_is_queued_again(served: ServedSite, operator: Person) -> None:
    uid = failed(served)
    other = failed(served)
    assert "1 series queued again" in operator.do("/node/series/requeue", uid=series_uid(uid))
    assert served.series_of(uid).state == "RECEIVING"
    assert served.series_of(other).state == "FAILED"
    record = served.recorded("requeue")[-1]
    assert (record.details["By"], record.details["Address"]) == ("operator-1", "127.0.0.1")
    assert record.details["Series"] == "1"

    assert "queued again" in operator.do("/node/series/requeue", all="failed")
    assert served.series_of(other).state == "RECEIVING"
    assert not served.rows(SeriesRow, state="FAILED")
    assert operator.post("/node/series/requeue", all="failed").status_code == 409


@pytest.mark.parametrize(("deed", "state"), [("release", "RECEIVING"), ("reject", "REJECTED")])
def test_what_is_quarantined_is_released_or_rejected_with_a_reason(
    served: ServedSite, operator: Person, deed: str, state: str
) -> None:
    uid = failed(served, "QUARANTINED", reason="TWO_PATIENTS")
    refused = operator.post(f"/node/series/{deed}", uid=series_uid(uid), reason=" \n ")
    assert refused.status_code == 422
    assert "A reason is needed" in refused.text
    assert served.series_of(uid).state == "QUARANTINED"

    page = operator.do(f"/node/series/{deed}", uid=series_uid(uid), reason="the wrong  entry", state="quarantined")
    assert {"release": "1 series released", "reject": "1 series rejected"}[deed] in page
    assert served.series_of(uid).state == state
    record = served.recorded(deed)[-1]
    assert (record.details["By"], record.details["Reason"]) == ("operator-1", "the wrong entry")
    assert operator.post(f"/node/series/{deed}", uid=series_uid(uid), reason="again").status_code == 409
    assert len(served.recorded(deed)) == 1


# ---------------------------------------------------------------------------------- deliveries, alerts


def test_one_delivery_is_sent_again_and_no_other(served: ServedSite, operator: Person) -> None:
    uid = dead(served)
    before = deliveries(served, uid)
    assert "0xC000" in operator.see("/node/deliveries?state=dead")
    assert "1 delivery will be sent again" in operator.do("/node/deliveries/resend", delivery=before["pacs-1"].id)
    assert {name: row.state for name, row in deliveries(served, uid).items()} == {"pacs-0": "DEAD", "pacs-1": "PENDING"}
    assert served.recorded("resend")[-1].details["Delivery"] == str(before["pacs-1"].id)


def test_what_is_dead_is_sent_again_to_one_destination_or_to_all(served: ServedSite, operator: Person) -> None:
    uid = dead(served)
    operator.do("/node/deliveries/resend", what="dead", destination="pacs-0")
    assert {name: row.state for name, row in deliveries(served, uid).items()} == {"pacs-0": "PENDING", "pacs-1": "DEAD"}
    operator.do("/node/deliveries/resend", what="dead", destination="")
    assert {row.state for row in deliveries(served, uid).values()} == {"PENDING"}
    assert operator.post("/node/deliveries/resend", what="dead").status_code == 409
    assert operator.post("/node/deliveries/resend", destination="elsewhere").status_code == 404


def test_everything_is_sent_again_only_when_that_is_confirmed(served: ServedSite, operator: Person) -> None:
    uid = served.add_study()
    served.change(DeliveryRow, {"study_id": served.study_of(uid).id}, state="DELIVERED", finished_at=1.0)
    for fields in ({}, {"destination": "pacs-0"}, {"confirm": "yes"}):
        assert operator.post("/node/deliveries/resend", what="all", **fields).status_code == 422
    assert {row.state for row in deliveries(served, uid).values()} == {"DELIVERED"}
    operator.do("/node/deliveries/resend", what="all", destination="pacs-0", confirm="yes")
    states = {name: row.state for name, row in deliveries(served, uid).items()}
    assert states == {"pacs-0": "PENDING", "pacs-1": "DELIVERED"}


def test_a_dead_alert_is_sent_again(served: ServedSite, operator: Person) -> None:
    one, other = alert(served, "DEAD"), alert(served, "DEAD")
    assert "nobody listens" in operator.see("/node/alerts?state=dead")
    assert "1 alert will be sent again" in operator.do("/node/alerts/resend", alert=one)
    states = {name: served.rows(AlertRow, identifier=name)[0].state for name in (one, other)}
    assert states == {one: "PENDING", other: "DEAD"}
    operator.do("/node/alerts/resend", all="dead")
    assert not served.rows(AlertRow, state="DEAD")
    assert [one_.details["Alerts"] for one_ in served.recorded("alert-resend")] == ["1", "1"]
    assert operator.post("/node/alerts/resend", all="dead").status_code == 409


def test_an_unanswered_alert_is_acknowledged_once(served: ServedSite, operator: Person) -> None:
    identifier = alert(served, "UNANSWERED")
    assert identifier in operator.see("/node/alerts")
    assert "1 alert acknowledged" in operator.do("/node/alerts/acknowledge", alert=identifier)
    (row,) = served.rows(AlertRow, identifier=identifier)
    assert (row.state, row.acknowledged_by) == ("ACKNOWLEDGED", "operator-1")
    assert operator.post("/node/alerts/acknowledge", alert=identifier).status_code == 409
    assert operator.post("/node/alerts/acknowledge", alert="B" * 20).status_code == 409


# ------------------------------------------------------------------------------------------ refusals

OPERATORS_PAGES = ["/node", "/node/series", "/node/deliveries", "/node/alerts", "/node/done"]
ADMINISTRATORS_PAGES = ["/node/accounts", "/node/configuration", "/node/audit"]
OPERATORS_DEEDS = [
    "/node/echo", "/node/examine", "/node/self-test", "/node/series/requeue", "/node/series/release",
    "/node/series/reject", "/node/deliveries/resend", "/node/alerts/resend", "/node/alerts/acknowledge",
]  # fmt: skip
ADMINISTRATORS_DEEDS = [f"/node/accounts/{deed}" for deed in ("add", "role", "disable", "enable", "logout")]
DEEDS_OF_A_STUDY = ["requeue", "resend", "hold", "lift", "delete"]


@pytest.mark.parametrize("role", ["viewer", "reader", "operator"])
def test_whoever_may_not_is_refused(served: ServedSite, role: str) -> None:
    person = served.people[role]
    uid = failed(served)
    deeds = [*ADMINISTRATORS_DEEDS]
    if role != "operator":
        deeds += [*OPERATORS_DEEDS, *(f"/studies/{uid}/{deed}" for deed in DEEDS_OF_A_STUDY)]
        assert {person.browser.get(one).status_code for one in OPERATORS_PAGES} == {403}
    assert {person.browser.get(one).status_code for one in ADMINISTRATORS_PAGES} == {403}
    answers = {one: person.post(one, uid=series_uid(uid), reason="so", sure="yes", all="failed") for one in deeds}
    assert {one.status_code for one in answers.values()} == {403}
    assert ("For operators" in person.see(f"/studies/{uid}")) is (role == "operator")
    assert served.series_of(uid).state == "FAILED"
    assert served.image_of(uid).exists()


def test_a_form_of_another_page_does_nothing(served: ServedSite) -> None:
    uid = failed(served)
    administrator = served.people["administrator"]
    other = served.people["operator"].form_token
    deeds = [*OPERATORS_DEEDS, *ADMINISTRATORS_DEEDS, *(f"/studies/{uid}/{deed}" for deed in DEEDS_OF_A_STUDY)]
    fields = {"uid": series_uid(uid), "reason": "so", "sure": "yes", "all": "failed", "name": "viewer-1"}
    for token in ({}, {"form_token": ""}, {"form_token": other}):
        answers = [administrator.browser.post(one, data=fields | token) for one in deeds]
        assert {one.status_code for one in answers} == {403}
    elsewhere = {"Origin": "https://elsewhere.example"}
    sent = fields | {"form_token": administrator.form_token}
    answers = [administrator.browser.post(one, data=sent, headers=elsewhere) for one in deeds]
    assert {one.status_code for one in answers} == {403}
    assert served.series_of(uid).state == "FAILED"
    assert served.image_of(uid).exists()


def test_nobody_sees_anything_without_a_login(served: ServedSite) -> None:
    browser = served.people["viewer"].browser
    cookies = dict(browser.cookies)
    browser.cookies.clear()
    answers = [browser.get(one) for one in (*OPERATORS_PAGES, *ADMINISTRATORS_PAGES)]
    answers += [browser.post(one, data={"reason": "so"}) for one in (*OPERATORS_DEEDS, *ADMINISTRATORS_DEEDS)]
    browser.cookies.update(cookies)
    assert {(one.status_code, one.headers.get("location")) for one in answers} == {(303, "/login")}


def test_no_address_puts_words_into_a_page(operator: Person) -> None:
    page = operator.browser.get("/node?done=<b>gone</b>&count=<i>").text
    assert "gone" not in page
    assert "0 files deleted" in operator.see("/node/done?done=deleted&count=<i>")
