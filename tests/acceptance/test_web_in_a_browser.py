"""What people see and do on the pages, in a real browser, with a whole node behind them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect
from sqlalchemy import func, select

from ich_node.accounts import end_sessions_of
from ich_node.database import AccountRow, SessionRow, open_database
from tests.chromium import HEAD, LONGEST_MS, PASSWORD, Pages, chromium, pages_of_a_node, row_of
from tests.running import wait_for

SCRIPT = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
NewPage = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, browser: Browser, tiny_bundle: Path) -> Iterator[Pages]:
    with pages_of_a_node(tmp_path_factory.mktemp("pages"), tiny_bundle) as running:
        yield running


@pytest.fixture(scope="module")
def study(pages: Pages) -> str:
    """A study with an answer, a report in the PACS and an alert."""
    return pages.analysed(PatientName="Zimmermann^Hanna")


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    """Opens browsers; what a page says of errors fails the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def make(**options: Any) -> Page:
        contexts.append(browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options)))
        page = contexts[-1].new_page()
        page.set_default_timeout(LONGEST_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if is_fault(message) else None)
        return page

    yield make
    for one in contexts:
        one.close()
    assert errors == []


def is_fault(message: ConsoleMessage) -> bool:
    """Tell a fault of a page from what browsers write of every 401."""
    return message.type == "error" and "401 (Unauthorized)" not in message.text


def at(page: Page) -> int:
    return int(page.evaluate("viewer.at"))


def window_of(page: Page) -> tuple[float, float]:
    center, width = page.evaluate("[viewer.center, viewer.width]")
    return center, width


def is_drawn(page: Page, index: int) -> None:
    """Wait until a slice is drawn."""
    key = page.evaluate("(index) => viewer.slices[index].key", index)
    expect(page.locator("#stage")).to_have_attribute("data-shown", key)


# ------------------------------------------------------------------------------------------ what arrives


def test_a_study_arrives_while_one_looks_and_its_finding_turns_up_without_a_reload(
    pages: Pages, new_page: NewPage
) -> None:
    page = new_page()
    pages.log_in(page)
    expect(page.locator("#live")).to_have_text("live")
    page.evaluate("window.loadedOnce = true")
    uid, files = pages.files(PatientName="Arriving^Live")
    line = row_of(page, uid)
    for count in (4, 8, 12):
        pages.send(files[count - 4 : count])
        expect(line.locator("td.slices")).to_have_text(str(count))
    expect(line).to_contain_text("Arriving, Live")
    expect(line.locator(".probability")).to_be_visible()
    expect(line).to_contain_text("in pacs")
    assert page.evaluate("window.loadedOnce") is True


def test_an_open_study_shows_the_slices_and_the_finding_that_come_later(pages: Pages, new_page: NewPage) -> None:
    uid, files = pages.files(PatientName="Growing^Study")
    pages.send(files[:6])
    page = new_page()
    pages.open_study(page, uid)
    page.evaluate("window.loadedOnce = true")
    expect(page.locator("#where")).to_contain_text(re.compile("/ 6"))
    before = page.evaluate("viewer.slices[viewer.at].key")
    pages.send(files[6:])
    expect(page.locator("#where")).to_contain_text(re.compile("/ 12"))
    assert page.evaluate("viewer.slices[viewer.at].key") == before, "one stays where one looks"
    expect(page.locator(".headline .probability")).to_be_visible()
    assert page.evaluate("window.loadedOnce") is True


def test_two_browsers_see_the_same(pages: Pages, study: str, new_page: NewPage) -> None:
    one, two = new_page(), new_page()
    pages.log_in(one, "rita")
    pages.log_in(two, "rob")
    for page in (one, two):
        expect(row_of(page, study)).to_be_visible()
    uid = pages.analysed(PatientName="Seen^Twice")
    for page in (one, two):
        expect(row_of(page, uid)).to_contain_text("Seen, Twice")
        expect(row_of(page, uid)).to_contain_text("told")
    one.goto(f"{pages.url}/studies/{uid}")
    one.get_by_role("button", name="Acknowledge").click()
    expect(one.locator("#answer")).to_contain_text("seen by rita")
    expect(row_of(two, uid)).to_contain_text("seen by rita")


