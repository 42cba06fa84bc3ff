"""Programs ask the node: who is let in, what each role sees, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO

import httpx
import pytest
from pydicom import dcmread

from ich_node.accounts import Role, add_account, begin_session, revoke_token
from ich_node.cli import main
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.web.api.models import CLASSES
from ich_node.web.gate import COOKIE
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


# ----------------------------------------------------------------------------------------- who is let in


@pytest.mark.parametrize("path", ["/studies", "/status", "/openapi.json", "/nothing", "/studies/1.2/results", "/%0A/a"])
def test_without_a_token_nothing_is_answered(site: ApiSite, path: str) -> None:
    answer = site.client().get(path)
    problem_of(answer, 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("sent", ["Bearer ich_wrong", "Bearer", "Basic aWNoOm5vZGU=", "Bearer \xff"])
def test_what_is_no_token_of_the_node_is_refused(site: ApiSite, sent: str) -> None:
    problem_of(site.client().get("/status", headers={"Authorization": sent.encode("latin-1")}), 401)


def test_wrong_tokens_are_in_the_audit_trail(site: ApiSite) -> None:
    site.client().get("/status", headers={"Authorization": "Bearer ich_guessed"})
    assert {one.why for one in site.recorded("(none)")} == {"no token of this node"}


def test_a_cookie_does_not_open_the_api(site: ApiSite) -> None:
    database = site.site.box.database
    account = add_account(database, "somebody", Role.ADMINISTRATOR, "correct horse battery")
    cookies = {COOKIE: begin_session(database, account).token}
    page = site.client(cookies=cookies).get(site.url.removesuffix("/api/v1") + "/")
    assert page.status_code == 200
    problem_of(site.client(cookies=cookies).get("/studies"), 401)


def test_a_token_does_not_open_the_pages(site: ApiSite, program: Programs) -> None:
    answer = program(Role.ADMINISTRATOR).get(site.url.removesuffix("/api/v1") + "/")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")


def test_token_of_the_command_opens_the_api_until_it_is_revoked(
    site: ApiSite, capsys: pytest.CaptureFixture[str]
) -> None:
    config = site.log.parent / "ich-node.toml"
    assert main(["token", "add", "research", "--role", "viewer", "--config", str(config)]) == 0
    token = capsys.readouterr().out.strip()
    client = site.client(token)
    assert client.get("/status").status_code == 200
    assert main(["token", "revoke", "research", "--config", str(config)]) == 0
    problem_of(client.get("/status"), 401)


def test_other_programs_go_on_when_one_is_revoked(site: ApiSite, program: Programs) -> None:
    stays, name = program(Role.VIEWER), next_name("goes")
    site.token(name, Role.VIEWER)
    assert revoke_token(site.site.box.database, name)
    assert stays.get("/status").status_code == 200


@pytest.mark.parametrize(
    ("role", "method", "path"),
    [
        (Role.VIEWER, "GET", "/feedback"),
        (Role.VIEWER, "POST", "/feedback"),
        (Role.VIEWER, "GET", "/objects/some.dcm"),
        (Role.VIEWER, "PUT", f"/alerts/{'A' * 20}/acknowledgement"),
        (Role.VIEWER, "POST", "/requeue"),
        (Role.READER, "POST", "/requeue"),
    ],
)
def test_what_a_role_may_not_do_is_refused(program: Programs, study: str, role: Role, method: str, path: str) -> None:
    body = {"agrees": True, "classes": []} if method == "POST" and path == "/feedback" else None
    detail = problem_of(program(role).request(method, f"/studies/{study}{path}", json=body), 403)
    assert f"the token has {role}" in detail


def test_answers_tell_a_browser_to_run_and_keep_nothing(program: Programs) -> None:
    headers = program(Role.VIEWER).get("/status").headers
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


# --------------------------------------------------------------------------------------------- studies


def test_reader_sees_whose_study_it_is_and_a_viewer_does_not(program: Programs, study: str) -> None:
    for path in (f"/studies?search={study}", f"/studies/{study}"):
        seen, hidden = program(Role.READER).get(path), program(Role.VIEWER).get(path)
        for secret in (PATIENT, PATIENT_ID, "19600101", "CT HEAD"):
            assert secret in seen.text
            assert secret not in hidden.text
    (line,) = program(Role.VIEWER).get("/studies", params={"search": study}).json()["studies"]
    assert line["patient"] is None
    assert line["viewer_url"] is None


def test_line_of_a_study_says_what_the_worklist_says(program: Programs, study: str) -> None:
    (line,) = program(Role.READER).get("/studies", params={"search": study}).json()["studies"]
    assert line["study_instance_uid"] == study
    assert (line["state"], line["in_words"], line["test_model"]) == ("positive", "positive", False)
    assert line["probability"] == pytest.approx(0.97)
    assert line["subtypes"][0] == {"name": "intraparenchymal", "probability": pytest.approx(0.93)}
    assert (line["station_name"], line["calling_ae_title"]) == ("CT1", "SCANNER1")
    assert line["patient"]["birth_date"] == "19600101"
    assert line["received_at"].endswith("Z")


def test_a_study_without_a_result_is_not_analysed_and_never_negative(site: ApiSite, program: Programs) -> None:
    uid = site.add_unanalysed()
    reader = program(Role.READER)
    (line,) = reader.get("/studies", params={"search": uid}).json()["studies"]
    assert (line["state"], line["probability"]) == ("not-analysed", None)
    assert line["in_words"].startswith("not analysed: ")
    found = reader.get(f"/studies/{uid}/results").json()
    assert (found["state"], found["series"][0]["classes"]) == ("not-analysed", [])


def test_a_study_of_an_odd_uid_hides_no_other(site: ApiSite, program: Programs, study: str) -> None:
    odd = site.add_negative("1.2.3.A-B")
    listed = program(Role.VIEWER).get("/studies", params={"limit": 200}).json()["studies"]
    assert {odd, study} <= {one["study_instance_uid"] for one in listed}


def test_pages_of_studies_follow_each_other_without_gap_or_repeat(site: ApiSite, program: Programs) -> None:
    for _ in range(3):
        site.add_negative()
    viewer = program(Role.VIEWER)
    for order in ("newest", "urgent"):
        whole = viewer.get("/studies", params={"order": order, "limit": 200}).json()
        assert whole["next_after"] is None
        pages, after = [], ""
        while after is not None:
            page = viewer.get("/studies", params={"order": order, "limit": 2, "after": after}).json()
            pages += page["studies"]
            after = page["next_after"]
        assert [one["study_instance_uid"] for one in pages] == [one["study_instance_uid"] for one in whole["studies"]]
        assert len(pages) >= 4


def test_studies_are_filtered_as_in_the_worklist(site: ApiSite, program: Programs, study: str) -> None:
    negative = site.add_negative()
    viewer = program(Role.VIEWER)

    def shown(show: str) -> list[str]:
        listed = viewer.get("/studies", params={"show": show, "limit": 200}).json()["studies"]
        return [one["study_instance_uid"] for one in listed]

    assert negative in shown("negative")
    assert study not in shown("negative")
    assert study in shown("positive")
    assert viewer.get("/studies", params={"search": "CT9"}).json() == {"studies": [], "next_after": None}


@pytest.mark.parametrize(
    "params", [{"limit": "201"}, {"limit": "0"}, {"limit": "many"}, {"order": "oldest"}, {"show": "x"}, {"orde": "x"}]
)
def test_a_question_that_is_not_understood_is_refused_and_says_where(program: Programs, params: dict[str, str]) -> None:
    answer = program(Role.VIEWER).get("/studies", params=params)
    problem_of(answer, 422)
    assert answer.json()["errors"][0]["where"] == f"query.{next(iter(params))}"


@pytest.mark.parametrize("after", ["9.1", "elsewhere", "0.", "-1.5"])
def test_a_page_that_never_ended_there_is_not_found(program: Programs, after: str) -> None:
    problem_of(program(Role.VIEWER).get("/studies", params={"after": after}), 404)


@pytest.mark.parametrize("path", ["", "/results", "/feedback", "/objects/a.dcm"])
def test_a_study_that_the_node_does_not_know_is_not_found(program: Programs, path: str) -> None:
    reader = program(Role.READER)
    problem_of(reader.get(f"/studies/1.2.3.4{path}"), 404)
    problem_of(reader.get(f"/studies/no-uid{path}"), 422)


def test_one_study_comes_with_everything(program: Programs, study: str) -> None:
    reader = program(Role.READER)
    whole = reader.get(f"/studies/{study}").json()
    assert whole["study"]["study_instance_uid"] == study
    assert [one["is_basis"] for one in whole["series"]] == [True]
    assert [(one["channel"], one["state"]) for one in whole["alerts"]] == [("ris", "SENT")]
    assert "Series closed" in [one["what"] for one in whole["timeline"]]
    assert [one["what"] for one in whole["objects"]] == ["Report"]
    assert whole["legal_hold"] is None


def test_errors_of_peers_and_holds_are_for_operators(program: Programs, study: str) -> None:
    seen = {role: program(role).get(f"/studies/{study}").json() for role in (Role.READER, Role.OPERATOR)}
    assert seen[Role.READER]["alerts"][0]["error"] is None
    assert seen[Role.OPERATOR]["alerts"][0]["error"] == ""
    assert seen[Role.OPERATOR]["legal_hold"] == ""


# ---------------------------------------------------------------------------------------------- results


def test_results_have_classes_thresholds_model_and_slices(program: Programs, study: str) -> None:
    found = program(Role.VIEWER).get(f"/studies/{study}/results").json()
    (said,) = found["series"]
    assert [one["name"] for one in said["classes"]] == list(HEMORRHAGE_CLASSES)
    by_name = {one["name"]: one for one in said["classes"]}
    assert (by_name["any"]["presence"], by_name["any"]["probability"]) == ("present", pytest.approx(0.97))
    assert 0 < by_name["any"]["low"] < by_name["any"]["high"] < 1
    assert said["model"] == {"name": "ich-irv2", "version": "1.0.0", "sha256": "ab" * 32, "trained": True}
    assert len(said["slices"]) == 12
    positions = [one["position_mm"] for one in said["slices"]]
    assert positions == sorted(positions)
    assert [one["name"] for one in said["slices"][0]["probabilities"]] == list(HEMORRHAGE_CLASSES)
    assert any(one["is_key"] for one in said["slices"])
    assert not all(one["is_key"] for one in said["slices"])
    assert found["objects"] is None


def test_classes_of_the_api_are_those_of_the_model() -> None:
    assert tuple(HEMORRHAGE_CLASSES) == CLASSES


def test_objects_of_a_study_can_be_taken(site: ApiSite) -> None:
    uid, other, name = site.add_study(told=False), site.add_study(told=False), next_name("pacs")
    client = site.client(site.token(name, Role.READER))
    (one,) = client.get(f"/studies/{uid}/results").json()["objects"]
    assert one["deliveries"] == ["pacs: pending"]
    taken = client.get(f"/studies/{uid}/objects/{one['name']}")
    assert taken.headers["Content-Type"] == "application/dicom"
    assert dcmread(BytesIO(taken.content)).StudyInstanceUID == uid
    problem_of(client.get(f"/studies/{other}/objects/{one['name']}"), 404)
    (site.state / "results" / one["name"]).unlink()
    problem_of(client.get(f"/studies/{uid}/objects/{one['name']}"), 404)
    shown = [each.details["Shown"] for each in site.recorded(f"token {name}")]
    assert shown == [f"API: object {one['name']}"]


# ---------------------------------------------------------------------------------------- the rest


def test_status_says_how_the_node_is(site: ApiSite, program: Programs, study: str) -> None:
    said = program(Role.VIEWER).get("/status").json()
    assert (said["ae_title"], said["mode"]) == (site.site.box.config.node.ae_title, "live")
    assert said["series"]["CONCLUDED"] >= 1
    assert said["alerts"]["SENT"] >= 1


def test_an_address_that_is_none_is_a_problem(program: Programs) -> None:
    viewer = program(Role.VIEWER)
    for path in ("/nothing", "/", "/studies/", "/%0A/a", "/docs", "/redoc"):
        problem_of(viewer.get(path), 404)
    wrong = viewer.delete("/studies/1.2.3/feedback")
    problem_of(wrong, 405)
    assert wrong.headers["Allow"] == "GET, POST"


def test_openapi_document_describes_the_api(site: ApiSite, program: Programs) -> None:
    document = program(Role.VIEWER).get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert document["servers"] == [{"url": "/api/v1"}]
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert len(operations) == 9
    assert all(one["security"] == [{"token": []}] for one in operations)
    assert all({"401", "403", "422", "429", "503"} <= set(one["responses"]) for one in operations)
