"""Where a score comes from: the maps of key slices, beside the report and in the viewer."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from ich_node.accounts import Role, add_account
from ich_node.config import parse_config
from ich_node.database import ResultRow, SeriesRow
from ich_node.decode import DecodedPlane, DecodeLimits, DecoderPool, MemberFile
from ich_node.decode.plane import read_plane
from ich_node.housekeeping import delete_expired, remove_strays
from ich_node.job_queue import finding_from_json, load_content
from ich_node.job_queue.legal_holds import place_hold
from ich_node.pacs import send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.pictures import pictures_of_slices
from ich_node.pipeline import Model
from ich_node.rebuild import rebuild
from ich_node.records import SliceKey
from ich_node.report.slice_pictures import positive_shares
from ich_node.saved_maps import MAPS_SUFFIX, SavedMap, encode_maps, maps_beside, read_maps
from tests.integration.test_viewer_objects_sent import with_thresholds
from tests.page_browser import PASSWORD, browser_page, log_in
from tests.running import (
    NodeProcesses,
    PartsOfANode,
    free_port,
    leaks_a_socket,
    parts_of_a_node,
    settings,
    sockets_may_leak,
)
from tests.unit.queueing import change, rows

HEAD = PhantomSettings(lesion="subdural", slices=12, rows=64, slice_spacing_mm=11)


@pytest.fixture(scope="module")
def says_positive(tiny_model: Model) -> Model:
    return with_thresholds(tiny_model, 1e-6, 2e-6)


def report(node: PartsOfANode, folder: Path, head: PhantomSettings = HEAD) -> str:
    """Send a head; give its study's UID once it is reported."""
    uid = str(generate_uid())
    files = write_series(folder / uid, replace(head, study_instance_uid=uid, series_instance_uid=str(generate_uid())))
    assert send_study(files, "127.0.0.1", node.receiver.port, "ICH_NODE", "CT1") == len(files)
    node.settle()
    (study,) = node.status(uid).studies
    assert study.triage == "positive"
    return uid


def saved_maps(state: Path) -> list[Path]:
    return list(state.glob(f"results/*{MAPS_SUFFIX}"))


def computed(node: PartsOfANode, model: Model) -> dict[SliceKey, NDArray[np.uint8]]:
    """What `pictures.py` gives for the key slices, of the one series that is there, on one scale of 255."""
    (series,) = rows(node.database, SeriesRow)
    content = load_content(node.database, series.id, None)
    paths = {one.sop_instance_uid: node.config.state_directory / one.path for one in content.instances}

    def read(members: list[MemberFile]) -> DecodedPlane:
        return read_plane(members, DecodeLimits())

    finding = finding_from_json(series.finding)
    shown = pictures_of_slices(finding, paths, content.facts, read, model.windowing, model.engine)
    shares = {(one.sop_instance_uid, one.frame): positive_shares(one) for one in shown if one.shares is not None}
    highest = max(one.max() for one in shares.values())
    return {key: np.rint(255 * one / highest).astype(np.uint8) for key, one in shares.items()}


