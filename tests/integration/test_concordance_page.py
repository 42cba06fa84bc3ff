"""The page that says how far readers and node agree, and the table that it and a command give."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from ich_node.accounts import Role, add_account
from ich_node.audit.reading import as_words, read_messages
from ich_node.audit.stored import FOLDER
from ich_node.cli import main
from ich_node.database import Database, SeriesRow
from ich_node.job_queue.feedback import give_feedback
from ich_node.records import HEMORRHAGE_CLASSES, Presence, Triage
from tests.page_browser import PASSWORD, log_in
from tests.running import NodeProcesses, free_port, settings
from tests.unit.concluding import conclude
from tests.unit.queueing import open_queue


@dataclass
class Pages:
    """The pages of a node, its database, and its files."""

    url: str
    database: Database
    node: NodeProcesses

    @contextmanager
    def client(self, name: str) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.url) as client:
            log_in(client, name)
            yield client

    def said(self) -> list[dict[str, object]]:
        """The exports in the audit trail."""
        state = self.node.config.state_directory
        return [one for one in map(as_words, read_messages(state / FOLDER, None)) if "Export" in str(one)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("pages")
    port = free_port()
    (folder / "state").mkdir(mode=0o700)
    database = open_queue(folder / "state")
    for name, role in (("eva", Role.READER), ("jan", Role.READER), ("vic", Role.VIEWER)):
        add_account(database, name, role, PASSWORD)
    values = settings(folder / "state", Path("unused"), web={"enabled": True, "port": port})
    with NodeProcesses(folder, values, roles=("web",)) as node:
        yield Pages(f"http://127.0.0.1:{port}", database, node)
    database.close()


def test_the_page_goes_from_nothing_to_figures_that_say_what_they_are(pages: Pages) -> None:
    with pages.client("eva") as client:
        assert "Nobody has said yet" in client.get("/concordance").text
        say_what_there_is(pages.database)

        page = client.get("/concordance?by=week")

        assert page.status_code == 200
        text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.text)).split())
        assert "no measurement of accuracy" in text
        assert "Studies spoken of 4" in text
        assert "Not counted: readers differ 1" in text
        assert "Sensitivity 50 % 9–91 %, 1 of 2" in text
        assert "PPV 100 % 21–100 %, 1 of 1" in text
        assert "<script>" not in page.text.lower()
        assert "CT &lt;script&gt;" in page.text, "a station's name is no markup"
        assert '<a href="/studies/1.2.2"' in page.text, "disagreed with"
        assert '<a href="/studies/1.2.1"' not in page.text
        assert page.text.count('<svg viewBox="0 0 360') == 3
        assert client.get("/concordance?by=year").status_code == 404


def say_what_there_is(database: Database) -> None:
    for study, triage in ((1, Triage.POSITIVE), (2, Triage.NEGATIVE), (3, Triage.NEGATIVE), (4, Triage.POSITIVE)):
        assert conclude(database, triage, study=study, number=study)
    presence = {one: Presence.PRESENT if one in ("any", "subdural") else Presence.ABSENT for one in HEMORRHAGE_CLASSES}
    with database.writing() as connection:
        connection.execute(update(SeriesRow).values(finding={"presence": presence}, station_name="CT <script>"))
    for study, reader in ((1, "eva"), (3, "eva"), (4, "eva")):
        give_feedback(database, f"1.2.{study}", reader, agrees=True)
    give_feedback(database, "1.2.2", "eva", agrees=False, classes=["epidural"], note="Mrs Doe")
    give_feedback(database, "1.2.4", "jan", agrees=False)


def test_page_and_command_give_the_same_labels_and_both_are_on_record(pages: Pages, tmp_path: Path) -> None:
    with pages.client("jan") as client:
        taken = client.get("/concordance/feedback.csv")
    assert taken.headers["Content-Disposition"] == 'attachment; filename="feedback.csv"'

    file = tmp_path / "labels.csv"
    export = ["feedback", "export", str(file), "--config", str(pages.node.config_path)]
    assert main(export) == 0
    assert main(export) == 2, "no file is written over"

    assert file.read_text() == taken.text
    assert file.stat().st_mode & 0o777 == 0o600
    records = list(csv.DictReader(io.StringIO(taken.text)))
    assert {one["study_instance_uid"] for one in records} == {"1.2.1", "1.2.2", "1.2.3"}
    assert not {"eva", "Mrs Doe"} & set(re.split(r"[,\n]", taken.text))
    by_page, by_command = pages.said()
    assert "jan" in str(by_page)
    assert file.as_uri() in str(by_command)
    for one in (by_page, by_command):
        assert all(f"1.2.{study}" in str(one) for study in (1, 2, 3))


def test_who_sees_no_patients_sees_no_readers_words(pages: Pages) -> None:
    with pages.client("vic") as client:
        assert client.get("/concordance").status_code == 403
        assert client.get("/concordance/feedback.csv").status_code == 403
    with httpx.Client(base_url=pages.url) as nobody:
        assert nobody.get("/concordance").headers["Location"] == "/login"
