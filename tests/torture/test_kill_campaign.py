"""kill -9 at every place there is, restart, and one check from outside: nothing lost, doubled or mixed up."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.torture.fork_server import ForkServer
from tests.torture.kills import KillCampaign, Tally
from tests.torture.strikes import every_label, is_of_the_end

_NODES = 2


@pytest.mark.timeout(900)
def test_killed_at_every_place_the_node_loses_nothing_doubles_nothing_and_mixes_nothing_up(
    fork_server: ForkServer, tmp_path: Path
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
