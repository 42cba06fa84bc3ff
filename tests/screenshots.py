"""Pictures of every page at three widths, for docs/web.md: ``python -m tests.screenshots [FOLDER]``.

A node with the model that ships, a small PACS and a RIS; heads that are drawn, and nobody's names. Each page becomes
one picture: phone, desk and wide, side by side.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import delete, func, select

from ich_node.config import load_config
from ich_node.database import Database, DriftLookRow, SecondOpinionRow, open_database
from ich_node.drift_watch import look_and_keep
from ich_node.job_queue.model_choices import choose_model, model_in_use
from ich_node.model_shelf import shelved_model
from ich_node.phantom import PhantomSettings
from ich_node.records import ModelUse
from tests.chromium import Pages, chromium, pages_of_a_node
from tests.measured import GROUPS, measure
from tests.running import wait_for

ROOT: Final = Path(__file__).parents[1]
WIDTHS: Final = {"phone": (390, 844), "desk": (1280, 800), "wide": (2560, 1440)}
HEIGHT: Final = 560
GAP: Final = 12
PEOPLE: Final = {"rita": "reader", "ada": "administrator"}
NODE_PAGES: Final = ("series", "deliveries", "alerts", "models", "accounts", "configuration", "audit")
SECOND: Final = "ich-irv2-next"
STUDIES: Final = (
    (PhantomSettings(lesion="subdural"), "Berg^Anna", "A-1041"),
    (PhantomSettings(lesion=None), "Nowak^Piotr", "A-1042"),
    (PhantomSettings(lesion="intraparenchymal"), "Yamada^Tarou=山田^太郎", "A-1043"),
)


def take_pictures(folder: Path) -> None:
    """Run a node, fill it, and write a picture of each page at each width."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        pages_of_a_node(Path(scratch), _copies_of_the_model(Path(scratch)), people=PEOPLE) as pages,
        chromium() as browser,
    ):
        _score_in_silence(pages, Path(scratch) / SECOND)
        studies = [
            pages.analysed(head, PatientName=name, AccessionNumber=accession, StationName=f"CT{number}")
            for number, (head, name, accession) in enumerate(STUDIES, start=1)
        ]
        database = open_database(pages.node.config.database_url)
        wait_for(lambda: _count_opinions(database) == len(STUDIES), "the second model has scored all")
        database.close()
        for width in WIDTHS:
            _at_a_width(browser, pages, studies[-1], width, Path(scratch))
        _let_drift_be_found(pages)
        for width in WIDTHS:
            _drift_at_a_width(browser, pages, width, Path(scratch))

        _put_side_by_side(Path(scratch), folder)


def _copies_of_the_model(folder: Path) -> Path:
    """Copy it: the page of the configuration shows where it lies, and where we work is nobody's business.

    Beside it a second one that calls less positive, for the page of models.
    """
    model = shutil.copytree(ROOT / "models/ich-irv2", folder / "ich-irv2")
    manifest = shutil.copytree(model, folder / SECOND) / "manifest.json"
    stated = json.loads(manifest.read_text()) | {"version": "1.1.0"}
    stated["thresholds"]["any"] = {"low": 0.5, "high": 0.8}
    manifest.write_text(json.dumps(stated))
    return model


def _score_in_silence(pages: Pages, directory: Path) -> None:
    """Choose a silent model, and wait until the worker has it."""
    config = pages.node.config
    database = open_database(config.database_url)
    model, directory = shelved_model(directory.resolve()), config.model.directory
    choose_model(database, ModelUse.SILENT, model, reason="compare before the release", by="ada", configured=directory)
    wait_for(lambda: model_in_use(database, ModelUse.SILENT, directory), "a silent model is in use")
    database.close()


def _count_opinions(database: Database) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(SecondOpinionRow)).scalar_one()


def _let_drift_be_found(pages: Pages) -> None:
    """Enter what some months would have measured, and look: last, since the other pages would show it, too."""
    config = load_config(pages.node.config_path)
    database = open_database(config.database_url, 30.0)
    measure(database, GROUPS, time.time(), first_id=1000)
    with database.writing() as connection:
        connection.execute(delete(DriftLookRow))  # that of the housekeeping, soon after the start: there is one a day
    database.close()
    look_and_keep(config.database_url, 30.0, config.drift.rules)


def _put_side_by_side(taken: Path, folder: Path) -> None:
    for desk in sorted(taken.glob("*-desk.png")):
        name = desk.name.removesuffix("-desk.png")
        pictures = [Image.open(taken / f"{name}-{width}.png").convert("RGB") for width in WIDTHS]
        for one, (columns, rows) in zip(pictures, WIDTHS.values(), strict=True):
            one.thumbnail((columns * HEIGHT // rows, HEIGHT), Image.Resampling.LANCZOS)
        sheet = Image.new("RGB", (sum(one.width for one in pictures) + GAP * (len(pictures) - 1), HEIGHT), "gray")
        left = 0
        for one in pictures:
            sheet.paste(one, (left, 0))
            left += one.width + GAP
        sheet.save(folder / f"web-{name}.png", optimize=True)


def _at_a_width(browser: Browser, pages: Pages, uid: str, width: str, folder: Path) -> None:
    columns, rows = WIDTHS[width]
    page = browser.new_page(viewport={"width": columns, "height": rows})
    page.goto(f"{pages.url}/login")
    _keep(page, folder, "login", width)
    pages.open_study(page, uid)
    if width == "phone":
        page.keyboard.press("a")
    page.keyboard.press("h")
    page.wait_for_timeout(1500)  # the map is blended in
    _keep(page, folder, "study", width)
    for name, address in (("worklist", "/"), ("concordance", "/concordance")):
        page.goto(pages.url + address)
        _keep(page, folder, name, width)
    page.close()
    page = browser.new_page(viewport={"width": columns, "height": rows}, color_scheme="light")
    pages.log_in(page, "ada")
    for name in ("", *NODE_PAGES):
        page.goto(f"{pages.url}/node/{name}" if name else f"{pages.url}/node")
        _keep(page, folder, f"node-{name}" if name else "node", width)
    page.close()


def _drift_at_a_width(browser: Browser, pages: Pages, width: str, folder: Path) -> None:
    columns, rows = WIDTHS[width]
    page = browser.new_page(viewport={"width": columns, "height": rows})
    pages.log_in(page, "ada")
    page.goto(f"{pages.url}/drift")
    _keep(page, folder, "drift", width)
    page.close()


def _keep(page: Page, folder: Path, name: str, width: str) -> None:
    expect(page.locator("body")).to_be_visible()
    page.screenshot(path=folder / f"{name}-{width}.png")


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs/pictures"))
