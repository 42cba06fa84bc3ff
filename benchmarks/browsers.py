"""Fifty browsers that watch the worklist while 20 images a second come in: what the receiver loses by them.

Receiver, worker, deliverer, web and a small PACS run as processes; the browsers are a process of their own, which does
what the worklist's script does: it holds the stream of changes, and asks for the table again when it tells of one.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final

import httpx

from benchmarks.processes import free_port
from benchmarks.small_node import SENDERS, Sent, Template, send_studies, small_node
from benchmarks.tables import at_least, at_most, print_table
from ich_node.accounts import Role, add_account
from ich_node.database import open_database

BROWSERS: Final = 50
PEOPLE: Final = tuple(f"reader-{number}" for number in range(10))
"""One account is logged in at a few browsers at once, and no more."""
PHASE_S: Final = 25.0
WARM_UP_S: Final = 10.0
TURNS: Final = 2
LEAST_SHARE: Final = 0.95
_PASSWORD: Final = "correct horse battery staple"

_WEB: Final = """\
[web]
enabled = true
port = {port}
"""


@dataclass(frozen=True, slots=True)
class Phase:
    """What the senders saw for a while."""

    rate: float
    """Images a second that were answered."""
    answer_ms: list[float]
    refused: int


def measure() -> int:
    """Measure and print the table; give the number of targets that were missed."""
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name:
        folder, web_port = Path(name), free_port()
        roles = ("receive", "work", "deliver", "web")
        with small_node(folder, roles=roles, sections=_WEB.format(port=web_port)) as node:
            _add_people(node.state)
            alone, watched, browsers = _take_turns(node.port, web_port, Template(folder / "template"))
    rows = [_row("nobody watches", alone, ""), _row(f"{BROWSERS} browsers watch", watched, _target(alone, watched))]
    head = ("", "images/s, of 20 offered", "answered ms, median", "95th", "refused", "target")
    missed = print_table("Receiving while browsers watch", head, rows)
    seen = [(one["changes"], one["tables"], one["failed"], at_most(one["failed"], 0, "")) for one in browsers]
    head = (f"changes told to {BROWSERS} browsers", "tables they got", "not got", "target")
    return missed + print_table(f"What they saw in {PHASE_S:g} s", head, seen)


def _take_turns(port: int, web_port: int, template: Template) -> tuple[list[Phase], list[Phase], list[dict[str, int]]]:
    _send_for(port, template, WARM_UP_S)
    alone, watched, browsers = [], [], []
    for _ in range(TURNS):
        alone.append(_send_for(port, template, PHASE_S))
        with _watching(web_port) as watching:
            watched.append(_send_for(port, template, PHASE_S))
            watching.terminate()
            browsers.append(json.loads(watching.communicate()[0]))
    return alone, watched, browsers


def _add_people(state: Path) -> None:
    database = open_database(f"sqlite:///{state / 'ich-node.sqlite'}")
    for name in PEOPLE:
        add_account(database, name, Role.READER, _PASSWORD)
    database.close()


def _send_for(port: int, template: Template, seconds: float) -> Phase:
    """Send for so long. Studies that are begun by then are finished, and what comes later counts for no rate."""
    times: list[tuple[float, float]] = []
    sent, over = Sent(times=times), time.monotonic() + seconds
    senders = [threading.Thread(target=send_studies, args=(port, template, sent, over)) for _ in range(SENDERS)]
    for one in senders:
        one.start()
    for one in senders:
        one.join()
    in_time = [1000 * took for at, took in times if at <= over]
    return Phase(len(in_time) / seconds, in_time, sum(sent.answers.values()) - sent.success)


def _watching(web_port: int) -> subprocess.Popen[str]:
    """Start the browsers, and wait until each holds its stream."""
    command = [sys.executable, "-m", "benchmarks.browsers", str(web_port)]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    if watching.stdout.readline() != "all watch\n":
        raise SystemExit("the browsers could not log in")
    return watching


def _row(what: str, phases: list[Phase], target: str) -> tuple[object, ...]:
    answers = sorted(ms for one in phases for ms in one.answer_ms)
    late, refused = answers[int(0.95 * len(answers))], sum(one.refused for one in phases)
    return what, f"{_rate(phases):.2f}", f"{statistics.median(answers):.1f}", f"{late:.1f}", refused, target


def _target(alone: list[Phase], watched: list[Phase]) -> str:
    return at_least(_rate(watched), LEAST_SHARE * _rate(alone), "images/s")


def _rate(phases: list[Phase]) -> float:
    return statistics.mean(one.rate for one in phases)


# --------------------------------------------------------------------------------------------- the browsers


class _Browsers:
    """So many browsers at the worklist, each logged in by itself."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._tables = self._changes = self._failed = 0
        self._watching = 0

    async def run(self, stop: asyncio.Event) -> dict[str, int]:
        """Watch until told to stop."""
        tasks = [asyncio.create_task(self._one(name)) for name, _ in zip(cycle(PEOPLE), range(BROWSERS), strict=False)]
        while self._watching < BROWSERS:
            for one in tasks:
                if one.done():
                    one.result()
            await asyncio.sleep(0.1)
        print("all watch", flush=True)
        await stop.wait()
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {"tables": self._tables, "changes": self._changes, "failed": self._failed}

    async def _one(self, name: str) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=60) as browser:
            fields = {"name": name, "password": _PASSWORD}
            assert (await browser.post("/login", data=fields)).status_code == 303
            assert (await browser.get("/")).status_code == 200
            changed = asyncio.Event()
            renewing = asyncio.create_task(self._renew(browser, changed))
            async with browser.stream("GET", "/live", timeout=None) as stream:
                self._watching += 1
                async for line in stream.aiter_lines():
                    if line == "event: change":
                        self._changes += 1
                        changed.set()
            renewing.cancel()

    async def _renew(self, browser: httpx.AsyncClient, changed: asyncio.Event) -> None:
        """Ask for the table again, once at a time, as the page's script does."""
        while True:
            await changed.wait()
            changed.clear()
            try:
                is_there = (await browser.get("/worklist", headers={"X-By-Itself": "1"})).status_code == 200
            except httpx.HTTPError:
                is_there = False
            self._tables += is_there
            self._failed += not is_there


async def _watch(port: str) -> dict[str, int]:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return await _Browsers(f"http://127.0.0.1:{port}").run(stop)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_watch(sys.argv[1]))))
