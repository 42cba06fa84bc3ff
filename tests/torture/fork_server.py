"""A warm parent that forks the roles of nodes: a restart takes a tenth of a second, and what is killed is a real role.

Run as ``python -m tests.torture.fork_server``, it reads orders, a JSON line each, and writes what became of them.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self

from ich_node.failpoint import BY_A_TEST, FAILPOINT, MAY_BE_KILLED
from ich_node.service import SUPERVISED

ROOT = Path(__file__).parents[2]


# -------------------------------------------------------------------------------------- in the parent


def serve() -> None:
    """Fork a child per order until the input ends; then all children are killed."""
    from tests.torture.roles import become, imported

    children: set[int] = set()
    answers = os.dup(1)
    os.dup2(2, 1)

    def tell(**fields: Any) -> None:
        os.write(answers, (json.dumps(fields) + "\n").encode())

    def on_child(*_: object) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            children.discard(pid)
            tell(ended=pid, status=os.waitstatus_to_exitcode(status))

    gc.collect()
    gc.freeze()
    tell(ready=True, torch="ich_node.model.engine" in sys.modules and len(dir(sys.modules["torch"])) > 100,
         imported=sorted(imported()))  # fmt: skip
    signal.signal(signal.SIGCHLD, on_child)
    for line in sys.stdin:
        order = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            os.close(answers)
            _be_a_child(order, become)
        children.add(pid)
        tell(started=order["number"], pid=pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    for pid in list(children):
        os.kill(pid, signal.SIGKILL)


def _be_a_child(order: dict[str, Any], become: Any) -> None:
    status = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 2)
        os.dup2(log, 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - for the life of the child
        status = become(order)
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on as the parent
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


# -------------------------------------------------------------------------------------- in the driver


@dataclass(eq=False)
class Child:
    """A process that the parent forked for us."""

    role: str
    log: Path
    pid: int = 0
    status: int | None = None
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def signal(self, number: int) -> None:
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it as ``kill -9`` does, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        assert self.ended.wait(60), f"{self.role} does not die"

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self.signal(signal.SIGTERM)
        if not self.ended.wait(60):
            self.kill()

    def says(self, words: str) -> bool:
        return self.times(words) > 0

    def times(self, words: str) -> int:
        """Say how often it said so."""
        return self.log.read_text(errors="replace").count(words) if self.log.exists() else 0


class ForkServer:
    """Starts the warm parent with the shim loaded, and children in it."""

    def __init__(self, shim: Path) -> None:
        self._shim = shim
        self._numbers = count(1)
        self._by_number: dict[int, Child] = {}
        self._by_pid: dict[int, Child] = {}
        self._lock = threading.Lock()
        self.imported: set[str] = set()

    def __enter__(self) -> Self:
        environment = os.environ | {
            "LD_PRELOAD": str(self._shim), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.fork_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environment, cwd=ROOT, text=True, bufsize=1,
        )  # fmt: skip
        assert self._process.stdout is not None
        first = json.loads(self._process.stdout.readline())
        self.imported = set(first["imported"])
        assert not first["torch"], "the warm parent must not hold torch"
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._reader.join(60)
        self._process.stdout.close()

    def start(self, role: str, log: Path, **order: Any) -> Child:
        """Fork a child; it runs when this returns, and is not ready yet."""
        child = Child(role, log)
        assert self._process.stdin is not None
        with self._lock:
            number = next(self._numbers)
            self._by_number[number] = child
            self._process.stdin.write(json.dumps(order | {"role": role, "log": str(log), "number": number}) + "\n")
            self._process.stdin.flush()
        assert child.started.wait(60), "the warm parent does not answer"
        return child

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "started" in told:
                child = self._by_number.pop(told["started"])
                child.pid = told["pid"]
                self._by_pid[child.pid] = child
                child.started.set()
            else:
                child = self._by_pid.pop(told["ended"])
                child.status = told["status"]
                child.ended.set()


def start_real(role: str, config: Path, log: Path, failpoint: str) -> Child:
    """Start a role by its command, as systemd does, perhaps with a fail-point."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), FAILPOINT: failpoint, MAY_BE_KILLED: BY_A_TEST, SUPERVISED: "1"
    }  # fmt: skip  # it ends with us, however we end
    command = [sys.executable, "-m", "ich_node", role, "--config", str(config)]
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment)
    child = Child(role, log, process.pid)

    def wait() -> None:
        child.status = process.wait()
        assert process.stdin is not None
        process.stdin.close()
        child.ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return child


def build_shim(folder: Path) -> Path:
    """Compile the shim; skipped where there is no compiler."""
    from tests.shims import compile_shim  # and pytest with it, which the warm parent must not hold

    return compile_shim("shim", folder, Path(__file__).parent)


if __name__ == "__main__":
    serve()
