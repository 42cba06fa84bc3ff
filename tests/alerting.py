"""A site with alert channels: studies whose answer is saved, and the alerter, stepped by the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from ich_node.alert_channels import make_channels
from ich_node.alerter import Alerter
from ich_node.database import StudyRow
from ich_node.queries import AlertStatus
from tests.alert_peers import Mailbox, Peer, listener, mail_server
from tests.outbox import Outbox, outbox
from tests.running import free_port, wait_for

FINDING: dict[str, Any] = {
    "gaps_mm": [],
    "unreadable": [],
    "thresholds": {},
    "probabilities": {"any": 0.97, "subdural": 0.91, "epidural": 0.02},
    "presence": {"any": "present", "subdural": "present", "epidural": "absent"},
    "test_model": False,
    "slices": [],
}
QUICK = {"first_retry_s": 0.05, "longest_retry_s": 0.1, "connect_timeout_s": 1.0, "response_timeout_s": 0.5}
SECRET = "0123456789abcdef"


@dataclass
class AlertingSite:
    """An outbox with alerts."""

    box: Outbox
    config_values: dict[str, Any]

    def tell(self, done: Any = None, *, seconds: float = 20.0) -> None:
        """Run the alerter until nothing is to be told any more, or until a condition holds."""
        stop = threading.Event()
        alerter = Alerter(self.box.config, self.box.database, make_channels(self.box.config))
        thread = threading.Thread(target=alerter.run, args=(stop,))
        thread.start()
        try:
            wait_for(done or self._is_calm, "alerts are told", seconds)
        finally:
            stop.set()
            thread.join()

    def _is_calm(self) -> bool:
        with self.box.database.reading() as connection:
            undecided = connection.execute(select(StudyRow.id).where(StudyRow.revision > StudyRow.alerted_revision))
            if undecided.first():
                return False
        return not any(one.state in ("PENDING", "SENDING") for one in self.alerts())

    def alerts(self, uid: str | None = None) -> list[AlertStatus]:
        """Every alert, the oldest first."""
        return sorted(
            (one for study in self.box.status(uid).studies for one in study.alerts), key=lambda one: one.created_at
        )

    def states(self) -> Sequence[tuple[str, str, str, str]]:
        return [(one.channel, one.kind, one.outcome, one.state) for one in self.alerts()]


@contextmanager
def alerting_site(folder: Path, **sections: Any) -> Iterator[AlertingSite]:
    """Open a site; without other channels it has one of HL7, ``ris``, at a port where nobody listens."""
    values: dict[str, Any] = {
        "alert": QUICK,
        "alert_hl7": [{"name": "ris", "host": "127.0.0.1", "port": free_port()}],
        "alert_rule": [{"tell": ["ris"]}],
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
    with outbox(folder, **values) as box:
        yield AlertingSite(box, values)


def ris(port: int, name: str = "ris") -> dict[str, Any]:
    return {"name": name, "host": "127.0.0.1", "port": port}


def secret_file(folder: Path) -> str:
    path = folder / "secret"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return str(path)


def webhook(folder: Path, port: int, **more: Any) -> dict[str, Any]:
    return {"name": "service", "url": f"http://127.0.0.1:{port}/", "secret_file": secret_file(folder), **more}


def mail(port: int) -> dict[str, Any]:
    return {"name": "mail", "host": "127.0.0.1", "port": port, "starttls": False, "sender": "node@hospital.example",
            "recipients": ["ct@hospital.example"]}  # fmt: skip


@contextmanager
def site_with_every_channel(
    folder: Path, *, phi: bool = False, **sections: Any
) -> Iterator[tuple[AlertingSite, Peer, Peer, Mailbox]]:
    """Open a site that tells a RIS, a web service and people by mail; give it and what listens for each."""
    with (
        listener("mllp", folder, "AA") as worklist,
        listener("web", folder, "200") as service,
        mail_server() as (port, mailbox),
    ):
        channels = {
            "alert_hl7": [ris(worklist.port)],
            "alert_webhook": [webhook(folder, service.port, phi=phi)],
            "alert_mail": [mail(port) | {"phi": phi}],
            "alert_rule": [{"tell": ["ris", "service", "mail"]}],
        }
        with alerting_site(folder / "state", **channels | sections) as site:
            yield site, worklist, service, mailbox
