"""A node of several hosts: any host may be killed or cut off, and the database restarted, at any time.

Nothing that was answered with success is lost, nothing is said twice but the same object again, and work goes on when a
lease is over. Hosts are network namespaces; see ``tests/many_hosts``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.many_hosts.site import DELIVERERS, HOSTS, RECEIVERS, WORKERS, Site, running_site
from tests.torture.conftest import fork_server  # noqa: F401 - a fixture
from tests.torture.fork_server import ForkServer
from tests.torture.peers import ALERTS, REPORTS

_SHORT_S = 6.0
"""A lease: longer than a living process is ever kept waiting on a busy machine."""
_AS_SHIPPED_S = 60.0
_SEED = 20261129


@pytest.fixture
def site(fork_server: ForkServer, tmp_path: Path) -> Iterator[Site]:  # noqa: F811
    with running_site(fork_server, tmp_path, lease_s=_SHORT_S) as site:
        yield site


def test_hosts_die_or_are_cut_off_and_the_others_go_on(site: Site) -> None:
    site.wait_settled(site.send(4))
    undisturbed = site.judge()
    assert undisturbed.violations == []
    assert (undisturbed.objects, undisturbed.repeats) == (4 * 11, 0)
    assert undisturbed.reports == undisturbed.alerts == 4

    senders = site.send(6)
    receiver = site.wait_for_holder("open_association", RECEIVERS)
    site.kill(receiver)
    worker = site.wait_for_holder("series", WORKERS)
    site.kill(worker)
    site.network.cut(next(host for host in WORKERS if host != worker))
    deliverer = site.wait_for_holder("delivery", DELIVERERS)
    site.kill(deliverer)
    site.wait_settled(senders)  # by the one receiver, worker and deliverer that are left

    site.mend_everything()
    senders = site.send(2)
    site.restart_database(away_s=1.0)
    site.wait_settled(senders)

    found = site.judge()
    assert found.violations == []
    assert found.objects == 12 * 11
    assert found.reports >= 12
    assert found.alerts >= 12


@pytest.mark.slow
def test_whatever_dies_when_nothing_is_lost_or_said_twice(site: Site) -> None:
    chance = random.Random(_SEED)
    for _ in range(12):
        senders = site.send(3)
        time.sleep(chance.uniform(0.0, 2.0))
        _strike(site, chance)
        time.sleep(chance.uniform(0.0, 2.0))
        site.mend_everything()
        site.wait_settled(senders)
    found = site.judge()
    assert found.violations == []
    assert found.objects == 36 * 11


def _strike(site: Site, chance: random.Random) -> None:
    what = chance.choice(("kill", "kill", "cut", "database", "kill all of a role"))
    if what == "kill":
        for host in chance.sample(HOSTS, 2):
            site.kill(host)
    elif what == "cut":
        site.network.cut(chance.choice(HOSTS))
        time.sleep(chance.uniform(1.0, 2 * _SHORT_S))
    elif what == "database":
        site.restart_database(away_s=chance.uniform(0.0, 3.0))
    else:
        for host in chance.choice((RECEIVERS, WORKERS, DELIVERERS)):
            site.kill(host)


@pytest.mark.slow
def test_work_of_a_killed_worker_and_deliverer_goes_on_with_the_leases_as_shipped(
    fork_server: ForkServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    with running_site(fork_server, tmp_path, lease_s=_AS_SHIPPED_S) as site:
        senders = site.send(3)
        site.kill(site.wait_for_holder("series", WORKERS))
        site.kill(site.wait_for_holder("delivery", DELIVERERS))
        site.wait_settled(senders)
        found = site.judge()
        assert found.violations == []
        assert len(site.notes(REPORTS)) - found.repeats == found.reports
        assert len({one["identifier"] for one in site.notes(ALERTS)}) >= 3
