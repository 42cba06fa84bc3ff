"""Run a node for tests: its parts in this process, or the real commands as processes."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.filereader import read_file_meta_info

from ich_node.config import Config, parse_config
from ich_node.database import Database, open_database, prepare_database
from ich_node.decode import DecoderPool
from ich_node.decoding_rules import decode_limits
from ich_node.deliverer import Deliverer
from ich_node.eligibility import slice_ineligibility
from ich_node.pipeline import Model
from ich_node.queries import NodeStatus, StudyStatus, node_status
from ich_node.receive import Receiver
from ich_node.worker import Worker

STORESCU = "/usr/bin/storescu"  # dcmtk's: pynetdicom's script of the same name shadows it on the PATH
STORESCP = "/usr/bin/storescp"
LONGEST_S = 120.0
_LEAKED = r"unclosed <(ssl\.SSLS|s)ocket"


@contextmanager
def sockets_may_leak() -> Iterator[None]:
    """Let what a fixture starts drop sockets, as `leaks_a_socket` lets a test; they are collected when it ends."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _LEAKED, ResourceWarning)
        yield
        gc.collect()


def leaks_a_socket(test: Any) -> Any:
    """Mark a test in which a connection is refused or cut.

    pynetdicom 3.0.4 drops such a socket without closing it; it is collected here and not in whatever test comes next.
    """
    test = pytest.mark.filterwarnings(f"ignore:{_LEAKED}:ResourceWarning")(test)
    return pytest.mark.usefixtures("collect_garbage")(test)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Say whether somebody takes connections at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def settings(
    state: Path, model: Path, /, *, destinations: Iterable[tuple[str, int]] = (), **sections: Any
) -> dict[str, Any]:
    """Values of a configuration for tests: loopback, small times, findings of the test model shown.

    ``sections`` are merged over them: ``settings(..., series={"quiet_s": 1})``.
    """
    values: dict[str, Any] = {
        "node": {"bind": "127.0.0.1", "port": free_port(), "state_directory": str(state)},
        "receiver": {"allow_any": True, "reserve_mib": 0, "processes": 1},
        "series": {"quiet_s": 0.3, "max_wait_s": 1.0},
        "model": {"directory": str(model), "engine": "torch", "show_findings_of_untrained_model": True},
        "delivery": {"first_retry_s": 0.2, "longest_retry_s": 1.0, "paused_retry_s": 0.5,
                     "connect_timeout_s": 2.0, "response_timeout_s": 3.0},
        "destination": [
            {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": port, "objects": ["report"]}
            for name, port in destinations
        ],
    }  # fmt: skip
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
    return values


def wait_for(condition: Callable[[], Any], what: str, longest_s: float = LONGEST_S) -> Any:
    """Wait until a condition gives something true, and return that."""
    deadline = time.monotonic() + longest_s
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError(f"not in {longest_s:g} s: {what}")


@dataclass
class PartsOfANode:
    """Receiver, worker and deliverer in this process; the two loops run step by step."""

    config: Config
    database: Database
    receiver: Receiver
    worker: Worker
    deliverer: Deliverer

    def settle(self, longest_s: float = LONGEST_S) -> NodeStatus:
        """Work and deliver until every series is settled and nothing can be sent now."""
        deadline = time.monotonic() + longest_s
        while time.monotonic() < deadline:
            if self.worker.step() | self.deliverer.step():
                continue
            series = node_status(self.database, limit=0).series
            if series and not series.get("RECEIVING", 0) + series.get("COMPLETE", 0):
                return self.status()
            time.sleep(0.02)
        raise AssertionError(f"not settled in {longest_s:g} s: {self.status()}")

    def status(self, uid: str | None = None) -> NodeStatus:
        return node_status(self.database, limit=1000, uid=uid)


@contextmanager
def parts_of_a_node(values: dict[str, Any], model: Model, decoder: DecoderPool | None = None) -> Iterator[PartsOfANode]:
    """Start the parts on a state folder; the model is shared between tests, since it takes long to open."""
    config = parse_config(values)
    config.state_directory.mkdir(parents=True, exist_ok=True)
    database = open_database(config.database_url, config.database.busy_timeout_s)
    installation_uid = prepare_database(database, config.state_directory)
    receiver = Receiver(config, database)
    receiver.start()
    own = decoder or DecoderPool(decode_limits(config), slice_ineligibility, config.decode.processes)
    try:
        if decoder is None:
            own.__enter__()
        worker = Worker(config, database, model, own, installation_uid)
        yield PartsOfANode(config, database, receiver, worker, Deliverer(config, database))
    finally:
        if decoder is None:
            own.__exit__(None, None, None)
        receiver.stop(drain_s=1.0)
        database.close()


@dataclass
class NodeProcesses:
    """The real commands, one process per role, as systemd would run them."""

    folder: Path
    values: dict[str, Any]
    roles: Sequence[str] = ("receive", "work", "deliver")
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def config_path(self) -> Path:
        return self.folder / "ich-node.toml"

    @property
    def config(self) -> Config:
        return parse_config(self.values)

    @property
    def port(self) -> int:
        return int(self.values["node"]["port"])

    def __enter__(self) -> NodeProcesses:
        self.config_path.write_text(as_toml(self.values))
        for role in self.roles:
            self.start(role)
        for role in self.roles:
            self.wait_ready(role)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, role: str) -> Path:
        return self.folder / f"{role}.log"

    def start(self, role: str) -> None:
        """Start a role; it is not ready yet."""
        self.log(role).write_bytes(b"")
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        with self.log(role).open("ab") as log:
            self.processes[role] = subprocess.Popen(
                self.command(role), stdin=subprocess.DEVNULL, stderr=log, env=environment
            )

    def command(self, role: str) -> list[str]:
        return [sys.executable, "-m", "ich_node", role, "--config", str(self.config_path)]

    def wait_ready(self, role: str) -> None:
        words = {"receive": "receiver ready", "work": "model ready", "deliver": "deliverer ready"}.get(role, "ready")
        wait_for(lambda: self._is_up(role, words), f"{role} is ready")

    def _is_up(self, role: str, words: str) -> bool:
        text = self.log(role).read_text()
        if self.processes[role].poll() is not None:
            raise AssertionError(f"{role} ended with {self.processes[role].returncode}: {text[-2000:]}")
        return words in text

    def kill(self, role: str) -> None:
        """Kill a role as a power cut would: it cannot clear up."""
        self.processes[role].kill()
        self.processes[role].wait()

    def restart(self, role: str) -> None:
        self.start(role)
        self.wait_ready(role)

    def status(self, uid: str | None = None) -> NodeStatus:
        database = open_database(self.config.database_url)
        try:
            return node_status(database, limit=1000, uid=uid)
        finally:
            database.close()

    def wait_settled(self, uid: str, longest_s: float = LONGEST_S) -> StudyStatus:
        """Wait until every series of a study is settled and its reports are delivered."""
        found: StudyStatus = wait_for(lambda: self._settled(uid), f"study {uid} is settled", longest_s)
        return found

    def _settled(self, uid: str) -> StudyStatus | None:
        studies = self.status(uid).studies
        if not studies:
            return None
        open_series = any(one.state in ("RECEIVING", "COMPLETE") for one in studies[0].series)
        unsent = any(one.state in ("PENDING", "SENDING") for one in studies[0].deliveries)
        return None if open_series or unsent else studies[0]


