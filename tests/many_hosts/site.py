"""The whole: two receivers behind a balancer, three workers, two deliverers, one database and one folder for all."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from tests.many_hosts.network import Network
from tests.postgresql import Server, running_server
from tests.running import as_toml, settings
from tests.torture.fork_server import Child, ForkServer
from tests.torture.invariants import Judgement, judge_rows
from tests.torture.node import is_settled
from tests.torture.peers import read_notes
from tests.torture.studies import SentStudy, write_study

HAPROXY: Final = "/usr/sbin/haproxy"
RECEIVERS, WORKERS, DELIVERERS = ("receive-1", "receive-2"), ("work-1", "work-2", "work-3"), ("deliver-1", "deliver-2")
HOSTS: Final = (*RECEIVERS, *WORKERS, *DELIVERERS)
_PORT: Final = 11112
_PACS_PORT: Final = 104
_RIS_PORT: Final = 2575
_READY: Final = {"receive": "receiver ready", "work": "model ready", "deliver": "deliverer ready"}
_LONGEST_S: Final = 240.0
_PACS_TAKES_S: Final = 0.2
"""From storing an object to its answer: long enough to die in."""

_BALANCER: Final = Path(__file__).parents[2] / "config/haproxy.cfg"


@dataclass(eq=False)
class Site:
    """Hosts are killed, cut off and started one by one; the scanner, the PACS and the balancer live as long as all."""

    server: ForkServer
    network: Network
    folder: Path
    lease_s: float
    database: Server
    running: dict[str, Child] = field(default_factory=dict)
    studies: list[SentStudy] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def state(self) -> Path:
        return self.folder / "shared"

    @property
    def witness(self) -> Path:
        return self.folder / "witness"

    # -------------------------------------------------------------------------------------- hosts

    def configure(self, url: str) -> None:
        self.url = url
        addresses = self.network.hosts
        self.witness.mkdir()
        there = f"postgresql+psycopg://postgres@{addresses['database']}/node"
        for host in HOSTS:
            role = host.partition("-")[0]
            values = settings(
                self.state, Path("no-model"), destinations=[("pacs", _PACS_PORT)],
                node={"bind": "0.0.0.0", "port": _PORT, "host_directory": str(self.folder / host), "roles": [role]},
                database={"url": there, "busy_timeout_s": 5},
                series={"quiet_s": 0.2, "max_wait_s": 3},
                delivery={"first_retry_s": 0.2, "longest_retry_s": 0.5, "paused_retry_s": 0.3,
                          "commitment_wait_h": 3 / 3600, "commitment_stay_s": 0.5},
                alert={"first_retry_s": 0.2, "longest_retry_s": 0.5, "early": False,
                       "connect_timeout_s": 1, "response_timeout_s": 2},
                alert_hl7=[{"name": "ris", "host": addresses["pacs"], "port": _RIS_PORT, "most_per_minute": 6000}],
                alert_rule=[{"tell": ["ris"], "triage": ["positive", "indeterminate", "negative", "not_analysed"]}],
                self_test={"enabled": False},
            )  # fmt: skip
            for destination in values["destination"]:
                destination |= {"host": addresses["pacs"], "commitment": True}
            self.config(host).write_text(as_toml(values))

    def config(self, host: str) -> Path:
        return self.folder / f"{host}.toml"

    def start(self, host: str) -> None:
        """Start a host with its role."""
        log = self.folder / f"{host}.{next(self._numbers):03d}.log"
        self.running[host] = self.server.start(
            "host", log, config=str(self.config(host)), roles=[host.partition("-")[0]], lease_s=self.lease_s,
            root=str(self.state), **self._place(host),
        )  # fmt: skip

    def start_peers(self) -> Child:
        child = self.server.start(
            "peers", self.folder / "peers.log", pacs_port=_PACS_PORT, ris_port=_RIS_PORT, node_port=_PORT,
            witness=str(self.witness), bind="0.0.0.0", node=self.network.hosts["balancer"], slow_s=_PACS_TAKES_S,
            root=str(self.state), **self._place("pacs"),
        )  # fmt: skip
        self.wait((self.witness / "ready").exists, "the peers listen")
        return child

    def _place(self, host: str) -> dict[str, str]:
        return {"namespace": self.network.namespace(host), "hostname": host}

    def is_ready(self, host: str) -> bool:
        role, child = host.partition("-")[0], self.running[host]
        log = child.log.with_name(f"{child.log.stem}-{role}.log")
        return log.exists() and _READY[role] in log.read_text(errors="replace")

    def start_ready(self, *hosts: str) -> None:
        for host in hosts:
            self.start(host)
        for host in hosts:
            self.wait(lambda host=host: self.is_ready(host), f"{host} is ready")

    def kill(self, host: str) -> None:
        """Kill all processes of a host at once, as a power cut does."""
        child = self.running.pop(host)
        os.killpg(child.pid, signal.SIGKILL)
        assert child.ended.wait(60), f"{host} does not die"

    def mend_everything(self) -> None:
        """Mend every link, and start what was killed."""
        for host in HOSTS:
            self.network.mend(host)
        self.start_ready(*(host for host in HOSTS if host not in self.running))

    def restart_database(self, away_s: float) -> None:
        """Stop the server as a crash does, and start it again."""
        self.database.stop("immediate")
        time.sleep(away_s)
        self.database.start()

    # ------------------------------------------------------------------------------------ studies

    def send(self, number: int = 1) -> list[Child]:
        """Have studies sent side by side, each until every object is answered with success."""
        children = []
        for _ in range(number):
            study = write_study(self.folder / "studies" / str(len(self.studies)), len(self.studies))
            self.studies.append(study)
            children.append(
                self.server.start(
                    "send", self.folder / "send.log", study=str(study.folder), port=_PORT, witness=str(self.witness),
                    host=self.network.hosts["balancer"], root=str(self.state), **self._place("scanner"),
                )
            )  # fmt: skip
        return children

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + _LONGEST_S
        while not (answer := condition()):
            assert time.monotonic() < deadline, f"not in {_LONGEST_S:g} s: {what} ({self.folder})"
            time.sleep(0.01)
        return answer

    def wait_settled(self, senders: list[Child]) -> None:
        """Wait until every study that was sent is answered for, and nothing waits to be sent or told."""
        for sender in senders:
            self.wait(sender.ended.is_set, "the scanner is rid of its study")
        self.wait(self._is_settled, "every study is settled")

    def _is_settled(self) -> bool:
        with closing(self.snapshot()) as rows:
            settled = all(is_settled(rows, study) for study in self.studies)
        if not settled:
            time.sleep(0.2)
        return settled

    def holder(self, table: str, hosts: tuple[str, ...]) -> str | None:
        """Name the host that has a lease now, of some hosts."""
        query = f"SELECT lease_owner FROM {table} WHERE lease_owner IS NOT NULL"
        found = {owner.partition(":")[0] for (owner,) in self._ask(query)}
        return next((host for host in hosts if host in found and host in self.running), None)

    def wait_for_holder(self, table: str, hosts: tuple[str, ...]) -> str:
        """Wait until a host of some has a lease, and name it."""
        return str(self.wait(lambda: self.holder(table, hosts), f"one of {hosts} has a lease of {table}"))

    def judge(self) -> Judgement:
        """Look at everything from outside; a receiver that was killed has been started again."""
        found = Judgement()
        with closing(self.snapshot()) as rows:
            judge_rows(found, rows, self.state, self.witness, self.studies)
        return found

    def notes(self, name: str) -> list[dict[str, Any]]:
        return read_notes(self.witness / name)

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        import psycopg

        with closing(psycopg.connect(f"host={self.database.folder} user=postgres dbname=node")) as connection:
            return connection.execute(query.encode()).fetchall()

    def snapshot(self) -> sqlite3.Connection:
        """Copy the rows into memory, for questions that are asked of SQLite elsewhere."""
        import psycopg

        copy = sqlite3.connect(":memory:")
        with closing(psycopg.connect(f"host={self.database.folder} user=postgres dbname=node")) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            for (table,) in tables:
                cursor = connection.execute(f'SELECT * FROM "{table}"'.encode())
                columns = [f'"{column.name}"' for column in cursor.description or ()]
                copy.execute(f'CREATE TABLE "{table}" ({", ".join(columns)})')
                holes = ", ".join("?" * len(columns))
                copy.executemany(f'INSERT INTO "{table}" VALUES ({holes})', [_plain(row) for row in cursor])
        return copy


def _plain(row: tuple[Any, ...]) -> list[Any]:
    return [json.dumps(one) if isinstance(one, dict | list) else one for one in row]


@contextmanager
def running_site(server: ForkServer, folder: Path, *, lease_s: float) -> Iterator[Site]:
    """Run a site of eleven hosts; skipped, by name, where that cannot be.

    Args:
        lease_s: of every lease.
    """
    if not Path(HAPROXY).exists():
        pytest.skip("haproxy is not installed (Debian: haproxy)")
    with Network() as network:
        for host in (*HOSTS, "balancer", "database", "pacs", "scanner"):
            network.add(host)
        where = {"listen": network.hosts["database"], "namespace": network.namespace("database")}
        with running_server(flushed=True, **where) as database:
            site = Site(server, network, folder, lease_s, database)
            site.configure(database.create("node"))
            with _balancer(site):
                site.start_peers()
                site.start_ready(*HOSTS)
                try:
                    yield site
                finally:
                    for host in list(site.running):
                        site.kill(host)


@contextmanager
def _balancer(site: Site) -> Iterator[None]:
    """The one address of both receivers: HAProxy, as docs/scaling.md has it."""
    addresses, config = site.network.hosts, site.folder / "haproxy.cfg"
    text = _BALANCER.read_text()
    for host, address in zip(RECEIVERS, ("10.1.2.21", "10.1.2.22"), strict=True):
        assert f"server {host} {address}:{_PORT}" in text
        text = text.replace(address, addresses[host])
    config.write_text(text)
    inside = ["ip", "netns", "exec", site.network.namespace("balancer")]
    with (site.folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([*inside, HAPROXY, "-db", "-f", str(config)], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()
