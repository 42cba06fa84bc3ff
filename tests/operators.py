"""People at the pages of a node: each logged in, with forms as their browser would send them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert, select, update

from ich_node.accounts import Role, add_account
from ich_node.database import Base, Database, InstanceRow, SeriesRow, StudyRow
from tests import browsing
from tests.alerting import AlertingSite, alerting_site
from tests.auditing import Recorded, recorded_in
from tests.browsing import PASSWORD, form_token
from tests.running import NodeProcesses, free_port


@dataclass
class Person:
    """Somebody at a browser."""

    name: str
    browser: httpx.Client
    form_token: str

    def see(self, path: str) -> str:
        """Open a page; give what a person reads of it."""
        page = self.browser.get(path)
        assert page.status_code == 200, (path, page.status_code)
        return words_of(page)

    def post(self, path: str, **fields: Any) -> httpx.Response:
        """Send a form of a page."""
        return self.browser.post(path, data={"form_token": self.form_token, **fields})

    def do(self, path: str, **fields: Any) -> str:
        """Send a form that is carried out; give what the page after it says."""
        answer = self.post(path, **fields)
        assert answer.status_code == 303, (path, answer.status_code, words_of(answer))
        return self.see(answer.headers["location"])


@dataclass
class ServedSite:
    """A node with studies, its pages served by a process of its own."""

    site: AlertingSite
    people: dict[str, Person]
    log: Path

    @property
    def database(self) -> Database:
        return self.site.box.database

    @property
    def state(self) -> Path:
        return self.site.box.config.state_directory

    def add_study(self, **of_study: Any) -> str:
        """Conclude a study whose image lies on the disk."""
        self.site.box.rest()
        uid = self.site.box.add_study(**of_study)
        image = self.image_of(uid)
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(b"an image")
        return uid

    def image_of(self, uid: str) -> Path:
        """Where the one image of a study lies."""
        (row,) = self.rows(InstanceRow, series_id=self.series_of(uid).id)
        return self.state / row.path

    def series_of(self, uid: str) -> Any:
        """The one series of a study."""
        (row,) = self.rows(SeriesRow, series_instance_uid=f"{uid}.1"[:64])
        return row

    def study_of(self, uid: str) -> Any:
        (row,) = self.rows(StudyRow, study_instance_uid=uid)
        return row

    def multiply_series(self, uid: str, count: int) -> None:
        """Give a study so many series more like its one, without images."""
        one = self.series_of(uid)._asdict()
        del one["id"]
        more = [one | {"series_instance_uid": f"{uid}.{2 + number}"[-64:]} for number in range(count)]
        with self.database.writing() as connection:
            connection.execute(insert(SeriesRow), more)

    def change(self, table: type[Base], where: dict[str, Any], **values: Any) -> None:
        """Set columns of some rows, as time or a fault would."""
        conditions = [getattr(table, key) == value for key, value in where.items()]
        with self.database.writing() as connection:
            assert connection.execute(update(table).where(*conditions).values(values)).rowcount

    def rows(self, table: type[Base], **where: Any) -> list[Any]:
        conditions = [getattr(table, key) == value for key, value in where.items()]
        with self.database.reading() as connection:
            return list(connection.execute(select(table).where(*conditions).order_by(*table.__table__.primary_key)))

    def recorded(self, command: str) -> list[Recorded]:
        """What the audit trail has of a command that was given by a page."""
        found = recorded_in(self.state, "Security Alert")
        return [one for one in found if f"ich-node:{command}" in one.things and "Address" in one.details]


def words_of(page: httpx.Response) -> str:
    """What a person reads of a page, on one line."""
    text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page.text, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


@contextmanager
def served_site(folder: Path, **sections: Any) -> Iterator[ServedSite]:
    """Serve a site's pages; somebody of each role is logged in, by the name of the role."""
    web = {"enabled": True, "port": free_port()}
    with alerting_site(folder / "state", web=web, database={"busy_timeout_s": 5.0}, **sections) as site:
        for role in Role:
            add_account(site.box.database, f"{role}-1", role, PASSWORD)
        config = site.box.config.model_dump(mode="json", exclude_none=True)
        values = {name: section for name, section in config.items() if section}
        with NodeProcesses(folder, values, ["web"]) as node:
            people = {str(role): _log_in(f"{role}-1", web["port"]) for role in Role}
            yield ServedSite(site, people, node.log("web"))
            for one in people.values():
                one.browser.close()


def log_in(name: str, port: int, password: str = PASSWORD) -> httpx.Response:
    """Try to log in."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as browser:
        return browsing.log_in(browser, name, password)


def _log_in(name: str, port: int) -> Person:
    browser = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    assert browsing.log_in(browser, name).status_code == 303
    return Person(name, browser, form_token(browser))
