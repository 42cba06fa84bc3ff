"""An alert is acknowledged by its link: by the button of the real page, and by nothing else."""

from __future__ import annotations

import json
import re
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from email import message_from_string, policy
from pathlib import Path
from typing import Any

import hl7
import httpx
import pytest
import trustme
from sqlalchemy import update

from ich_node.alert_links import AlertLinks, open_links, read_or_make_key
from ich_node.cli import main
from ich_node.config import parse_config
from ich_node.database import AlertRow
from ich_node.errors import ConfigError, StartError
from ich_node.job_queue.alert_answers import acknowledge
from ich_node.queries import AlertStatus
from ich_node.records import Triage
from ich_node.supervisor import ROLES, roles_of
from ich_node.web.server import run_web
from tests.alert_peers import listener
from tests.alerting import FINDING, AlertingSite, alerting_site, ris, site_with_every_channel, webhook
from tests.running import NodeProcesses, as_toml, free_port, settings

PUBLIC_URL = "https://ich.hospital.example/node"


def web(**more: Any) -> dict[str, Any]:
    return {"enabled": True, "port": free_port(), "public_url": PUBLIC_URL} | more


def sections_of(site: AlertingSite) -> dict[str, Any]:
    config = site.box.config.model_dump(mode="json", exclude_none=True)
    return {name: section for name, section in config.items() if section}


@dataclass
class Told:
    """A site that has told its RIS of a positive study, and a browser that is where its links lead."""

    site: AlertingSite
    browser: httpx.Client
    log: Path
    uid: str = ""

    @property
    def links(self) -> AlertLinks:
        links = open_links(self.site.box.config)
        assert links is not None
        return links

    @property
    def alerts(self) -> list[AlertStatus]:
        return self.site.alerts(self.uid)

    @property
    def path(self) -> str:
        """Path and token of the link of the study's first alert."""
        return self.links.url(self.alerts[0].identifier).removeprefix(PUBLIC_URL)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """One ``ich-node web`` for all tests of the page."""
    folder = tmp_path_factory.mktemp("pages")
    with (
        listener("mllp", folder, "AA") as worklist,
        alerting_site(
            folder / "state", web=web(), alert_hl7=[ris(worklist.port)], database={"busy_timeout_s": 0.5}
        ) as site,
        NodeProcesses(folder, sections_of(site), ["web"]) as node,
        httpx.Client(base_url=f"http://127.0.0.1:{site.box.config.web.port}", timeout=20) as browser,
    ):
        yield Told(site, browser, node.log("web"))


@pytest.fixture
def told(served: Told) -> Told:
    """Another study, of which the RIS was told."""
    uid = served.site.box.add_study(finding=FINDING)
    served.site.tell()
    return replace(served, uid=uid)


# -------------------------------------------------------------------------------------- where the link goes


def test_every_channel_carries_the_link_of_its_own_alert(tmp_path: Path) -> None:
    with site_with_every_channel(tmp_path, web=web()) as (site, worklist, service, mailbox):
        site.box.add_study(finding=FINDING)
        site.tell()
        links = open_links(site.box.config)
        assert links is not None
        wanted = {one.channel: links.url(one.identifier) for one in site.alerts()}
        assert all(re.fullmatch(re.escape(PUBLIC_URL) + r"/alerts/[A-Z2-7]{20}\?token=[\w-]{43}", one)
                   for one in wanted.values())  # fmt: skip

        message = hl7.parse(worklist.heard[0]["text"])
        observed = {str(one(3)[0][0]): one for one in message.segments("OBX")}
        assert str(observed["ICH.ACKNOWLEDGE"](5)) == wanted["ris"]
        assert [str(one(1)) for one in message.segments("OBX")] == [str(n + 1) for n in range(len(observed))]
        assert json.loads(service.heard[0]["body"])["acknowledge_url"] == wanted["service"]
        text = message_from_string(mailbox.heard[0]["text"], policy=policy.default).get_content()
        assert wanted["mail"] in text.split()


def test_without_pages_nobody_gets_a_link(tmp_path: Path) -> None:
    with (
        listener("web", tmp_path, "200") as service,
        alerting_site(
            tmp_path / "state",
            web={"public_url": PUBLIC_URL},
            alert_webhook=[webhook(tmp_path, service.port)],
            alert_rule=[{"tell": ["service"]}],
        ) as site,
    ):
        site.box.add_study(finding=FINDING)
        site.tell()
        assert json.loads(service.heard[0]["body"])["acknowledge_url"] is None
        assert not (tmp_path / "state" / "web.key").exists()