# -------------------------------------------------------------------------------------------- the viewer


def test_a_series_is_scrolled_by_wheel_keys_and_strip(pages: Pages, study: str, new_page: NewPage) -> None:
    page = new_page()
    pages.open_study(page, study)
    assert page.evaluate("viewer.slices.length") == HEAD.slices
    begun, drawn = at(page), page.evaluate("viewer.drawn")
    page.locator("#stage").hover()
    page.mouse.wheel(0, 120)
    is_drawn(page, begun + 1)
    page.keyboard.press("ArrowUp")
    is_drawn(page, begun)
    page.keyboard.press("End")
    is_drawn(page, HEAD.slices - 1)
    page.keyboard.press("ArrowDown")
    assert at(page) == HEAD.slices - 1, "nothing lies beyond the last"
    box = page.locator("#strip").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 2.5 / HEAD.slices, box["y"] + box["height"] / 2)
    is_drawn(page, 2)
    assert page.evaluate("viewer.drawn") >= drawn + 4
    expect(page.locator("#where")).to_contain_text(f"3 / {HEAD.slices}")
    expect(page.locator("#strip")).to_have_attribute("aria-valuenow", "3")


def test_the_window_follows_presets_keys_and_the_mouse(pages: Pages, study: str, new_page: NewPage) -> None:
    page = new_page()
    pages.open_study(page, study)
    grey = "[...viewer.canvas.getContext('2d').getImageData(0, 0, 64, 64).data].reduce((sum, one) => sum + one, 0)"
    assert window_of(page) == (40, 80)
    in_brain = page.evaluate(grey)
    page.get_by_role("button", name="Bone").click()
    assert window_of(page) == (600, 2800)
    expect(page.get_by_role("button", name="Bone")).to_have_attribute("aria-pressed", "true")
    wait_for(lambda: page.evaluate(grey) != in_brain, "the slice is drawn anew")
    page.keyboard.press("2")
    assert window_of(page) == (80, 200)
    box = page.locator("#stage").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y + 10)
    page.mouse.up()
    assert window_of(page) == (90, 240)
    expect(page.locator("#window")).to_have_text("C 90  W 240")
    page.mouse.move(x, y)
    assert window_of(page) == (90, 240), "only while the button is held"


@pytest.mark.parametrize("size", [(390, 844), (844, 390), (1280, 800), (2560, 1440)])
def test_a_head_is_never_distorted(pages: Pages, study: str, new_page: NewPage, size: tuple[int, int]) -> None:
    page = new_page(viewport={"width": size[0], "height": size[1]})
    pages.open_study(page, study)
    # in one call: what is above the picture may still grow, and two calls would measure two layouts
    sizes = "['canvas', 'stage'].map((id) => document.getElementById(id).getBoundingClientRect().toJSON())"
    picture, stage = page.evaluate(sizes)
    assert picture["width"] == pytest.approx(picture["height"], abs=1), "the phantom's pixels are square"
    assert picture["height"] == pytest.approx(min(stage["width"], stage["height"]), abs=1)


def test_a_finger_turns_slices_and_two_fingers_change_the_window(pages: Pages, study: str, new_page: NewPage) -> None:
    page = new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    pages.open_study(page, study)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    box = page.locator("#stage").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    begun = at(page)
    fingers("touchStart", (x, y))
    fingers("touchMove", (x, y + 26))
    fingers("touchEnd")
    is_drawn(page, begun + 2)
    fingers("touchStart", (x, y))
    fingers("touchStart", (x, y), (x + 40, y))
    fingers("touchMove", (x, y), (x + 60, y + 10))
    fingers("touchEnd")
    wait_for(lambda: window_of(page) != (40, 80), "the window changes")
    assert at(page) == begun + 2


# ------------------------------------------------------------------------------------ what readers answer


