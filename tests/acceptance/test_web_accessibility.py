"""axe-core, which knows the rules of WCAG, finds no serious problem on the pages, in the dark and in the light."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.chromium import LONGEST_MS, Pages, chromium, pages_of_a_node, row_of

AXE = Path(__file__).parents[2] / "build" / "axe" / "package" / "axe.min.js"
SIZES = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.exists():
        pytest.skip("axe-core is absent: scripts/setup fetches it with npm, where its registry can be reached")
    return AXE.read_text()


@pytest.fixture(scope="module")
def browser(axe: str) -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, browser: Browser, tiny_bundle: Path) -> Iterator[Pages]:
    with pages_of_a_node(tmp_path_factory.mktemp("pages"), tiny_bundle, people={"rita": "reader"}) as running:
        yield running


def problems(page: Page, axe: str) -> list[str]:
    """Name what is wrong, serious or critical, and the elements that show it."""
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert found["passes"], "axe looked at something"
    return [
        f"{one['id']}: {node['html'][:120]} - {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("size", ["desk", pytest.param("phone", marks=pytest.mark.slow)])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_page_has_a_serious_problem(
    pages: Pages, browser: Browser, axe: str, theme: str, size: str, study: str
) -> None:
    context = browser.new_context(bypass_csp=True, viewport=SIZES[size], reduced_motion="reduce")
    context.add_init_script(f"localStorage.theme = '{theme}'")
    page = context.new_page()
    page.set_default_timeout(LONGEST_MS)
    page.goto(f"{pages.url}/login")
    found = problems(page, axe)
    pages.log_in(page)
    expect(row_of(page, study)).to_be_visible()
    found += problems(page, axe)
    page.goto(f"{pages.url}/studies/{study}")
    expect(page.locator("#stage[data-shown]")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("data-theme", theme)
    page.keyboard.press("d")
    expect(page.get_by_label("Note")).to_be_visible()
    found += problems(page, axe)
    context.close()
    assert found == []


@pytest.fixture(scope="module")
def study(pages: Pages) -> str:
    return pages.analysed(PatientName="Looked^At")
