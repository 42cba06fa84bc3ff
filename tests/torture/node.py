"""One node under torture: its state folder, its peers, and its roles as children of the warm parent."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.running import as_toml, free_port, settings
from tests.torture.fork_server import Child, ForkServer, start_real
from tests.torture.peers import ANSWERS, read_notes
from tests.torture.studies import SentStudy

READY: Final = {"receive": "receiver ready", "work": "model ready", "deliver": "deliverer ready"}
LONGEST_S: Final = 600.0
"""For a whole study with its kills, on a machine that has other things to do."""
LONGEST_WITH_TORCH_S: Final = 900.0


class Violation(AssertionError):
    """Something that the node promises did not hold."""


@dataclass
class Ports:
    """Where node and peers listen; results name the PACS by its port for as long as they wait."""

    node: int = field(default_factory=free_port)
    pacs: int = field(default_factory=free_port)
    ris: int = field(default_factory=free_port)


@dataclass(eq=False)
class TorturedNode:
    """Roles are started, killed and stopped one by one; peers live as long as the node."""

    server: ForkServer
    folder: Path
    witness: Path
    """What peers noted: outside of the node, and of any power cut."""
    ports: Ports = field(default_factory=Ports)
    journal: Path | None = None
    bundle: Path | None = None
    """Of the real network: its worker is started as a process of its own, with torch."""
    receivers: int = 1
    """Processes that receive."""
    roles: dict[str, Child] = field(default_factory=dict)
    studies: list[SentStudy] = field(default_factory=list)
    _logs: Any = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        for path in (self.folder, self.witness):
            path.mkdir(parents=True, exist_ok=True)
        self.configure()

    def configure(self) -> None:
        """Write the configuration: a role reads it at its start."""
        values = settings(
            self.state, self.bundle or Path("no-model"), destinations=[("pacs", self.ports.pacs)],
            node={"port": self.ports.node}, receiver={"processes": self.receivers},
            series={"quiet_s": 0.1, "max_wait_s": 1.5},
            delivery={"first_retry_s": 0.1, "longest_retry_s": 0.3, "paused_retry_s": 0.2,
                      "commitment_wait_h": 2 / 3600, "commitment_stay_s": 0.5},
            alert={"first_retry_s": 0.1, "longest_retry_s": 0.3, "early": False},
            alert_hl7=[{"name": "ris", "host": "127.0.0.1", "port": self.ports.ris, "most_per_minute": 6000}],
            alert_rule=[{"tell": ["ris"], "triage": ["positive", "indeterminate", "negative", "not_analysed"]}],
        )  # fmt: skip
        for destination in values["destination"]:
            destination["commitment"] = True
        self.config.write_text(as_toml(values))

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "ich-node.toml"

    @property
    def _root(self) -> dict[str, str]:
        order = {"root": str(self.folder.parent if self.journal else self.state)}
        return order if self.journal is None else order | {"journal": str(self.journal)}

    # -------------------------------------------------------------------------------------- roles

    def start(self, role: str, **arms: Any) -> Child:
        """Start a role, perhaps with a fail-point; it is not ready yet."""
        log = self.folder / f"{role}.{next(self._logs):04d}.log"
        if role == "work" and self.bundle is not None:
            self.roles[role] = start_real(role, self.config, log, arms.get("failpoint", ""))
            return self.roles[role]
        child = self.server.start(role, log, config=str(self.config), **self._root, **arms)
        self.roles[role] = child
        return child

    def start_ready(self, role: str) -> Child:
        child = self.start(role)
        self.wait(lambda: child.says(READY[role]), f"{role} is ready")
        return child

    def expire(self, **arms: Any) -> int:
        """Run the housekeeping once, as a process; give how it ended."""
        child = self.server.start(
            "expire", self.folder / f"expire.{next(self._logs):04d}.log", config=str(self.config), **self._root, **arms
        )
        assert child.ended.wait(LONGEST_S)
        return int(child.status or 0)

    def start_peers(self) -> Child:
        (self.witness / "ready").unlink(missing_ok=True)
        child = self.server.start(
            "peers", self.folder / "peers.log", pacs_port=self.ports.pacs, ris_port=self.ports.ris,
            node_port=self.ports.node, witness=str(self.witness), **self._root,
        )  # fmt: skip
        self.wait(lambda: (self.witness / "ready").exists(), "the peers listen")
        return child

    def send(self, study: SentStudy) -> Child:
        """Send a study until every object of it is answered with success."""
        if study not in self.studies:
            self.studies.append(study)
        return self.server.start(
            "send", self.folder / "send.log", study=str(study.folder), port=self.ports.node, witness=str(self.witness),
            **self._root,
        )  # fmt: skip

    def start_echo(self) -> Child:
        """Let somebody from another address call the receiver without end."""
        return self.server.start(
            "echo", self.folder / "echo.log", port=self.ports.node, witness=str(self.witness), **self._root
        )

    def kill_roles(self) -> None:
        for child in self.roles.values():
            child.kill()

    # ------------------------------------------------------------------------------------ looking

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for something, looking fifty times a second.

        Raises:
            Violation: it did not come, or a role ended by itself.
        """
        longest_s = LONGEST_S if self.bundle is None else LONGEST_WITH_TORCH_S
        deadline = time.monotonic() + longest_s
        while not condition():
            self.raise_if_ended()
            if time.monotonic() > deadline:
                raise Violation(f"not in {longest_s:g} s: {what} ({self.folder})")
            time.sleep(0.02)

    def raise_if_ended(self) -> None:
        for role, child in self.roles.items():
            if child.ended.is_set() and child.status not in (0, -9):
                raise Violation(f"{role} ended by itself with {child.status}: {child.log.read_text()[-1500:]}")

    def answered(self, study: SentStudy) -> bool:
        """Every object of a study was answered with success."""
        good = {one["uid"] for one in read_notes(self.witness / ANSWERS) if one["status"] == 0}
        return good >= {path.stem for path in study.folder.glob("*.ds")}

    def settled(self, studies: list[SentStudy]) -> bool:
        """Every series of the studies has ended, and nothing of them waits to be sent or told."""
        database = self.state / "ich-node.sqlite"
        if not database.exists():
            return False
        try:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
                return all(is_settled(connection, one) for one in studies)
        except sqlite3.OperationalError:  # not migrated yet
            return False