def test_a_reader_agrees_and_disagrees_by_key(pages: Pages, new_page: NewPage) -> None:
    uid = pages.analysed(PatientName="Asked^Reader")
    page = new_page()
    pages.open_study(page, uid)
    page.keyboard.press("a")
    expect(page.locator("#answer")).to_contain_text("rita agrees")
    page.keyboard.press("d")
    expect(page.locator("#more")).to_be_visible()
    page.get_by_label("subdural").check()
    page.get_by_label("point at the slice that is shown").check()
    page.get_by_label("Note").fill("small, left")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#answer")).to_contain_text("rita disagrees")
    expect(page.locator("#answer")).to_contain_text("hemorrhage (subdural)")
    expect(page.locator("#answer")).to_contain_text("small, left")


def test_an_operator_has_a_study_analysed_again(pages: Pages, new_page: NewPage) -> None:
    uid = pages.analysed(PatientName="Again^Once")
    page = new_page()
    pages.open_study(page, uid, "olga")
    expect(page.locator("#facts")).to_contain_text("revision 1")
    page.get_by_text("For operators").click()
    page.get_by_role("button", name="Requeue").click()
    expect(page.get_by_role("status")).to_contain_text("1 series queued again")
    page.goto(f"{pages.url}/studies/{uid}")
    expect(page.locator("#facts")).to_contain_text("revision 2")


def test_numbers_and_dates_are_written_as_the_browsers_language_does(
    pages: Pages, study: str, new_page: NewPage
) -> None:
    said = {}
    for language, point in (("de-DE", ","), ("en-US", ".")):
        page = new_page(locale=language, timezone_id="Europe/Berlin")
        pages.log_in(page)
        said[language] = row_of(page, study).locator(".probability").inner_text()
        assert re.fullmatch(rf"\d+\{point}\d\s%", said[language])
        page.goto(f"{pages.url}/studies/{study}")
        expect(page.locator("#said")).to_contain_text(re.compile(rf"\d\{point}\d %"))
        clock = page.locator("time[data-clock]").first.inner_text()
        assert re.fullmatch(r"\d\d:\d\d:\d\d" if language == "de-DE" else r"\d\d?:\d\d:\d\d\s[AP]M", clock), clock
    assert said["de-DE"].replace(",", ".") == said["en-US"]


def test_everything_goes_by_the_keyboard_alone(pages: Pages, new_page: NewPage) -> None:
    uid = pages.analysed(PatientName="Key^Board")
    page = new_page()
    page.goto(f"{pages.url}/login")
    keys = page.keyboard
    keys.type("rob")
    keys.press("Tab")
    keys.type(PASSWORD)
    keys.press("Enter")
    page.wait_for_url(f"{pages.url}/")
    expect(row_of(page, uid)).to_be_visible()
    keys.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('tr').dataset.study") == uid, "the newest is the first"
    keys.press("Enter")
    expect(page.locator("#stage[data-shown]")).to_be_visible()
    keys.press("Home")
    is_drawn(page, 0)
    keys.press("ArrowDown")
    is_drawn(page, 1)
    keys.press("5")
    assert window_of(page) == (600, 2800)
    tab_to(page, "#acknowledge")
    keys.press("Enter")
    expect(page.locator("#answer")).to_contain_text("seen by rob")
    keys.press("d")
    expect(page.get_by_label("no hemorrhage")).to_be_focused()
    keys.press("Space")
    keys.press("Enter")
    expect(page.locator("#answer")).to_contain_text("rob disagrees")


def tab_to(page: Page, selector: str) -> None:
    """Press the key until an element has the focus, and see that it is marked wherever it goes."""
    for _ in range(60):
        if page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
            return
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    raise AssertionError(f"{selector} cannot be reached by the keyboard")


# ---------------------------------------------------------------------------------------- who may see what


def test_a_viewer_sees_findings_but_no_patient_and_no_image(pages: Pages, study: str, new_page: NewPage) -> None:
    page = new_page()
    pages.log_in(page, "vera")
    expect(row_of(page, study).locator(".probability")).to_be_visible()
    assert "Zimmermann" not in page.content()
    page.goto(f"{pages.url}/studies/{study}")
    expect(page.get_by_text("Images are for readers.")).to_be_visible()
    assert "Zimmermann" not in page.content()
    assert page.locator("#feedback, #acknowledge, canvas").count() == 0
    refused = page.request.get(f"{pages.url}/studies/{study}/slices")
    assert refused.status == 403
    assert page.request.post(f"{pages.url}/studies/{study}/feedback", data={"agrees": True}).status == 403


