"""The campaign of power cuts: one node is recorded while it works; then the power fails at many places of the record.

Each time the disk is made as it may be then, the node is started over it, the sender sends what it had no answer for,
and everything is judged by what had been answered, delivered and told before the cut.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from tests.torture.fork_server import ForkServer
from tests.torture.invariants import judge
from tests.torture.node import Ports, TorturedNode, Violation
from tests.torture.peers import ALERTS, ANSWERS, BEGUN, COMMITMENTS, REPORTS
from tests.torture.replay import Counts, Record, cut, every_sync, read_journal
from tests.torture.studies import SHORT, WHOLE, SentStudy, write_study

_NOTES = (BEGUN, ANSWERS, REPORTS, ALERTS, COMMITMENTS)


@dataclass
class CutTally:
    """What came of the cuts."""

    cuts: int = 0
    answered: int = 0
    """Objects that had been answered with success before the cut, of all cuts together."""
    delivered: int = 0
    told: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    violations: list[str] = field(default_factory=list)
    caught: int = 0
    """Cuts after which something did not hold."""
    of_kind: Counter[str] = field(default_factory=Counter)
    lock: Lock = field(default_factory=Lock)


@dataclass
class Recording:
    """A node's work as it reached the disk, with what its peers noted, in one order."""

    records: Sequence[Record]
    state: Path
    witness: Path
    ports: Ports
    studies: Sequence[SentStudy]

    def places(self, number: int, seed: int) -> list[int]:
        """Choose cuts: half of them anywhere, half just after a peer noted something."""
        chance = random.Random(seed)
        noted = [
            index + 1
            for index, one in enumerate(self.records)
            if one.kind == "W" and one.path.endswith((ANSWERS, REPORTS, ALERTS, COMMITMENTS))
        ]
        return [chance.choice(noted) if turn % 2 else chance.randint(1, len(self.records)) for turn in range(number)]

    def after_notes(self, *names: str) -> list[int]:
        """List the cuts that come just after a peer noted something."""
        return [at + 1 for at, one in enumerate(self.records) if one.kind == "W" and Path(one.path).name in names]


def record(server: ForkServer, folder: Path, studies: int = 3) -> Recording:
    """Let a node work on some studies, and record it from its very first start to the end of its work."""
    node = TorturedNode(server, folder / "node", folder / "witness", journal=folder / "journal")
    peers = node.start_peers()
    for role in ("receive", "work", "deliver"):
        node.start_ready(role)
    for number in range(studies):
        study = write_study(folder / f"study-{number}", number, SHORT if number == 1 else WHOLE)
        sender = node.send(study)
        node.wait(sender.ended.is_set, "a study is sent")
    node.wait(lambda: node.settled(node.studies), "all is settled")
    found = judge(node.state, node.witness, node.studies)
    assert not found.violations, found.violations
    for role in list(node.roles):
        node.roles.pop(role).stop()
    peers.stop()
    return Recording(read_journal(folder / "journal"), node.state, node.witness, node.ports, tuple(node.studies))


def _move(state: Path, was: Path) -> None:
    """Say in ``installation.json`` that the node lives here now: else it takes itself for a copy, and rightly so."""
    installation = state / "installation.json"
    if installation.exists():
        installation.write_bytes(installation.read_bytes().replace(str(was).encode(), str(state).encode()))


class CutCampaign:
    """Cuts of one recording, one after the other: results name the PACS by its port."""

    def __init__(self, server: ForkServer, recording: Recording, folder: Path, tally: CutTally, seed: int) -> None:
        self._server, self._recording, self._folder, self._tally = server, recording, folder, tally
        self._seed = seed

    def run(
        self,
        places: Sequence[int],
        counts: Counts = every_sync,
        *,
        settles: bool = True,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Cut the power at each place; the node stays where it is to be looked at.

        Args:
            counts: which syncs of the record are believed; where not all are, a cut is to be caught.
            settles: the node works on until all is settled; False: it is only started.
        """
        for number, at in enumerate(places):
            if enough():
                return
            folder = self._folder / f"cut-{number:04d}"
            troubles = self._cut(folder, at, self._seed + number, counts, settles=settles)
            with self._tally.lock:
                self._tally.cuts += 1
                self._tally.of_kind[self._kind(at)] += 1
                self._tally.caught += bool(troubles)
                self._tally.violations += [f"{text} (cut at {at}, seed {self._seed + number})" for text in troubles]
            if bool(troubles) is not (counts is every_sync):
                shutil.rmtree(folder)

    def _kind(self, at: int) -> str:
        """Say what the last record before the cut is."""
        one = self._recording.records[at - 1]
        if Path(one.path).is_relative_to(self._recording.witness):
            return f"after a note: {Path(one.path).stem}"
        words = {"W": "write", "S": "sync", "T": "truncation", "C": "creation", "R": "rename", "U": "removal",
                 "M": "new folder"}  # fmt: skip
        what = "database" if ".sqlite" in one.path else "file or folder"
        return f"after a {words[one.kind]}: {what}"

    def _cut(self, folder: Path, at: int, seed: int, counts: Counts, *, settles: bool) -> list[str]:
        recording = self._recording
        node = TorturedNode(self._server, folder / "node", folder / "witness", recording.ports)
        node.state.mkdir()
        cut(recording.records, at, node.state, recording.state, seed, counts)
        _move(node.state, recording.state)
        begun = self._give_notes(node.witness, at)
        node.studies = [one for one in recording.studies if one.folder.name in begun]
        try:
            return self._live_on(node, settles=settles)
        except Violation as violation:
            with self._tally.lock:
                self._tally.wrong += 1
            return [str(violation)]
        finally:
            node.kill_roles()

    def _give_notes(self, witness: Path, at: int) -> set[str]:
        """Peers know what they knew when the power failed; no cut takes that from them."""
        lines: dict[str, bytes] = dict.fromkeys(_NOTES, b"")
        for one in self._recording.records[:at]:
            name = Path(one.path).name
            if one.kind == "W" and name in lines:
                lines[name] += one.data
        for name, content in lines.items():
            (witness / name).write_bytes(content)
        with self._tally.lock:
            self._tally.answered += sum(json.loads(line)["status"] == 0 for line in lines[ANSWERS].splitlines())
            self._tally.delivered += len(lines[REPORTS].splitlines())
            self._tally.told += len(lines[ALERTS].splitlines())
        return {json.loads(line)["study"] for line in lines[BEGUN].splitlines()}

    def _live_on(self, node: TorturedNode, *, settles: bool) -> list[str]:
        node.start_ready("receive")
        troubles = self._judge(node, settled=False)
        if troubles or not settles:
            return troubles
        peers = node.start_peers()
        try:
            for role in ("work", "deliver"):
                node.start(role)
            senders = [node.send(study) for study in list(node.studies)]
            node.wait(lambda: all(one.ended.is_set() for one in senders), "what had no answer is sent again")
            node.wait(lambda: node.settled(node.studies), "all is settled")
            return self._judge(node, settled=True)
        finally:
            peers.stop()

    def _judge(self, node: TorturedNode, *, settled: bool) -> list[str]:
        found = judge(node.state, node.witness, node.studies, settled=settled)
        if found.violations:
            with self._tally.lock:
                self._tally.lost += len(found.lost)
                self._tally.doubled += len(found.doubled)
                self._tally.wrong += len(found.wrong)
        return found.violations
