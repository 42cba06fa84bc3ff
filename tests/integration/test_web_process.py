"""The web process beside the others: behind a proxy, and killed while images come in."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ich_node.accounts import Role, add_account
from ich_node.database import open_database
from ich_node.phantom import PhantomSettings, write_series
from tests.auditing import recorded_in
from tests.browsing import PASSWORD, log_in
from tests.running import NodeProcesses, free_port, settings, storescu

FORWARDED = {"X-Forwarded-For": "203.0.113.9, 10.1.1.1", "X-Forwarded-Proto": "https"}


def served(folder: Path, roles: tuple[str, ...] = ("web",), **web: object) -> NodeProcesses:
    section = {"enabled": True, "port": free_port()} | web
    return NodeProcesses(folder, settings(folder / "state", Path("no-model"), web=section), roles)


def with_a_reader(node: NodeProcesses) -> httpx.Client:
    database = open_database(node.config.database_url)
    add_account(database, "reader", Role.READER, PASSWORD)
    database.close()
    return httpx.Client(base_url=f"http://127.0.0.1:{node.config.web.port}", timeout=30)


@pytest.fixture(params=[("127.0.0.0/8", "10.1.1.1"), ()], ids=["trusted", "nobody is trusted"])
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[bool, NodeProcesses]]:
    with served(tmp_path, trusted_proxies=list(request.param)) as node:
        yield bool(request.param), node


def test_what_a_proxy_says_counts_only_where_it_is_trusted(proxied: tuple[bool, NodeProcesses], tmp_path: Path) -> None:
    trusted, node = proxied
    with with_a_reader(node) as browser:
        browser.headers.update(FORWARDED)
        answer = log_in(browser, "reader")
    assert answer.status_code == 303
    assert ("Secure" in answer.headers["set-cookie"]) is trusted
    assert ("strict-transport-security" in answer.headers) is trusted
    (login,) = recorded_in(tmp_path / "state", "User Authentication")
    addresses = {one.get("NetworkAccessPointID") for one in login.root.iter("ActiveParticipant")}
    assert ("203.0.113.9" in addresses) is trusted
    assert ("127.0.0.1" in addresses) is not trusted


def test_a_web_process_that_is_killed_touches_no_image_that_comes_in(tmp_path: Path) -> None:
    write_series(tmp_path / "head", PhantomSettings(slices=12, rows=64, slice_spacing_mm=11))
    with served(tmp_path, ("receive", "web")) as node:
        browser = with_a_reader(node)
        log_in(browser, "reader")
        with browser.stream("GET", "/live") as stream:
            assert stream.status_code == 200
            node.kill("web")
            assert storescu([tmp_path / "head"], node.port).returncode == 0
        node.restart("web")
        listed = browser.get("/")
        browser.close()
        assert listed.status_code == 200, "the session outlives the process"
        assert '<td class="number slices">12</td>' in listed.text


def test_a_web_process_that_hangs_in_the_middle_of_pages_touches_no_image_that_comes_in(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "head", PhantomSettings(slices=12, rows=64, slice_spacing_mm=11))
    with served(tmp_path, ("receive", "web")) as node, with_a_reader(node) as browser:
        log_in(browser, "reader")
        for at in range(0, 12, 4):
            with ThreadPoolExecutor(16) as people:
                asked = [people.submit(browser.get, "/") for _ in range(32)]
                node.processes["web"].send_signal(signal.SIGSTOP)
                assert not all(one.done() for one in asked), "it hangs with pages that are asked for"
                assert storescu(paths[at : at + 4], node.port).returncode == 0
                node.processes["web"].send_signal(signal.SIGCONT)
                assert {one.result().status_code for one in asked} == {200}
        assert '<td class="number slices">12</td>' in browser.get("/").text
