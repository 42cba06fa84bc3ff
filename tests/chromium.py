"""A node with its pages, a small PACS and accounts, and a real browser that looks at them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from pydicom.uid import generate_uid

from ich_node.pacs import SmallPacs
from ich_node.phantom import PhantomSettings, make_series
from tests.alert_peers import listener
from tests.running import NodeProcesses, free_port, settings, storescu

CHROMIUM = "/usr/bin/chromium"
PASSWORD = "correct horse battery staple"
PEOPLE = {"vera": "viewer", "rita": "reader", "rob": "reader", "olga": "operator"}
HEAD = PhantomSettings(lesion="subdural", slices=12, rows=64, slice_spacing_mm=11)
LONGEST_MS = 60_000


@dataclass
class Pages:
    """The pages of a node that runs, and who may log in: `PEOPLE`."""

    node: NodeProcesses
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.node.values['web']['port']}"

    def files(self, head: PhantomSettings = HEAD, **texts: str) -> tuple[str, list[Path]]:
        """Write a head CT of a study of its own, with other texts in its headers; give its UID and files."""
        uid = str(generate_uid())
        folder = self.folder / uid
        folder.mkdir()
        paths = []
        for number, instance in enumerate(make_series(replace(head, study_instance_uid=uid)), start=1):
            instance.SpecificCharacterSet = "ISO_IR 192"
            for keyword, text in texts.items():
                setattr(instance, keyword, text)
            paths.append(folder / f"{number:04d}.dcm")
            instance.save_as(paths[-1], enforce_file_format=True)
        return uid, paths

    def send(self, paths: list[Path]) -> None:
        sent = storescu(paths, self.node.port)
        assert sent.returncode == 0, sent.stderr

    def analysed(self, head: PhantomSettings = HEAD, **texts: str) -> str:
        """Send a head CT and wait for its report; give its Study Instance UID."""
        uid, paths = self.files(head, **texts)
        self.send(paths)
        assert self.node.wait_settled(uid).triage is not None
        return uid

    def log_in(self, page: Page, name: str = "rita") -> None:
        page.goto(f"{self.url}/login")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{self.url}/")

    def open_study(self, page: Page, uid: str, name: str = "rita") -> None:
        """Log in, open a study, and wait until its first slice is drawn."""
        self.log_in(page, name)
        page.goto(f"{self.url}/studies/{uid}")
        expect(page.locator("#stage[data-shown]")).to_be_visible()


@contextmanager
def pages_of_a_node(folder: Path, model: Path, *, people: dict[str, str] = PEOPLE, **sections: Any) -> Iterator[Pages]:
    """Run a node with its pages, in which every answer alerts somebody, beside a small PACS."""
    with ExitStack() as stack:
        ris = stack.enter_context(listener("mllp", folder, "AA"))
        pacs = stack.enter_context(SmallPacs(folder / "pacs"))
        every = ["positive", "indeterminate", "negative"]
        chosen: dict[str, Any] = {
            "web": {"enabled": True, "port": free_port()},
            "alert_hl7": [{"name": "ris", "host": "127.0.0.1", "port": ris.port}],
            "alert_rule": [{"tell": ["ris"], "triage": every}],
        }
        values = settings(folder / "state", model, destinations=[("pacs", pacs.port)], **(chosen | sections))
        node = stack.enter_context(NodeProcesses(folder, values, roles=("receive", "work", "deliver", "web")))
        _add_people(node, people)
        yield Pages(node, folder)


def _add_people(node: NodeProcesses, people: dict[str, str]) -> None:
    """Make accounts by the command, as an administrator does; all at the same time, since each starts a program."""
    command = [sys.executable, "-m", "ich_node", "user", "add", "--password-stdin", "--config", str(node.config_path)]
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen([*command, "--role", role, name], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            )
            for name, role in people.items()
        ]
        for one in running:
            one.communicate(f"{PASSWORD}\n".encode())
            assert one.returncode == 0


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium without a window; a test that has none is skipped."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is absent: Debian's package chromium (scripts/setup installs it as root)")
    expect.set_options(timeout=LONGEST_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def row_of(page: Page, uid: str) -> Locator:
    """The line of a study in the worklist."""
    return page.locator(f'tr[data-study="{uid}"]')