def test_without_a_public_address_there_is_no_link() -> None:
    assert AlertLinks("", b"k" * 32).url("A" * 20) == ""


# --------------------------------------------------------------------------------------------- the page


def test_the_page_says_what_the_alert_says_and_names_no_patient(told: Told) -> None:
    page = told.browser.get(told.path)
    assert page.status_code == 200
    said = ("Suspected intracranial hemorrhage", "subdural hemorrhage", "91.0 %", "ICH_NODE", "not a medical device")
    assert not [text for text in (*said, told.alerts[0].identifier, "<button") if text not in page.text]
    assert told.uid not in page.text
    assert not re.search(r"(src|href|url)\s*[=(]", page.text), "nothing is fetched from elsewhere"
    assert "<script" not in page.text


def test_every_answer_keeps_the_token_to_itself(told: Told) -> None:
    path = told.path
    for answer in (
        told.browser.get(path),
        told.browser.post(path),
        told.browser.get("/alerts/X"),
        told.browser.put(path),
    ):
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        policy_ = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy_
        assert "unsafe" not in policy_
        assert "frame-ancestors 'none'" in policy_
    log = told.log.read_text()
    assert path.partition("token=")[2] not in log


def test_a_scanner_that_follows_links_acknowledges_nothing(told: Told) -> None:
    path = told.path
    assert [told.browser.request(method, path).status_code for method in ("GET", "HEAD", "GET")] == [200] * 3
    assert told.browser.put(path, data={"name": "Scanner"}).status_code == 405
    assert told.alerts[0].state == "SENT"


def test_the_button_acknowledges_once_and_says_to_others_who_was_first(told: Told) -> None:
    path = told.path
    name = "  Dr. Ada <b>\n\u202eLovelace  "
    first = told.browser.post(path, data={"name": name})
    assert "Acknowledged. Thank you." in first.text
    assert "Dr. Ada &lt;b&gt; Lovelace" in first.text
    assert "<button" not in first.text
    (alert,) = told.alerts
    assert (alert.state, alert.acknowledged_by) == ("ACKNOWLEDGED", "Dr. Ada <b> Lovelace")

    second = told.browser.post(path, data={"name": "Dr. Bob"})
    assert second.status_code == 200
    assert "Already acknowledged" in second.text
    assert "Dr. Ada" in second.text
    assert "Dr. Bob" not in second.text
    assert told.alerts == [alert]
    assert "Already acknowledged" in told.browser.get(path).text
    events = [json.loads(line) for line in told.log.read_text().splitlines()]
    noted = [one for one in events if one.get("alert") == alert.identifier]
    assert [(one["event"], one["how"], one["by"]) for one in noted] == [
        ("alert acknowledged", "link", alert.acknowledged_by)
    ]


def test_of_many_at_once_one_is_first(told: Told) -> None:
    path = told.path
    with ThreadPoolExecutor(8) as people:
        answers = list(people.map(lambda number: told.browser.post(path, data={"name": f"P{number}"}).text, range(8)))
    assert sum("Thank you" in one for one in answers) == 1
    assert sum("Already acknowledged" in one for one in answers) == 7
    (alert,) = told.alerts
    assert all(f"<strong>{alert.acknowledged_by}</strong>" in one for one in answers)


@pytest.mark.parametrize(
    ("body", "by"),
    [(b"", "somebody with the link"), (b"name=%FF%00%0a" + b"x" * 100, "\ufffd " + "x" * 62)],
    ids=["no name", "long name, odd bytes"],
)
def test_an_acknowledgement_does_not_fail_for_its_name(told: Told, body: bytes, by: str) -> None:
    assert told.browser.post(told.path, content=body).status_code == 200
    assert told.alerts[0].acknowledged_by == by


def test_what_is_no_form_of_ours_acknowledges_nothing(told: Told) -> None:
    path = told.path
    assert told.browser.post(path, content=b"name=" + b"x" * 5000).status_code == 413
    assert told.browser.post(path, content=b"&".join([b"name=x"] * 11)).status_code == 400
    assert told.alerts[0].state == "SENT"


def test_wrong_tokens_and_unknown_alerts_are_answered_alike(told: Told) -> None:
    links = told.links
    identifier, unknown = told.alerts[0].identifier, "A" * 20
    token = links.token(identifier)
    paths = [
        f"/alerts/{identifier}", f"/alerts/{identifier}?token=", f"/alerts/{identifier}?token={token[:-1]}",
        f"/alerts/{identifier}?token={token[::-1]}", f"/alerts/{identifier}?token=%FF%C3",
        f"/alerts/{identifier.lower()}?token={token}", f"/alerts/{unknown}?token={token}",
        f"/alerts/{unknown}?token={links.token(unknown)}", f"/alerts/{identifier}%00?token={token}",
        f"/alerts/{identifier}?token=x&token={token[:-2]}", "/alerts/", "/docs", "/openapi.json",
    ]  # fmt: skip
    answers = [told.browser.request(method, path) for path in paths for method in ("GET", "POST")]
    assert {one.status_code for one in answers} == {404}
    assert len({one.text for one in answers}) == 1
    assert told.alerts[0].state == "SENT"