@dataclass
class Viewing:
    """A study with maps, and the pages of its node."""

    url: str
    uid: str
    computed: dict[SliceKey, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def viewing(tmp_path_factory: pytest.TempPathFactory, says_positive: Model, decoder: DecoderPool) -> Iterator[Viewing]:
    folder = tmp_path_factory.mktemp("viewing")
    values = settings(folder / "state", Path("unused"), web={"enabled": True, "port": free_port()})
    with sockets_may_leak(), parts_of_a_node(values, says_positive, decoder) as node:
        uid = report(node, folder / "sent")
        for name, role in (("eva", Role.READER), ("vic", Role.VIEWER)):
            add_account(node.database, name, role, PASSWORD)
        expected = computed(node, says_positive)
    with NodeProcesses(folder, values, roles=("web",)):
        yield Viewing(f"http://127.0.0.1:{values['web']['port']}", uid, expected)


def test_the_pages_give_the_maps_that_the_network_made(viewing: Viewing) -> None:
    assert len(viewing.computed) == 5, "five key slices speak clearly"
    with httpx.Client(base_url=viewing.url, headers={"Accept": "application/json"}) as client:
        assert client.get(f"/studies/{viewing.uid}/heatmaps").status_code == 401
        log_in(client, "eva")

        listed = client.get(f"/studies/{viewing.uid}/heatmaps").json()["slices"]
        assert [(one["uid"], one["frame"]) for one in listed] == list(viewing.computed)
        for (uid, _), shares in viewing.computed.items():
            answer = client.get(f"/studies/{viewing.uid}/heatmaps/{uid}")
            size = int(answer.headers["X-Rows"]), int(answer.headers["X-Columns"])
            assert size == shares.shape == (64, 64)
            assert answer.content == shares.tobytes()
        assert max(one.max() for one in viewing.computed.values()) == 255

        for nothing in (f"/studies/{viewing.uid}/heatmaps/1.2.3", "/studies/1.2.3/heatmaps/1.2.3",
                        f"/studies/{viewing.uid}/heatmaps/{uid}?frame=2"):  # fmt: skip
            assert client.get(nothing).status_code == 404


def test_maps_are_for_readers(viewing: Viewing) -> None:
    with httpx.Client(base_url=viewing.url, headers={"Accept": "application/json"}) as client:
        log_in(client, "vic")
        assert client.get(f"/studies/{viewing.uid}/heatmaps").status_code == 403
        assert client.get(f"/studies/{viewing.uid}/heatmaps/{next(iter(viewing.computed))[0]}").status_code == 403


def test_the_viewer_blends_a_map_in_and_out_and_says_what_it_is(viewing: Viewing) -> None:
    with browser_page(viewing.url, "eva") as page:
        page.goto(f"{viewing.url}/studies/{viewing.uid}")
        page.wait_for_selector("#stage[data-shown]")
        page.wait_for_selector("label.heat:not([hidden])")
        assert page.locator(".heat-layer").is_hidden()

        page.locator("#stage").focus()
        page.keyboard.press("h")
        layer = page.locator(".heat-layer:not([hidden])")
        layer.wait_for()
        assert "network's map, not a segmentation" in page.locator("#heat-note").inner_text()
        assert layer.bounding_box() == pytest.approx(page.locator("#canvas").bounding_box(), abs=1)
        key = page.locator("#stage").get_attribute("data-shown")
        shares = viewing.computed[key.split("/")[0], None]
        alphas = page.evaluate(
            "() => { const one = document.querySelector('.heat-layer');"
            "return Array.from(one.getContext('2d').getImageData(0, 0, one.width, one.height).data)"
            ".filter((_, index) => index % 4 === 3); }"
        )
        strong = np.array(alphas).reshape(shares.shape) > 0
        assert np.array_equal(strong, shares > 0.15 * 255), "faint shares are not drawn"

        page.evaluate("viewer.go(viewer.slices.findIndex((one) => !one.is_key))")
        page.locator("#heat-note").filter(has_text=re.compile("^No map of this slice")).wait_for()
        assert page.locator(".heat-layer").is_hidden()

        page.keyboard.press("h")
        page.locator("#heat-note").wait_for(state="hidden")
        page.locator("#heat").fill("40")
        page.evaluate("viewer.nextKey()")
        layer.wait_for()
        assert layer.evaluate("(one) => one.style.opacity") == "0.4"


# ------------------------------------------------------------------------------------------ their files


@leaks_a_socket
def test_maps_go_with_the_results_and_stay_under_a_hold(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool
) -> None:
    values = settings(tmp_path / "state", Path("unused"), web={"enabled": True})
    with parts_of_a_node(values, says_positive, decoder) as node:
        held, uid = (report(node, tmp_path / "sent") for _ in range(2))
        assert len(saved_maps(tmp_path / "state")) == 2
        assert place_hold(node.database, held, "a lawsuit", "me")
        change(node.database, ResultRow, created_at=time.time() - 400 * 86400.0)

        delete_expired(node.config, node.database)

        (kept,) = (row for row in rows(node.database, ResultRow) if row.path and row.preference == 0)
        assert saved_maps(tmp_path / "state") == [maps_beside(tmp_path / "state" / kept.path)]
        (deletion,) = [one for one in node.status(uid).studies[0].deletions if one.what == "reports"]
        assert deletion.files == len([row for row in rows(node.database, ResultRow) if row.path is None])


@leaks_a_socket
def test_maps_are_strays_where_no_row_speaks_of_their_report(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool
) -> None:
    """A worker that was killed before its conclusion was saved leaves both."""
    values = settings(tmp_path / "state", Path("unused"), web={"enabled": True})
    with parts_of_a_node(values, says_positive, decoder) as node:
        report(node, tmp_path / "sent")
        (known,) = saved_maps(tmp_path / "state")
        lost = [known.with_name("lost.dcm"), known.with_name(f"lost{MAPS_SUFFIX}"), known.with_name("lost.maps.part")]
        for path in lost:
            path.write_bytes(b"x")
        for path in (known, *lost):
            os.utime(path, (time.time() - 7200,) * 2)

        assert remove_strays(node.config, node.database) == 3
        assert saved_maps(tmp_path / "state") == [known]


@leaks_a_socket
def test_after_a_rebuild_maps_belong_to_their_report_again(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool
) -> None:
    values = settings(tmp_path / "state", Path("unused"), web={"enabled": True})
    with parts_of_a_node(values, says_positive, decoder) as node:
        report(node, tmp_path / "sent")
        before = read_maps(saved_maps(tmp_path / "state")[0])
    for path in (tmp_path / "state").glob("ich-node.sqlite*"):
        path.unlink()

    done = rebuild(parse_config(values))

    assert (done.studies, done.unreadable) == (1, [])
    with parts_of_a_node(values, says_positive, decoder) as node:
        for path in saved_maps(tmp_path / "state"):
            os.utime(path, (time.time() - 7200,) * 2)
        assert remove_strays(node.config, node.database) == 0
        kept = next(row.path for row in rows(node.database, ResultRow) if row.preference == 0)
        after = read_maps(maps_beside(tmp_path / "state" / kept))
    assert len(after) == 5
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[key], shares) for key, shares in before.items())


