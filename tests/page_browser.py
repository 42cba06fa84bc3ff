"""A page of a real browser where somebody is logged in, and programs that log in as a browser does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests import browsing
from tests.browsing import PASSWORD
from tests.chromium import LONGEST_MS, chromium

__all__ = ["PASSWORD", "browser_page", "log_in"]


def log_in(client: httpx.Client, name: str) -> None:
    """Log a program in as a browser does."""
    assert browsing.log_in(client, name).status_code == 303


@contextmanager
def browser_page(url: str, name: str, width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A page of Debian's Chromium, logged in; what a script of it complains of fails the test."""
    complaints: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(LONGEST_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(f"{url}/login")
        page.fill("#name", name)
        page.fill("#password", PASSWORD)
        page.click("button.main")
        page.wait_for_selector("#table")
        yield page
    assert complaints == []
