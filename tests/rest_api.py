"""A site whose programs ask: studies with findings, reports and alerts, and a real ``ich-node web`` that answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from pydicom.uid import generate_uid
from sqlalchemy import update

from ich_node.accounts import Role, add_token
from ich_node.database import SeriesRow
from ich_node.job_queue.findings import finding_to_json
from ich_node.records import Triage
from tests.alert_peers import listener
from tests.alerting import AlertingSite, alerting_site, ris
from tests.auditing import Recorded, recorded_in
from tests.ct_series import MODEL, as_file, ct_slice, headers, positive
from tests.running import NodeProcesses, free_port

PROBLEM = "application/problem+json"
PATIENT = "Doe, Jane"
PATIENT_ID = "PID0001"
STEPS = {"first slice received": 1_790_000_000.0, "series closed": 1_790_000_002.5}


@dataclass
class ApiSite:
    """A site, and the address of its API."""

    site: AlertingSite
    url: str
    log: Path
    _clients: list[httpx.Client] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.site.box.config.state_directory

    def add_study(self, *, told: bool = True) -> str:
        """Enter a positive study with a finding of twelve slices, its report and its image; tell the RIS of it."""
        uid, path = str(generate_uid()), f"spool/{generate_uid()}.dcm"
        (self.state / "spool").mkdir(exist_ok=True)
        (self.state / path).write_bytes(as_file(ct_slice(1, StudyInstanceUID=uid)))
        self._conclude(uid, finding=_finding(), path=path, station_name="CT1")
        model = {"name": MODEL.name, "version": MODEL.version, "sha256": MODEL.sha256, "trained": MODEL.trained}
        with self.site.box.database.writing() as connection:
            mine = update(SeriesRow).where(SeriesRow.series_instance_uid == f"{uid}.1"[:64])
            connection.execute(mine.values(model=model, steps=STEPS))
        if told:
            self.site.tell()
        return uid

    def add_unanalysed(self) -> str:
        """Enter a study that has no result."""
        return self._conclude(triage=None)

    def add_negative(self, uid: str | None = None) -> str:
        """Enter a study without hemorrhage."""
        return self._conclude(uid, triage=Triage.NEGATIVE)

    def _conclude(self, uid: str | None = None, **more: Any) -> str:
        """Enter a study that is concluded, while no other waits to be: nobody works here."""
        self.site.box.rest()
        return self.site.box.add_study(uid, **more)

    def token(self, name: str, role: Role) -> str:
        """Make a token for a program."""
        return add_token(self.site.box.database, name, role)

    def program(self, role: Role) -> httpx.Client:
        """A program with a token of its own: what it uses up is no other's."""
        return self.client(self.token(next_name(role), role))

    def client(self, token: str | None = None, **more: Any) -> httpx.Client:
        """A program that asks with a token, or without one."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._clients.append(httpx.Client(base_url=self.url, headers=headers, timeout=20, verify=False, **more))
        return self._clients[-1]

    def close(self) -> None:
        """End what its programs hold open."""
        for one in self._clients:
            one.close()

    def recorded_acknowledgements(self, uid: str) -> list[Recorded]:
        """What the audit trail holds of acknowledged alerts of a study."""
        return [
            one for one in recorded_in(self.state) if uid in one.studies and "Acknowledged by way of" in one.details
        ]

    def recorded(self, by: str) -> list[Recorded]:
        """What the audit trail holds of somebody."""
        return [one for one in recorded_in(self.state) if by in one.users]


_numbers = count(1)


def next_name(what: str) -> str:
    """A name that no other token has."""
    return f"{what}-{next(_numbers)}"


def problem_of(answer: httpx.Response, status: int) -> str:
    """Check that an answer is a problem as RFC 9457 writes it, and give its detail."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, PROBLEM), answer.text
    said = answer.json()
    assert (said["type"], said["status"]) == ("about:blank", status)
    assert said["title"]
    return str(said["detail"])


@cache
def _finding() -> dict[str, Any]:
    return finding_to_json(positive(headers(12)))


@contextmanager
def api_site(folder: Path) -> Iterator[ApiSite]:
    """Run a site with ``ich-node web``; nobody listens at its one destination."""
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": free_port(), "objects": ["report"]}
    with (
        listener("mllp", folder, "AA") as worklist,
        alerting_site(
            folder / "state", web={"enabled": True, "port": free_port()}, alert_hl7=[ris(worklist.port)],
            database={"busy_timeout_s": 0.5}, destination=[pacs],
        ) as site,
        NodeProcesses(folder, _sections_of(site), ["web"]) as node,
    ):  # fmt: skip
        served = ApiSite(site, f"http://127.0.0.1:{site.box.config.web.port}/api/v1", node.log("web"))
        yield served
        served.close()


def _sections_of(site: AlertingSite) -> dict[str, Any]:
    config = site.box.config.model_dump(mode="json", exclude_none=True)
    return {name: section for name, section in config.items() if section}