_OPEN_SERIES = """SELECT count(*) FROM study JOIN series ON series.study_id = study.id
    WHERE study_instance_uid = ? AND (state IN ('RECEIVING', 'COMPLETE') OR lease_owner IS NOT NULL)"""
_UNTOLD = """SELECT count(*) FROM study WHERE study_instance_uid = ?
    AND (revision = 0 OR revision > alerted_revision OR doubted)"""
_UNSENT = """SELECT count(*) FROM study JOIN delivery ON delivery.study_id = study.id
    WHERE study_instance_uid = ?
    AND (state IN ('PENDING', 'SENDING') OR state = 'DELIVERED' AND commitment_ask_at IS NOT NULL)"""
_UNALERTED = """SELECT count(*) FROM study JOIN alert ON alert.study_id = study.id
    WHERE study_instance_uid = ? AND state IN ('PENDING', 'WAITING', 'SENDING')"""
_KNOWN = "SELECT 1 - count(*) FROM study WHERE study_instance_uid = ?"


def is_settled(connection: sqlite3.Connection, study: SentStudy) -> bool:
    """Say whether every series of a study has ended, and nothing of it waits to be sent or told."""
    queries = (_KNOWN, _OPEN_SERIES, _UNTOLD, _UNSENT, _UNALERTED)
    return not any(connection.execute(query, [study.uid]).fetchone()[0] for query in queries)
