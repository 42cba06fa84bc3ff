"""The campaign of kills: studies are sent without end, and each role is killed at one place after the other."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from threading import Lock

import psutil

from tests.torture.fork_server import Child, ForkServer
from tests.torture.invariants import Judgement, judge
from tests.torture.node import READY, TorturedNode, Violation
from tests.torture.outsiders import Seen, peak_mib
from tests.torture.strikes import (
    ADOPTION,
    CHECKPOINT,
    FIRST_OF_TWO,
    MIGRATION,
    Strike,
    leaves_an_orphan,
    strikes_of,
)
from tests.torture.studies import SHORT, WHOLE, SentStudy, write_study

ROLES = ("receive", "work", "deliver")
_STRIKES_A_STUDY = {"receive": 4, "work": 2, "deliver": 4}
"""A series that kills its worker three times is given up, and rightly so: that is not what is looked at here."""
_STUDIES_A_NODE = 10
_EVERY_SHORT = 4
_WEIGH_S = 0.3


@dataclass
class Tally:
    """What was provoked, and what came of it, for every kind of strike."""

    provoked: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    doubled: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    recovery_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    violations: list[str] = field(default_factory=list)
    objects: int = 0
    reports: int = 0
    alerts: int = 0
    repeats: int = 0
    seen: Seen = field(default_factory=Seen)
    planned: Counter[str] = field(default_factory=Counter)
    lock: Lock = field(default_factory=Lock)

    @property
    def kills(self) -> int:
        return sum(self.provoked.values())

    def blame(self, strikes: list[Strike], judgement: Judgement) -> None:
        """Note violations on every strike that may have caused them."""
        with self.lock:
            for label in {one.label for one in strikes}:
                self.lost[label] += len(judgement.lost)
                self.doubled[label] += len(judgement.doubled)
                self.wrong[label] += len(judgement.wrong)
            where = ", ".join(f"{one.label}:{one.nth}" for one in strikes)
            self.violations += [f"{text} (after {where})" for text in judgement.violations]

    def rarest(self, strikes: list[Strike], chance: random.Random) -> Strike:
        """Choose what was planned least often."""
        with self.lock:
            special = "work: no-result-before-row"  # only some studies lead there
            chosen = min(strikes, key=lambda one: (self.planned[one.label], one.label != special, chance.random()))
            self.planned[chosen.label] += 1
            return chosen


@dataclass
class _Runner:
    """A role that is started again whenever it was killed, each time to be killed elsewhere."""

    role: str
    strike: Strike | None = None
    child: Child | None = None
    started_at: float = 0.0
    died_at: float | None = None
    """Since when it is down: until it is ready, through however many deaths."""
    died_of: str = ""
    deaths: int = 0
    """Within the study that is being sent."""
    inner_deaths: int = 0
    """Of the processes of one receiver."""
    weighed_at: float = 0.0
    kill_at: float | None = None
    """When the first process is killed, too: what its children left is cleared up by its successor."""

    @property
    def is_up(self) -> bool:
        return self.died_at is None and self.kill_at is None


class _Broken(Violation):
    """The invariants do not hold."""

    def __init__(self, judgement: Judgement) -> None:
        super().__init__("the invariants do not hold")
        self.judgement = judgement


class KillCampaign:
    """One node after the other, each for some studies."""

    def __init__(
        self,
        server: ForkServer,
        folder: Path,
        tally: Tally,
        seed: int,
        enough: Callable[[], bool],
        bundle: Path | None = None,
    ) -> None:
        self._bundle = bundle
        self._server, self._folder, self._tally = server, folder, tally
        self._seed = seed
        self._chance = random.Random(seed)
        self._enough = enough
        self._numbers = count(1)
        self._receivers: list[tuple[float, str]] = []
        """Since when, and what was to kill it: of this node."""
        self._struck: list[Strike] = []
        """Since the last look at the invariants."""

    def run(self) -> None:
        """Torture nodes until it is enough."""
        for number in count(1):
            if self._enough():
                return
            folder = self._folder / f"node-{number:03d}"
            node = TorturedNode(self._server, folder / "node", folder / "witness", bundle=self._bundle,
                                receivers=1 + (number + self._seed) % 2)  # fmt: skip
            before = len(self._tally.violations)
            try:
                self._live(node)
            except _Broken as broken:
                self._tally.blame(self._struck, broken.judgement)
            except Violation as violation:
                self._tally.blame(self._struck, Judgement(wrong=[str(violation)]))
            finally:
                node.kill_roles()
            if len(self._tally.violations) == before:
                shutil.rmtree(folder)

    # ------------------------------------------------------------------------------- one node's life

    def _live(self, node: TorturedNode) -> None:
        self._struck, self._receivers = [], [(time.time(), MIGRATION.label)]
        peers = node.start_peers()
        others = node.start_echo()
        try:
            self._be_born(node)
            runners = {role: _Runner(role) for role in ROLES}
            for number in range(_STUDIES_A_NODE):
                if self._enough():
                    break
                self._send(node, runners, SHORT if number % _EVERY_SHORT == 1 else WHOLE)
            for role in ROLES:
                self._start(node, runners[role], None)
            self._wait(node, runners, lambda: True)
            self._look(node)
            others.kill()
            self._grow_old(node)
        finally:
            others.kill()
            peers.stop()
            self._tally.seen.add(node.witness, self._receivers)

    def _be_born(self, node: TorturedNode) -> None:
        """Die in the migration of a new database."""
        child = node.start("receive", **MIGRATION.arms)
        self._expect_death(node, child, MIGRATION)

    def _send(self, node: TorturedNode, runners: dict[str, _Runner], slices: int) -> None:
        """Send a study, or where several processes receive those of two patients at once."""
        numbers = [next(self._numbers) for _ in range(node.receivers)]
        studies = [write_study(node.folder / f"study-{number:04d}", number, slices) for number in numbers]
        for runner in runners.values():
            runner.deaths = 0
            if runner.child is None or runner.strike is None:
                self._start(node, runner, self._next(node, runner, studies[0]))
        senders = [node.send(study) for study in studies]
        self._wait(
            node, runners, lambda: all(one.ended.is_set() for one in senders) and node.settled(studies), studies[0]
        )
        if any(one.status for one in senders):
            raise Violation(f"a sender ended with {[one.status for one in senders]}")
        self._look(node)

    def _wait(
        self, node: TorturedNode, runners: dict[str, _Runner], done: Callable[[], bool], study: SentStudy | None = None
    ) -> None:
        """Start again what was killed, until all is done and every role is ready."""

        def step() -> bool:
            for runner in runners.values():
                self._watch(node, runner, study)
            return all(one.is_up for one in runners.values()) and done()

        node.wait(step, f"all is settled: {', '.join(f'{one.label}:{one.nth}' for one in self._struck)}")

    def _watch(self, node: TorturedNode, runner: _Runner, study: SentStudy | None) -> None:
        child, strike = runner.child, runner.strike
        assert child is not None
        now = time.monotonic()
        if runner.role == "receive" and now > runner.weighed_at + _WEIGH_S:
            runner.weighed_at = now
            self._tally.seen.note_memory(self._receivers[-1][1], peak_mib(child.pid))
        if strike is not None and strike.apart and not child.ended.is_set():
            self._watch_one_of_two(runner, strike, child, now)
        elif strike is not None and strike.after_s is not None and now > runner.started_at + strike.after_s:
            child.kill()
        if child.ended.is_set() and child.status == -signal.SIGKILL:
            self._note_death(runner, now)
            self._start(node, runner, self._next(node, runner, study) if study else None)
        elif runner.died_at is not None and child.says(READY[runner.role]):
            down_s, runner.died_at = now - runner.died_at, None
            longest = self._tally.recovery_s
            longest[runner.died_of] = max(longest[runner.died_of], down_s)

    def _watch_one_of_two(self, runner: _Runner, strike: Strike, child: Child, now: float) -> None:
        """Kill one of the processes that receive; a moment later the first one, too, which had started another."""
        if strike.after_s is not None and not runner.inner_deaths and now > runner.started_at + strike.after_s:
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                self._chance.choice(psutil.Process(child.pid).children()).kill()
        deaths = child.times("process of the receiver ended by itself")
        if deaths > runner.inner_deaths:
            runner.inner_deaths = deaths
            self._note_strike(strike)
            runner.kill_at = runner.kill_at or now + self._chance.uniform(0.2, 1.0)
        if runner.kill_at is not None and now > runner.kill_at:
            runner.strike = FIRST_OF_TWO
            child.kill()

    def _note_strike(self, strike: Strike) -> None:
        with self._tally.lock:
            self._tally.provoked[strike.label] += 1
        self._struck.append(strike)

    def _note_death(self, runner: _Runner, now: float) -> None:
        assert runner.strike is not None, f"{runner.role} died of nothing of ours"
        strike = replace(runner.strike, apart=False)  # the first of several came there itself
        self._note_strike(strike)
        runner.deaths += 1
        runner.died_of = strike.label
        runner.died_at = runner.died_at or now

    def _start(self, node: TorturedNode, runner: _Runner, strike: Strike | None) -> None:
        if runner.child is not None:
            runner.child.kill()
        runner.strike = strike
        if runner.role == "receive":
            self._receivers.append((time.time(), strike.label if strike else "receive: nothing"))
        runner.child = node.start(runner.role, **(strike.arms if strike else {}))
        runner.started_at, runner.inner_deaths, runner.kill_at = time.monotonic(), 0, None
        runner.died_at = runner.died_at or runner.started_at

    def _next(self, node: TorturedNode, runner: _Runner, study: SentStudy) -> Strike | None:
        if runner.deaths >= _STRIKES_A_STUDY[runner.role] or self._enough():
            return None
        if runner.strike is not None and leaves_an_orphan(runner.strike) and self._chance.random() < 0.5:
            return ADOPTION
        strikes = strikes_of(runner.role, self._chance, whole=study.is_whole)
        if runner.role == "receive" and node.receivers > 1:
            strikes = [replace(one, apart=True) for one in strikes]
        return self._tally.rarest(strikes, self._chance)

    def _look(self, node: TorturedNode) -> None:
        """Check the invariants, and say which strikes they were checked after."""
        found = judge(node.state, node.witness, node.studies)
        if found.violations:
            raise _Broken(found)
        self._last = found
        self._struck = []

    # ------------------------------------------------------------------------------------ its end

    def _grow_old(self, node: TorturedNode) -> None:
        """Die in a checkpoint of the log, then in the housekeeping; at last nothing is left but rows."""
        with self._tally.lock:
            self._tally.objects += self._last.objects
            self._tally.reports += self._last.reports
            self._tally.alerts += self._last.alerts
            self._tally.repeats += self._last.repeats
        for role in ("work", "deliver"):
            node.roles.pop(role).stop()
        node.roles["receive"].kill()
        node.receivers = 1
        node.configure()
        # a checkpoint a moment ago leaves a log of few pages: a place behind its last is never reached
        nth = self._chance.randint(1, max(1, min(8, pages_in_log(node.state))))
        child = node.start("receive", within=["checkpoint", nth])
        node.wait(lambda: child.says(READY["receive"]), "receive is ready")
        child.signal(signal.SIGTERM)
        self._expect_death(node, child, CHECKPOINT)
        node.start_ready("receive")
        self._look(node)
        for strike in self._ends():
            (node.state / "results" / "left.part").write_bytes(b"")  # by a worker that was killed
            if node.expire(**strike.arms) == -signal.SIGKILL:
                with self._tally.lock:
                    self._tally.provoked[strike.label] += 1
                self._struck.append(strike)
            node.roles["receive"].kill()
            node.start_ready("receive")  # takes in what was forgotten and is still there
        node.expire()
        left = [path.name for path in node.state.rglob("*") if path.suffix in (".dcm", ".part")]
        if left:
            raise Violation(f"past its days, and still there: {left}")
        node.roles["receive"].stop()

    def _ends(self) -> list[Strike]:
        """Strikes at the housekeeping, in an order in which each still finds something to forget."""
        by_place = {one.place: one for one in strikes_of("expire", self._chance)}
        of_images = self._tally.rarest([by_place["images-forgotten"], by_place["commit-after"]], self._chance)
        return [by_place["stray-before-unlink"], by_place["commit-before"], of_images, by_place["results-forgotten"]]

    def _expect_death(self, node: TorturedNode, child: Child, strike: Strike) -> None:
        if not child.ended.wait(60) or child.status != -signal.SIGKILL:
            raise Violation(f"{strike.label} was not reached: {child.status}")
        node.roles.pop(strike.role, None)
        with self._tally.lock:
            self._tally.provoked[strike.label] += 1
        self._struck.append(strike)


def pages_in_log(state: Path) -> int:
    """Count the pages that a checkpoint of a log without users would write.

    Format: https://www.sqlite.org/fileformat2.html#walformat.
    """
    log = next(state.glob("*.sqlite-wal")).read_bytes()  # it was killed: there is one
    salts, size = log[16:24], int.from_bytes(log[8:12], "big")
    pages: set[bytes] = set()
    committed = 0
    for begin in range(32, len(log), 24 + size):
        if log[begin + 8 : begin + 16] != salts:  # of the log before
            break
        pages.add(log[begin : begin + 4])
        committed = len(pages) if any(log[begin + 4 : begin + 8]) else committed
    return committed