@pytest.mark.parametrize("sections", [{}, {"web": {"enabled": True}, "viewer": {"heatmaps": False}}])
@leaks_a_socket
def test_no_maps_are_kept_where_nobody_is_to_see_them(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool, sections: dict[str, dict[str, bool]]
) -> None:
    values = settings(tmp_path / "state", Path("unused"), **sections)
    with parts_of_a_node(values, says_positive, decoder) as node:
        report(node, tmp_path / "sent")
        assert list((tmp_path / "state/results").glob("*.dcm"))
        assert not saved_maps(tmp_path / "state")


def test_the_map_of_a_slab_is_shown_on_all_its_slices(tmp_path: Path) -> None:
    shares = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = tmp_path / f"1{MAPS_SUFFIX}"
    path.write_bytes(encode_maps([SavedMap((("1.2", None), ("1.3", None)), shares), SavedMap((("1.4", 7),), shares.T)]))

    maps = read_maps(path)

    assert [(key, one.shape) for key, one in maps.items()] == [
        (("1.2", None), (3, 4)), (("1.3", None), (3, 4)), (("1.4", 7), (4, 3)),
    ]  # fmt: skip
    assert np.array_equal(maps["1.3", None], shares)


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None])
def test_a_damaged_file_is_no_map(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / f"1{MAPS_SUFFIX}"
    whole = encode_maps([SavedMap((("1.2", None),), np.zeros((8, 8), np.uint8))])
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)

    assert read_maps(path) == {}
    assert read_maps(tmp_path / "absent") == {}