def test_a_session_that_ends_leads_to_the_login(pages: Pages, study: str, new_page: NewPage) -> None:
    page = new_page()
    pages.open_study(page, study, "olga")
    assert page.evaluate("typeof checkSession") == "function"
    database = open_database(pages.node.config.database_url)
    with database.reading() as connection:
        olga = select(AccountRow.id).where(AccountRow.name == "olga").scalar_subquery()
        open_ones = connection.execute(select(func.count()).where(SessionRow.account_id == olga)).scalar_one()
    try:
        assert end_sessions_of(database, "olga") == open_ones >= 1
    finally:
        database.close()
    try:
        page.evaluate("void checkSession()")
    except Error as error:
        if "context was destroyed" not in error.message:  # else the page asked by itself, and is on its way already
            raise
    page.wait_for_url(f"{pages.url}/login")
    assert "Zimmermann" not in page.content()


def test_wrong_passwords_are_refused(pages: Pages, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{pages.url}/")
    expect(page).to_have_url(f"{pages.url}/login")
    page.get_by_label("Name").fill("rita")
    page.get_by_label("Password").fill("something else")
    with page.expect_response("**/login") as answer:
        page.get_by_role("button", name="Log in").click()
    assert answer.value.status == 401
    expect(page.get_by_role("alert")).to_contain_text("wrong")


def test_text_from_dicom_is_never_markup(pages: Pages, new_page: NewPage) -> None:
    dialogs: list[str] = []
    name = "<script>alert(3)</script><b>bold</b>"  # an = would begin another writing of the name
    uid = pages.analysed(PatientName=name, PatientID=SCRIPT, StudyDescription=SCRIPT, StationName="<b>CT</b>")
    page = new_page()
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    pages.log_in(page)
    for text in (name, SCRIPT, "<b>CT</b>"):
        expect(row_of(page, uid)).to_contain_text(text)
    assert page.locator("#table img, #table b, #table script").count() == 0
    page.goto(f"{pages.url}/studies/{uid}")
    expect(page.locator("#stage[data-shown]")).to_be_visible()
    for text in (name, SCRIPT):
        expect(page.locator(".subject")).to_contain_text(text)
    assert page.locator("main img, header img, main b, header b, header script").count() == 0
    assert dialogs == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
def test_a_birth_date_that_names_no_day_stops_nothing_else(pages: Pages, new_page: NewPage) -> None:
    uid = pages.analysed(PatientBirthDate="19500000")
    page = new_page()
    pages.log_in(page)
    line = row_of(page, uid)
    expect(line).to_contain_text("1950-00-00")
    expect(line.locator("[data-age]").first).to_have_text(re.compile(r"\S"))
    expect(page.locator("#live")).to_have_text("live")
    pages.open_study(new_page(), uid)


# --------------------------------------------------------------------------------------------- everything else


@pytest.mark.slow
def test_with_the_worker_stopped_the_worklist_shows_what_is_received(pages: Pages, new_page: NewPage) -> None:
    page = new_page()
    pages.log_in(page)
    pages.node.kill("work")
    try:
        uid, files = pages.files(PatientName="Nobody^Works")
        pages.send(files)
        line = row_of(page, uid)
        expect(line.locator("td.slices")).to_have_text("12")
        expect(line).to_contain_text("In progress")
        line.get_by_role("link", name="In progress").click()
        expect(page.locator("#message")).to_contain_text("No image can be shown")
    finally:
        pages.node.restart("work")
    expect(page.locator(".headline .probability")).to_be_visible()
    expect(page.locator("#stage[data-shown]")).to_be_visible()


def test_light_and_dark_are_chosen_and_kept(pages: Pages, study: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{pages.url}/login")
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Light or dark").click()
    expect(root).to_have_attribute("data-theme", "light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    pages.open_study(page, study)
    expect(root).to_have_attribute("data-theme", "light")
