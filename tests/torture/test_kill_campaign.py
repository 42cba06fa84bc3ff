"""kill -9 at every place there is, restart, and one check from outside: nothing lost, doubled or mixed up."""

from __future__ import annotations

import signal
import sqlite3
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.provoked import Provoked, tell
from tests.torture import kills
from tests.torture.fork_server import ForkServer
from tests.torture.invariants import Judgement
from tests.torture.kills import KillCampaign, Tally, pages_in_log
from tests.torture.node import READY, TorturedNode
from tests.torture.strikes import every_label, is_of_the_end

_NODES = 2


@pytest.mark.timeout(900)
def test_killed_at_every_place_the_node_loses_nothing_doubles_nothing_and_mixes_nothing_up(
    request: pytest.FixtureRequest, fork_server: ForkServer, tmp_path: Path
) -> None:
    tally, every = Tally(), set(every_label())
    while_it_works = {label for label in every if not is_of_the_end(label)}

    def enough() -> bool:
        return bool(tally.violations) or while_it_works <= set(tally.provoked)

    campaigns = [KillCampaign(fork_server, tmp_path / str(seed), tally, seed, enough) for seed in range(_NODES)]
    threads = [threading.Thread(target=campaign.run) for campaign in campaigns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert tally.violations == []
    assert set(tally.provoked) >= every
    assert tally.objects > 0
    assert tally.reports > 0
    assert tally.alerts > 0
    waited_s, peak_mib = max(tally.seen.outage_s.values()), max(tally.seen.peak_mib.values())
    what = f"kill -9 at {len(every)} places; {tally.objects} objects answered with success"
    tell(request, Provoked(what, tally.kills, sum(tally.lost.values()), "no answer, then success", waited_s, peak_mib))


@pytest.mark.timeout(900)
def test_what_does_not_hold_is_blamed_once(
    fork_server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "judge", lambda *_, **__: Judgement(lost=["an object"]))
    tally = Tally()
    KillCampaign(fork_server, tmp_path, tally, 1, lambda: bool(tally.violations)).run()
    assert len(tally.violations) == 1
    assert tally.violations[0].startswith("an object (after ")
    assert set(tally.lost.values()) == {1}
    assert not any(tally.wrong.values())
    assert (tmp_path / "node-001").exists(), "it is kept to be looked at"


def test_every_page_of_a_short_log_is_a_place_to_die_at_in_its_checkpoint(
    fork_server: ForkServer, tmp_path: Path
) -> None:
    node = TorturedNode(fork_server, tmp_path / "node", tmp_path / "witness")
    node.start_ready("receive").stop()  # the first start migrates; its end leaves no log
    for beyond, expected in ((0, -signal.SIGKILL), (1, 0)):
        node.start_ready("receive")
        with closing(sqlite3.connect(node.state / "ich-node.sqlite")) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = version_num")
        node.roles["receive"].kill()
        pages = pages_in_log(node.state)
        assert pages > 0
        child = node.start("receive", within=["checkpoint", pages + beyond])
        node.wait(partial(child.says, READY["receive"]), "receive is ready")
        child.stop()
        assert child.status == expected
    node.kill_roles()