def test_a_locked_database_is_no_acknowledgement(told: Told) -> None:
    path = told.path
    blocker = sqlite3.connect(told.site.box.config.state_directory / "ich-node.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    answer = told.browser.post(path, data={"name": "Dr. Ada"})
    blocker.execute("ROLLBACK")
    blocker.close()
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert "try again" in answer.text
    assert "Nothing was acknowledged" in answer.text
    assert "content-security-policy" in answer.headers
    assert told.alerts[0].state == "SENT"
    assert "Thank you" in told.browser.post(path, data={"name": "Dr. Ada"}).text


# ----------------------------------------------------------------------------------------- what it covers


def test_the_link_of_an_alert_that_was_corrected_does_not_acknowledge_the_correction(told: Told) -> None:
    told.site.box.add_study(told.uid, revision=2, triage=Triage.NEGATIVE)
    told.site.tell()
    page = told.browser.post(told.path).text
    assert "The study says something else now" in page
    assert "Thank you" in page
    assert [one.state for one in told.alerts] == ["ACKNOWLEDGED", "SENT"]
    assert acknowledge(told.site.box.database, told.uid, "Dr. Ada") == 1, "of a study, everything"


def test_whoever_has_the_link_has_the_alert_although_no_answer_to_it_came(told: Told) -> None:
    with told.site.box.database.writing() as connection:
        mine = update(AlertRow).where(AlertRow.identifier == told.alerts[0].identifier)
        connection.execute(mine.values(state="DEAD", sent_at=None))
    assert "Thank you" in told.browser.post(told.path).text
    assert told.alerts[0].state == "ACKNOWLEDGED"


# -------------------------------------------------------------------------------------------- the key, TLS


def test_processes_that_need_the_key_at_once_get_the_same_one(tmp_path: Path) -> None:
    path = tmp_path / "state" / "web.key"
    gate = threading.Barrier(16)

    def key() -> bytes:
        gate.wait()
        return read_or_make_key(path)

    with ThreadPoolExecutor(16) as processes:
        keys = {future.result() for future in [processes.submit(key) for _ in range(16)]}
    assert len(keys) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["web.key"]
    assert path.read_bytes().hex() not in repr(AlertLinks("", path.read_bytes()))


def test_a_damaged_key_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "web.key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(StartError, match="is damaged"):
        read_or_make_key(path)


def test_the_pages_speak_tls_themselves(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = {"certificate": tmp_path / "node.pem", "key": tmp_path / "node.key"}
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(files["key"])
    files["key"].chmod(0o600)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(files["certificate"], append=True)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    section = web(public_url="", **{name: str(path) for name, path in files.items()})
    values = settings(tmp_path / "state", Path("no-model"), web=section)
    with NodeProcesses(tmp_path, values, ["web"]), httpx.Client(verify=context) as browser:
        answer = browser.get(f"https://127.0.0.1:{section['port']}/")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"enabled": False}, "web.enabled"),
        ({"certificate": "/nowhere.pem", "key": "/nowhere.key"}, "web.certificate, web.key"),
    ],
    ids=["switched off", "no certificate"],
)
def test_what_is_wrong_with_the_pages_is_a_fault_of_the_configuration(
    tmp_path: Path, section: dict[str, Any], says: str
) -> None:
    state = {"node": {"state_directory": str(tmp_path / "state")}, "receiver": {"allow_any": True}}
    with pytest.raises(ConfigError, match=says):
        run_web(parse_config(state | {"web": web(**section)}))


def test_check_config_looks_at_the_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "node.toml"
    file.write_text(as_toml({"receiver": {"allow_any": True}, "web": web(certificate="/no.pem", key="/no.key")}))
    assert main(["check-config", "--config", str(file)]) == 78
    assert "/no.pem, /no.key cannot be used" in capsys.readouterr().err


def test_a_whole_node_has_pages_only_where_they_are_switched_on() -> None:
    sections = {"receiver": {"allow_any": True}}
    assert roles_of(parse_config(sections)) == ROLES
    assert roles_of(parse_config(sections | {"web": web()})) == (*ROLES, "web")
