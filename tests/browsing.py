"""Real pages for tests: ``ich-node web`` beside a study that was received and analysed, and browsers that log in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydicom import dcmread

from ich_node.accounts import Role, add_account
from ich_node.config import Config
from ich_node.database import Database
from ich_node.decode import DecoderPool
from ich_node.phantom import PhantomSettings, write_series
from ich_node.pipeline import Model
from tests.alert_peers import listener
from tests.alerting import AlertingSite, alerting_site, ris
from tests.auditing import Recorded, recorded_in
from tests.running import NodeProcesses, free_port, parts_of_a_node, settings, sockets_may_leak, storescu

PASSWORD = "correct horse battery"
NAME, DESCRIPTION, STATION = "<script>alert(1)</script>^<b>Eve", "<img src=x onerror=alert(2)>", "<i>CT&1"
PATIENT_ID = 'P"1<u>'


@dataclass
class Pages:
    """A site with its pages served, and one study that was really received."""

    site: AlertingSite
    node: NodeProcesses
    uid: str
    sent: list[Path]
    _browsers: list[httpx.Client] = field(default_factory=list)

    @property
    def config(self) -> Config:
        return self.site.box.config

    @property
    def database(self) -> Database:
        return self.site.box.database

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.config.web.port}"

    def stranger(self, **more: Any) -> httpx.Client:
        """A browser where nobody is logged in."""
        browser = httpx.Client(base_url=self.url, timeout=30, **more)
        self._browsers.append(browser)
        return browser

    def browser(self, name: str, **more: Any) -> httpx.Client:
        """A browser where somebody is logged in."""
        browser = self.stranger(**more)
        answer = log_in(browser, name)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        return browser

    def recorded(self, *events: str) -> list[Recorded]:
        """What the audit trail says."""
        return recorded_in(self.config.state_directory, *events)

    def close(self) -> None:
        for one in self._browsers:
            one.close()


def log_in(browser: httpx.Client, name: str, password: str = PASSWORD) -> httpx.Response:
    return browser.post("/login", data={"name": name, "password": password})


def form_token(browser: httpx.Client) -> str:
    """Give what the forms of a session carry, as its own page says."""
    found = re.search(r'data-form-token="(\w{64})"', browser.get("/").text)
    assert found is not None
    return found[1]


def sections_of(site: AlertingSite) -> dict[str, Any]:
    config = site.box.config.model_dump(mode="json", exclude_none=True)
    return {name: section for name, section in config.items() if section}


@contextmanager
def serving_pages(folder: Path, model: Model, decoder: DecoderPool, **web: Any) -> Iterator[Pages]:
    """Serve pages: accounts of each role, a head whose header holds markup, analysed, and a RIS that takes alerts."""
    pacs = settings(folder, Path("no-model"), destinations=[("pacs", free_port())])["destination"]
    section = {"enabled": True, "port": free_port()} | web
    with (
        listener("mllp", folder, "AA") as worklist,
        alerting_site(folder / "state", web=section, alert_hl7=[ris(worklist.port)], destination=pacs) as site,
    ):
        files = _draw(folder / "head")
        with sockets_may_leak(), parts_of_a_node(sections_of(site), model, decoder) as node:
            assert storescu([folder / "head"], node.config.node.port).returncode == 0
            (study,) = node.settle().studies
        for role in Role:
            add_account(site.box.database, role, role, PASSWORD)
        with NodeProcesses(folder, sections_of(site), ["web"]) as served:
            pages = Pages(site, served, study.study_instance_uid, files)
            yield pages
            pages.close()


def _draw(folder: Path) -> list[Path]:
    drawn = PhantomSettings(lesion="subdural", slices=12, rows=64, slice_spacing_mm=11, patient_id=PATIENT_ID)
    files = write_series(folder, drawn)
    for path in files:
        image = dcmread(path)
        image.PatientName, image.StudyDescription, image.StationName = NAME, DESCRIPTION, STATION
        image.save_as(path)
    return files