def as_toml(values: dict[str, Any]) -> str:
    """Write settings as TOML; enough of it for a configuration."""

    def literal(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(literal, value))}]"
        return f'"{value}"' if isinstance(value, str) else repr(value)

    lines = []
    for name, section in values.items():
        for table in section if isinstance(section, list) else [section]:
            lines.append(f"[[{name}]]" if isinstance(section, list) else f"[{name}]")
            lines += [f"{key} = {literal(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


_PROPOSE = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.5": "-xr",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
}
"""Options of storescu; it proposes no compressed syntax by itself."""


def storescu(
    paths: Iterable[Path], port: int, *options: str, called: str = "ICH_NODE"
) -> subprocess.CompletedProcess[str]:
    """Send files or folders, all of one transfer syntax, with dcmtk's storescu, as they are."""
    paths = list(paths)
    command = [STORESCU, "-R", "-aec", called, *_proposal(paths[0]), *options, "+sd", "+r", "127.0.0.1", str(port)]
    environment = os.environ | {"TCP_NODELAY": "1"}
    return subprocess.run(
        [*command, *map(str, paths)], capture_output=True, text=True, env=environment, check=False, timeout=LONGEST_S
    )


@contextmanager
def storescp_in(folder: Path, *options: str, port: int | None = None) -> Iterator[int]:
    """Run dcmtk's storescp, which stores in a folder; give its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    with folder.with_name(f"{folder.name}.log").open("ab") as log:
        process = subprocess.Popen(
            [STORESCP, *options, "-od", str(folder), str(port)],
            stdout=log, stderr=log, env=os.environ | {"TCP_NODELAY": "1"},
        )  # fmt: skip
    try:
        wait_for(lambda: listens(port), "storescp listens", 30)
        yield port
    finally:
        process.kill()
        process.wait()


def _proposal(path: Path) -> list[str]:
    files = [one for one in sorted(path.rglob("*")) if one.is_file()] if path.is_dir() else [path]
    if not files or not is_dicom(files[0]):
        return []
    option = _PROPOSE.get(str(read_file_meta_info(files[0]).TransferSyntaxUID))
    return [option] if option else []


def is_dicom(path: Path) -> bool:
    """Tell a DICOM file by its prefix (PS3.10 7.1)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
