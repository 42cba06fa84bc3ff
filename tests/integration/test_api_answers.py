"""Programs answer: feedback, alerts, studies analysed again; what is recorded of it, and how much is taken."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ich_node.accounts import Role, SessionRules, add_token
from ich_node.audit import open_trail
from ich_node.stored_files import LocalFiles
from ich_node.web.api.allowance import Allowance
from ich_node.web.api.door import Door
from ich_node.web.api.problems import answer_problems
from ich_node.web.audit import PageAudit
from ich_node.web.gate import Gate
from tests.outbox import outbox
from tests.rest_api import PATIENT, PATIENT_ID, ApiSite, api_site, next_name, problem_of

Programs = Callable[[Role], httpx.Client]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    """One ``ich-node web`` for all tests."""
    with api_site(tmp_path_factory.mktemp("api")) as served:
        yield served


@pytest.fixture
def program(site: ApiSite) -> Programs:
    """Make programs of a role."""
    return site.program


@pytest.fixture(scope="module")
def study(site: ApiSite) -> str:
    return site.add_study()


# --------------------------------------------------------------------------------------------- feedback


def test_feedback_given_twice_is_two_entries(site: ApiSite, program: Programs) -> None:
    uid, reader = site.add_study(told=False), program(Role.READER)
    key = {"sop_instance_uid": "1.2.3", "frame": None}
    said = {"agrees": False, "classes": ["subdural"], "slices": [key], "note": "left side", "by": "Dr. Roe"}
    first, second = (reader.post(f"/studies/{uid}/feedback", json=said) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    listed = reader.get(f"/studies/{uid}/feedback").json()
    assert listed == {"feedback": [first.json(), second.json()], "next_after": None}
    assert listed["feedback"][0]["hemorrhage"] is True
    assert listed["feedback"][0]["slices"] == [key]
    assert listed["feedback"][0]["reader"].startswith("Dr. Roe (reader-")


def test_who_agrees_says_what_the_study_says(site: ApiSite, program: Programs) -> None:
    positive, negative, reader = site.add_study(told=False), site.add_negative(), program(Role.READER)
    said = [reader.post(f"/studies/{uid}/feedback", json={"agrees": True, "classes": []}).json()["hemorrhage"]
            for uid in (positive, negative)]  # fmt: skip
    assert said == [True, False]
    disagrees = reader.post(f"/studies/{positive}/feedback", json={"agrees": False, "classes": []}).json()
    assert disagrees["hemorrhage"] is False


def test_feedback_is_listed_in_pages(site: ApiSite, program: Programs) -> None:
    uid, reader = site.add_study(told=False), program(Role.READER)
    for number in range(3):
        reader.post(f"/studies/{uid}/feedback", json={"agrees": True, "classes": [], "note": str(number)})
    first = reader.get(f"/studies/{uid}/feedback", params={"limit": 2}).json()
    assert [one["note"] for one in first["feedback"]] == ["0", "1"]
    last = reader.get(f"/studies/{uid}/feedback", params={"limit": 2, "after": first["next_after"]}).json()
    assert ([one["note"] for one in last["feedback"]], last["next_after"]) == (["2"], None)


def test_a_study_without_a_result_takes_no_feedback(site: ApiSite, program: Programs) -> None:
    uid = site.add_unanalysed()
    said = {"agrees": True, "classes": []}
    problem_of(program(Role.READER).post(f"/studies/{uid}/feedback", json=said), 409)


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({}, "body.agrees"),
        ({"agrees": "yes", "classes": []}, "body.agrees"),
        ({"agrees": False}, "body.classes"),
        ({"agrees": False, "classes": ["stroke"]}, "body.classes.0"),
        ({"agrees": True, "classes": [], "note": "x" * 501}, "body.note"),
        ({"agrees": True, "classes": [], "note": None}, "body.note"),
        ({"agrees": True, "classes": [], "slices": [{"sop_instance_uid": "<b>"}]}, "body.slices.0.sop_instance_uid"),
        ({"agrees": True, "classes": [], "reader": "x"}, "body.reader"),
        ([], "body"),
    ],
)
def test_feedback_that_is_none_is_refused_and_not_repeated(
    program: Programs, study: str, said: object, where: str
) -> None:
    answer = program(Role.READER).post(f"/studies/{study}/feedback", json=said)
    problem_of(answer, 422)
    assert answer.json()["errors"][0]["where"] == where
    assert not [one for one in ("stroke", "<b>", "xxxx") if one in answer.text]


def test_a_body_that_is_no_json_is_refused(program: Programs, study: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = program(Role.READER).post(f"/studies/{study}/feedback", content=b'{"agrees"', headers=headers)
    problem_of(answer, 400)


@pytest.mark.parametrize(
    ("note", "status", "kept"), [("\\ud800", 422, None), ("\\u0000", 201, ""), ("a\\nb\\u202e", 201, "a b")]
)
def test_a_note_of_odd_signs_does_no_harm(
    program: Programs, study: str, note: str, status: int, kept: str | None
) -> None:
    body = f'{{"agrees": true, "classes": [], "note": "{note}"}}'.encode()
    answer = program(Role.READER).post(
        f"/studies/{study}/feedback", content=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json().get("note")) == (status, kept)


# ------------------------------------------------------------------------------- acknowledgement and requeue


def alert_of(client: httpx.Client, uid: str) -> str:
    return str(client.get(f"/studies/{uid}").json()["alerts"][0]["identifier"])


def test_an_alert_acknowledged_twice_is_as_it_was(site: ApiSite, program: Programs) -> None:
    uid, reader, other = site.add_study(), program(Role.READER), program(Role.READER)
    path = f"/studies/{uid}/alerts/{alert_of(reader, uid)}/acknowledgement"
    first = reader.put(path, json={"by": "Dr. Roe"})
    assert (first.status_code, first.json()["state"]) == (200, "ACKNOWLEDGED")
    assert first.json()["acknowledged_by"].startswith("Dr. Roe (reader-")
    again = other.put(path)
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(site.recorded_acknowledgements(uid)) == 1


def test_programs_that_acknowledge_at_once_are_one_acknowledgement(site: ApiSite, program: Programs) -> None:
    uid, readers = site.add_study(), [program(Role.READER) for _ in range(4)]
    path = f"/studies/{uid}/alerts/{alert_of(readers[0], uid)}/acknowledgement"
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda one=one: answers.append(one.put(path))) for one in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.status_code for one in answers} == {200}
    assert len({one.text for one in answers}) == 1
    assert len(site.recorded_acknowledgements(uid)) == 1


def test_an_alert_of_another_study_is_not_found(site: ApiSite, program: Programs, study: str) -> None:
    uid, reader = site.add_study(), program(Role.READER)
    answer = reader.put(f"/studies/{uid}/alerts/{alert_of(reader, study)}/acknowledgement")
    problem_of(answer, 404)
    problem_of(reader.put(f"/studies/{uid}/alerts/short/acknowledgement"), 422)


def test_an_alert_that_nobody_was_told_cannot_be_acknowledged(site: ApiSite, program: Programs) -> None:
    uid, reader = site.add_study(), program(Role.READER)
    identifier = alert_of(reader, uid)
    with sqlite3.connect(site.state / "ich-node.sqlite") as database:
        database.execute("UPDATE alert SET state = 'HELD' WHERE identifier = ?", (identifier,))
    database.close()
    problem_of(reader.put(f"/studies/{uid}/alerts/{identifier}/acknowledgement"), 409)


def test_operator_has_a_study_analysed_again(site: ApiSite, program: Programs) -> None:
    uid, operator = site.add_study(told=False), program(Role.OPERATOR)
    assert operator.get(f"/studies/{uid}").json()["series"][0]["state"] == "CONCLUDED"
    answer = operator.post(f"/studies/{uid}/requeue")
    assert (answer.status_code, answer.json()) == (202, {"series": 1})
    assert operator.get(f"/studies/{uid}").json()["series"][0]["state"] == "RECEIVING"


def test_a_study_whose_images_are_gone_cannot_be_analysed_again(site: ApiSite, program: Programs) -> None:
    uid = site.add_study(told=False)
    with sqlite3.connect(site.state / "ich-node.sqlite") as database:
        database.execute(
            "UPDATE instance SET path = NULL WHERE series_id IN (SELECT series.id FROM series JOIN study "
            "ON study.id = series.study_id WHERE study.study_instance_uid = ?)", (uid,),
        )  # fmt: skip
    database.close()
    problem_of(program(Role.OPERATOR).post(f"/studies/{uid}/requeue"), 409)


# --------------------------------------------------------------------------------------- what is recorded


def test_every_view_of_a_patient_by_a_program_is_in_the_audit_trail(site: ApiSite) -> None:
    uid, name = site.add_study(told=False), next_name("watched")
    client = site.client(site.token(name, Role.OPERATOR))
    client.get("/studies", params={"search": uid})
    client.get(f"/studies/{uid}")
    client.get(f"/studies/{uid}/feedback")
    client.post(f"/studies/{uid}/feedback", json={"agrees": True, "classes": []})
    client.post(f"/studies/{uid}/requeue")
    recorded = site.recorded(f"token {name}")
    assert [one.details.get("Shown", "") for one in recorded] == ["worklist", "API: study", "API: feedback", "", ""]
    assert [one.patients for one in recorded] == [[PATIENT_ID]] * 4 + [[]]
    assert all(one.studies == [uid] for one in recorded[:4])
    assert "ich-node:requeue" in recorded[-1].things
    assert recorded[-1].details["Series"] == "1"


def test_what_a_viewer_looks_at_names_no_patient_in_the_trail(site: ApiSite, study: str) -> None:
    name = next_name("blind")
    client = site.client(site.token(name, Role.VIEWER))
    assert client.get(f"/studies/{study}").status_code == 200
    assert client.get("/studies").status_code == 200
    assert site.recorded(f"token {name}") == []


def test_log_names_no_patient_and_no_token(site: ApiSite, study: str) -> None:
    token = site.token(next_name("logged"), Role.READER)
    client = site.client(token)
    assert PATIENT in client.get(f"/studies/{study}").text
    client.put(f"/studies/{study}/alerts/{alert_of(client, study)}/acknowledgement", json={"by": "Dr. Roe"})
    text = site.log.read_text()
    assert "alert acknowledged" in text
    assert not [one for one in (PATIENT, PATIENT_ID, "Doe", token) if one in text]


# ---------------------------------------------------------------------------------------------- limits


def test_a_body_longer_than_64_kib_is_refused_however_it_is_sent(program: Programs, study: str) -> None:
    reader, long = program(Role.READER), b" " * (64 * 1024) + b"{}"
    headers = {"Content-Type": "application/json"}
    problem_of(reader.post(f"/studies/{study}/feedback", content=long, headers=headers), 413)
    parts = (long[start : start + 8192] for start in range(0, len(long), 8192))
    problem_of(reader.post(f"/studies/{study}/feedback", content=parts, headers=headers), 413)


def test_a_token_that_is_used_too_often_waits_and_others_do_not(tmp_path: Path) -> None:
    with outbox(tmp_path) as box:
        gate = Gate(box.database, SessionRules(idle_s=3600, longest_s=3600), ())
        audit = PageAudit(open_trail(box.config, "web"), LocalFiles(tmp_path))
        door = Door(welcome, gate, audit, Allowance(clock=lambda: 0.0))
        hasty, calm = (add_token(box.database, name, Role.VIEWER) for name in ("hasty", "calm"))
        answers = asyncio.run(ask(door, [hasty] * 21 + [calm]))
    assert [one.status_code for one in answers] == [200] * 20 + [429, 200]
    problem_of(answers[20], 429)
    assert answers[20].headers["Retry-After"] == "1"


def test_a_fault_of_the_node_is_a_problem_that_tells_nothing() -> None:
    api = FastAPI()
    answer_problems(api)

    @api.get("/")
    def fail() -> None:
        raise KeyError(PATIENT)

    (answer,) = asyncio.run(ask(api, [""]))
    assert PATIENT not in problem_of(answer, 500)


async def welcome(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand behind the door."""
    await Response(status_code=200)(scope, receive, send)


async def ask(app: Any, tokens: list[str]) -> list[httpx.Response]:
    """Ask once with each token, one after the other."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://node", verify=False
    ) as client:
        return [await client.get("/", headers={"Authorization": f"Bearer {token}"}) for token in tokens]


def test_a_database_that_stays_locked_is_a_problem_and_nothing_is_noted(site: ApiSite, program: Programs) -> None:
    uid, reader = site.add_study(told=False), program(Role.READER)
    assert reader.get("/status").status_code == 200
    other = sqlite3.connect(site.state / "ich-node.sqlite", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        answer = reader.post(f"/studies/{uid}/feedback", json={"agrees": True, "classes": []})
        problem_of(answer, 503)
        assert answer.headers["Retry-After"] == "5"
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert reader.get(f"/studies/{uid}/feedback").json()["feedback"] == []
