"""The viewer in a real browser: from a click to the first slice, and slices a second while a key is held.

A node without a worker, so that what is measured is the pages alone: its slices were read beforehand.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tables import at_least, at_most, median_and_range, print_table
from ich_node.model.untrained import make_untrained_bundle
from ich_node.phantom import LESIONS, PhantomSettings, draw_volume
from tests.running import NodeProcesses, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page

HEAD = PhantomSettings(lesion="subdural", slices=36, rows=512)
STUDIES = 5
TARGET_FIRST_MS = 300.0
TARGET_SLICES_PER_S = 30.0
_HELD_S = 3.0
_LONGEST_MS = 120_000
_CHROMIUM = Path("/usr/bin/chromium")


def measure() -> int:
    """Measure and print the table."""
    if importlib.util.find_spec("playwright") is None or not _CHROMIUM.exists():
        print("viewer: skipped, playwright or chromium is missing (make setup)")
        return 0
    from tests.chromium import chromium, pages_of_a_node

    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        pages = stack.enter_context(pages_of_a_node(folder, _tiny_bundle(folder), people={"rita": "reader"}))
        studies = [pages.analysed(HEAD) for _ in range(STUDIES)]
        _stop_worker(pages.node)
        page = stack.enter_context(chromium()).new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(_LONGEST_MS)
        pages.log_in(page)
        first = [_first_slice_ms(page, pages.url, uid) for uid in studies]
        again = [_first_slice_ms(page, pages.url, uid) for uid in studies]
        held = [_slices_per_s(page, key) for key in ("ArrowDown", "ArrowUp")]
    head = ("36 slices of 512 x 512 on loopback", "measured", "wanted")
    return print_table(
        "The viewer, in Chromium without a window",
        head,
        [
            (
                "click to first slice, ms",
                median_and_range(first, 0),
                at_most(statistics.median(first), TARGET_FIRST_MS, "ms"),
            ),
            (
                "the same study again, ms",
                median_and_range(again, 0),
                at_most(statistics.median(again), TARGET_FIRST_MS, "ms"),
            ),
            (
                "slices a second, key held",
                median_and_range(held, 0),
                at_least(statistics.median(held), TARGET_SLICES_PER_S, "a second"),
            ),
        ],
    )


def _tiny_bundle(folder: Path) -> Path:
    heads = [
        draw_volume(PhantomSettings(lesion=one, slices=8, rows=64, slice_spacing_mm=16)) for one in (None, *LESIONS)
    ]
    make_untrained_bundle(folder / "tiny", heads, backbone="test_resnet", size_px=64, name="tiny")
    return folder / "tiny"


def _stop_worker(node: NodeProcesses) -> None:
    node.kill("work")


def _first_slice_ms(page: Page, url: str, uid: str) -> float:
    """Click on a study in the worklist; give the time until its first slice is drawn, by the browser's clock."""
    page.goto(f"{url}/")
    link = page.locator(f'tr[data-study="{uid}"] td.finding a')
    link.wait_for()
    link.evaluate("(link) => { sessionStorage.clicked = performance.timeOrigin + performance.now(); link.click(); }")
    page.wait_for_url(f"**/studies/{uid}")
    wait_for(lambda: page.evaluate("window.viewer?.firstDrawnAt"), "a slice is drawn")
    return float(page.evaluate("viewer.firstDrawnAt - Number(sessionStorage.clicked)"))


def _slices_per_s(page: Page, key: str) -> float:
    """Hold an arrow key as a keyboard does that repeats as fast as it can, to and fro; give slices drawn a second."""
    wait_for(lambda: page.evaluate("viewer.pixels.size === viewer.slices.length"), "all slices are there")
    page.keyboard.press("Home" if key == "ArrowDown" else "End")
    drawn, began = page.evaluate("viewer.drawn"), time.perf_counter()
    other = {"ArrowDown": "ArrowUp", "ArrowUp": "ArrowDown"}
    presses = 0
    while time.perf_counter() - began < _HELD_S:
        page.keyboard.down(key)
        presses += 1
        if presses % (HEAD.slices - 1) == 0:
            page.keyboard.up(key)
            key = other[key]
    page.keyboard.up(key)
    return float((page.evaluate("viewer.drawn") - drawn) / (time.perf_counter() - began))
