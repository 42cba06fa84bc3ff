"""The page of drift, what is done there, and the command that says the same."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ich_node.accounts import Role, add_account
from ich_node.audit.reading import as_words, read_messages
from ich_node.audit.stored import FOLDER
from ich_node.cli import main
from ich_node.database import Database, DriftReferenceRow, SeriesMeasureRow
from ich_node.drift import look_to_json
from ich_node.drift_watch import findings_of, look_now
from ich_node.job_queue.drift import save_look
from ich_node.records import DriftRules
from tests.browsing import form_token
from tests.drift_simulation import Station
from tests.measured import GROUPS, Group, measure
from tests.page_browser import PASSWORD, log_in
from tests.running import NodeProcesses, free_port, settings, wait_for
from tests.unit.queueing import open_queue, rows

MARKUP = "<script>alert(1)</script>"
FEW = Group(MARKUP, "", a_day=0.2)
HOSTILE = Group("<b>CT&2", "J40s\\'\"", after=replace(Station(), noise=6.5), a_day=9)


@dataclass
class Pages:
    """The pages of a node, and its database."""

    url: str
    database: Database
    node: NodeProcesses

    @contextmanager
    def client(self, name: str) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            log_in(client, name)
            yield client

    def metrics(self) -> str:
        return httpx.get(f"{self.url}/metrics", timeout=30).text

    def look(self) -> None:
        look = look_now(self.database, DriftRules())
        assert save_look(self.database, look.looked_at, look.tests, findings_of(look), look_to_json(look))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "state").mkdir(mode=0o700)
    database = open_queue(folder / "state")
    for role in (Role.OPERATOR, Role.READER):
        add_account(database, role, role, PASSWORD)
    port = free_port()
    values = settings(folder / "state", Path("unused"), web={"enabled": True, "port": port})
    with NodeProcesses(folder, values, roles=("web",)) as node:
        yield Pages(f"http://127.0.0.1:{port}", database, node)
    database.close()


def words_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_page_goes_from_nothing_to_findings_in_words(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    with pages.client("operator") as client:
        before = words_of(client.get("/drift").text)
        assert "Nobody has looked yet" in before
        assert "no drift" not in before.lower()
        assert "ich_node_drift_last_look" not in client.get("/metrics").text
        measure(pages.database, [GROUPS[0], HOSTILE, FEW], time.time(), days=70)
        pages.look()

        page = client.get("/drift")

    text = words_of(page.text)
    assert re.search(r"CT_ER, kernel H31s : brain \d\.\d HU higher than in the reference", text)
    assert re.search(r"<b>CT&2, kernel J40s\\'\" : noise \d\.\d\d HU \(\+\d+ %\) higher", text)
    assert re.search(r"not enough series yet: \d+ of 50 for a reference", text)
    assert "Reference 200 series" in text
    assert MARKUP in text
    assert MARKUP not in page.text, "a station's name is no markup"
    assert "<b>" not in page.text
    assert page.text.count('role="img"') == 14, "two groups, seven charts each"
    assert not re.search(r"<[^>]+\s(style|on\w+)=", page.text), "nothing that the policy forbids"

    config = ["--config", str(pages.node.config_path)]
    assert main(["drift", *config]) == 0
    said = capsys.readouterr().out
    assert "CT_ER, kernel H31s: DRIFT: brain" in said
    assert main(["drift", "--json", *config]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["station_name"] for one in told["groups"]] == ["CT_ER", HOSTILE.station_name, MARKUP]


def test_a_look_by_the_command_is_made_now_and_not_kept(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", "--look", "--json", "--config", str(pages.node.config_path)]) == 0
    told = json.loads(capsys.readouterr().out)

    assert main(["drift", "--json", "--config", str(pages.node.config_path)]) == 0
    kept = json.loads(capsys.readouterr().out)

    assert told["looked_at"] > kept["looked_at"]
    assert told["tests"] == kept["tests"]


def test_the_metrics_say_how_much_is_found_and_name_no_station(pages: Pages) -> None:
    wait_for(lambda: "ich_node_drift_found 2.0" in pages.metrics(), "what was read before the look is kept for 2 s")
    text = pages.metrics()
    families = {one.name: one for one in text_string_to_metric_families(text)}

    assert families["ich_node_drift_last_look_timestamp_seconds"].samples[0].value == pytest.approx(
        time.time(), abs=600
    )
    assert "CT_ER" not in text


def test_who_does_not_operate_the_node_sees_nothing_of_it(pages: Pages) -> None:
    with pages.client("reader") as client:
        assert client.get("/drift").status_code == 403
        refused = client.post("/drift/reference", data={"form_token": form_token(client), "reason": "x"})
        assert refused.status_code == 403
        assert 'href="/drift"' not in client.get("/").text
    with httpx.Client(base_url=pages.url) as nobody:
        assert nobody.get("/drift").headers["Location"] == "/login"


def test_a_new_reference_needs_a_form_of_ours_and_a_reason_and_is_on_record(pages: Pages) -> None:
    with pages.client("operator") as client:
        keys = re.findall(r'name="group" value="(\w{32})"', client.get("/drift").text)
        form = {"group": keys[1], "days": "14", "reason": "new <tube>", "form_token": form_token(client)}
        assert len(set(keys)) == 3
        assert client.post("/drift/reference", data=form | {"form_token": "0" * 64}).status_code == 403
        assert client.post("/drift/reference", data=form | {"reason": " "}).status_code == 422
        assert client.post("/drift/reference", data=form | {"days": "3650"}).status_code == 404
        assert client.post("/drift/reference", data=form | {"group": "0" * 32}).status_code == 404
        assert rows(pages.database, DriftReferenceRow) == []

        taken = client.post("/drift/reference", data=form)

        assert (taken.status_code, taken.headers["Location"]) == (303, "/drift?done=reference&count=1")
        page = client.get("/drift")
    (row,) = rows(pages.database, DriftReferenceRow)
    assert (row.station_name, row.convolution_kernel) == (HOSTILE.station_name, HOSTILE.convolution_kernel)
    assert (row.set_by, row.reason) == ("operator", "new <tube>")
    text = words_of(page.text)
    assert "new reference; the next look compares with it" in text
    assert "Reference set by operator" in text
    assert "<tube>" not in page.text
    wait_for(lambda: "ich_node_drift_found 1.0" in pages.metrics(), "one is settled")
    records = map(str, map(as_words, read_messages(pages.node.config.state_directory / FOLDER, None)))
    (record,) = [one for one in records if "drift-reference" in one]
    assert "operator" in record
    assert "new <tube>" in record
    assert rows(pages.database, SeriesMeasureRow), "what was measured stays"
