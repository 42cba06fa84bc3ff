"""What the pages show: text of others as text, images as they are, objects byte by byte; and what is recorded of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import lxml.etree
import lxml.html
import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy import select, update

from ich_node.database import FeedbackRow, InstanceRow
from ich_node.decode import DecoderPool
from ich_node.pipeline import Model
from tests.alerting import FINDING
from tests.browsing import DESCRIPTION, NAME, PATIENT_ID, STATION, Pages, form_token, serving_pages

EVERY_ANSWER = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-robots-tag": "noindex, nofollow",
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, tiny_model: Model, decoder: DecoderPool) -> Iterator[Pages]:
    """One ``ich-node web`` for all tests here."""
    with serving_pages(tmp_path_factory.mktemp("pages"), tiny_model, decoder) as one:
        yield one


@pytest.fixture(scope="module")
def reader(pages: Pages) -> httpx.Client:
    return pages.browser("reader")


def slices_of(pages: Pages, browser: httpx.Client) -> list[dict[str, object]]:
    (series,) = browser.get(f"/studies/{pages.uid}/slices").json()["series"]
    return list(series["slices"])


# ------------------------------------------------------------------------------------------------- headers


def test_every_answer_says_what_a_browser_may_do_with_it(pages: Pages, reader: httpx.Client) -> None:
    study = f"/studies/{pages.uid}"
    first = slices_of(pages, reader)[0]["uid"]
    answers = [
        reader.get(path)
        for path in ("/", "/worklist", "/login", study, f"{study}/facts", f"{study}/slices",
                     f"{study}/slices/{first}", "/nowhere", f"{study}/slices/x", "/?order=wrong")
    ]  # fmt: skip
    answers += [reader.post(study), reader.post("/logout", data={}), pages.stranger().get("/")]
    assert {one.status_code for one in answers} == {200, 303, 403, 404, 405}
    for one in answers:
        assert {name: one.headers.get(name) for name in EVERY_ANSWER} == EVERY_ANSWER, one.url
        policy = one.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert one.headers["referrer-policy"] == "same-origin"
        assert "server" not in one.headers


def test_nothing_is_loaded_from_elsewhere_and_no_page_holds_a_script(pages: Pages, reader: httpx.Client) -> None:
    administrator = pages.browser("administrator")
    shown = {path: reader.get(path) for path in ("/", f"/studies/{pages.uid}", "/concordance")}
    shown |= {"/login": pages.stranger().get("/login")}
    parts = ("", "/series", "/deliveries", "/alerts", "/models", "/accounts", "/configuration", "/audit")
    shown |= {path: administrator.get(path) for path in (*(f"/node{part}" for part in parts), "/drift")}
    for path, answer in shown.items():
        assert answer.status_code == 200, path
        page = lxml.html.document_fromstring(answer.text)
        inline = [one for one in page.iter("script") if "src" not in one.attrib]
        wanted = [{"type": "application/json", "id": "slices"}] if path.startswith("/studies/") else []
        assert [dict(one.attrib) for one in inline] == wanted, path
        assert all(json.loads(one.text) for one in inline)
        loaded = page.xpath("//script/@src | //link/@href | //img/@src")
        assert loaded
        assert all(one.startswith("/static/") for one in loaded), path
        assert not page.xpath("//style | //iframe | //object | //embed"), path
        assert not [
            (path, name, value)
            for one in page.iter(lxml.etree.Element)
            for name, value in one.attrib.items()
            if name.startswith("on") or name == "style" or value.strip().lower().startswith("javascript:")
        ]
        for one in loaded:
            assert "immutable" in reader.get(one).headers["cache-control"]


# --------------------------------------------------------------------------------------------- text of others


def test_markup_in_a_header_stays_text(pages: Pages, reader: httpx.Client) -> None:
    for path in ("/", "/worklist", f"/studies/{pages.uid}", f"/studies/{pages.uid}/facts"):
        text = reader.get(path).text
        assert not [one for one in ("<script>alert", "<b>Eve", DESCRIPTION, STATION, PATIENT_ID) if one in text], path
    listed = reader.get("/").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;, &lt;b&gt;Eve" in listed, NAME
    assert "&lt;i&gt;CT&amp;1" in listed


def test_a_search_is_shown_again_as_text(pages: Pages, reader: httpx.Client) -> None:
    text = reader.get("/", params={"search": '"><script>x</script>'}).text
    assert "<script>x" not in text
    assert "&lt;script&gt;x" in text


def test_a_note_of_a_reader_stays_text(pages: Pages, reader: httpx.Client) -> None:
    uid = pages.site.box.add_study(finding=FINDING)
    said = {"agrees": False, "revision": 1, "classes": ["subdural"], "note": "<svg onload=alert(3)>\n\u202eodd"}
    headers = {"X-Form-Token": form_token(reader)}
    assert reader.post(f"/studies/{uid}/feedback", json=said, headers=headers).is_success
    text = reader.get(f"/studies/{uid}/facts").text
    assert "<svg onload" not in text
    assert "&lt;svg onload=alert(3)&gt; odd" in text


# ------------------------------------------------------------------------------------------------ images


def test_slices_are_the_hounsfield_units_of_the_files_from_the_foot_upward(pages: Pages, reader: httpx.Client) -> None:
    files = {str(image.SOPInstanceUID): image for image in map(dcmread, pages.sent)}
    found = slices_of(pages, reader)
    assert {one["uid"] for one in found} == set(files)
    heights = [float(files[str(one["uid"])].ImagePositionPatient[2]) for one in found]
    assert heights == sorted(heights)
    for one in found:
        image = files[str(one["uid"])]
        answer = reader.get(f"/studies/{pages.uid}/slices/{one['uid']}")
        assert answer.headers["content-type"] == "application/octet-stream"
        shown = np.frombuffer(answer.content, "<i2").reshape(int(str(one["rows"])), int(str(one["columns"])))
        wanted = np.rint(image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept))
        assert np.array_equal(shown, wanted)


def test_a_slice_of_another_study_or_no_slice_at_all_is_not_found(pages: Pages, reader: httpx.Client) -> None:
    other = pages.site.box.add_study()
    first = slices_of(pages, reader)[0]["uid"]
    for path in (f"/studies/{other}/slices/{first}", f"/studies/{pages.uid}/slices/{first}?frame=7",
                 f"/studies/{pages.uid}/slices/1.2.3"):  # fmt: skip
        assert reader.get(path, headers={"Accept": "application/json"}).status_code == 404
    assert reader.get(f"/studies/{pages.uid}/slices/{first}?frame=x").status_code == 422


def test_a_slice_whose_file_is_gone_is_said_to_be_gone(pages: Pages, reader: httpx.Client) -> None:
    last = str(slices_of(pages, reader)[-1]["uid"])
    mine = InstanceRow.sop_instance_uid == last
    with pages.database.writing() as connection:
        path = connection.execute(select(InstanceRow.path).where(mine)).scalar_one()
        connection.execute(update(InstanceRow).where(mine).values(path="spool/00/gone.dcm"))
    slices_of(pages, reader)  # the list of a moment ago has the old place
    answer = reader.get(f"/studies/{pages.uid}/slices/{last}", headers={"Accept": "application/json"})
    with pages.database.writing() as connection:
        connection.execute(update(InstanceRow).where(mine).values(path=path))
    slices_of(pages, reader)
    assert answer.status_code == 410
    assert "deleted" in answer.json()["detail"]


# ----------------------------------------------------------------------------------------------- objects


def objects_of(pages: Pages, browser: httpx.Client) -> list[str]:
    return re.findall(rf"/studies/{re.escape(pages.uid)}/objects/[^\"]+", browser.get(f"/studies/{pages.uid}").text)


def test_an_object_is_taken_byte_by_byte(pages: Pages, reader: httpx.Client) -> None:
    paths = objects_of(pages, reader)
    assert paths
    for path in paths:
        answer = reader.get(path)
        name = path.rpartition("/")[2]
        assert answer.content == (pages.config.state_directory / "results" / name).read_bytes()
        assert answer.headers["content-type"] == "application/dicom"
        assert f'filename="{name}"' in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    "name",
    ["..%2F..%2Fweb.key", "../../web.key", "..%2f..%2fich-node.sqlite", "%2e%2e%2fweb.key", "%2Fetc%2Fpasswd",
     "..%5C..%5Cweb.key", "web.key", "x.dcm", "%00", "."],
)  # fmt: skip
def test_no_name_leads_out_of_the_study(pages: Pages, reader: httpx.Client, name: str) -> None:
    assert reader.get(f"/studies/{pages.uid}/objects/{name}").status_code == 404
    assert reader.get(f"/static/{name}").status_code == 404
    assert reader.get(f"/studies/{name}").status_code == 404


def test_styles_and_scripts_are_kept_by_the_browser_and_fit_their_page(pages: Pages, reader: httpx.Client) -> None:
    loaded = re.findall(r'(?:src|href)="(/static/[^"]+)"', reader.get(f"/studies/{pages.uid}").text)
    assert {one.partition("?")[0].rpartition("/")[2] for one in loaded} >= {
        "site.css",
        "site.js",
        "viewer.js",
        "study.js",
    }
    for address in loaded:
        given = reader.get(address)
        assert given.status_code == 200
        assert "immutable" in given.headers["cache-control"], "it need not be asked for again"
        of_before = reader.get(f"{address.partition('?')[0]}?v=0123456789abcdef")
        assert of_before.headers["cache-control"] == "no-cache", "a page of before the upgrade keeps nothing for good"
        again = reader.get(address, headers={"If-None-Match": given.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_an_object_of_another_study_is_not_given(pages: Pages, reader: httpx.Client) -> None:
    name = objects_of(pages, reader)[0].rpartition("/")[2]
    other = pages.site.box.add_study()
    assert reader.get(f"/studies/{other}/objects/{name}").status_code == 404


# ------------------------------------------------------------------------------------------------ answers


def test_an_alert_is_acknowledged_on_the_page_of_its_study(pages: Pages, reader: httpx.Client) -> None:
    uid = pages.site.box.add_study(finding=FINDING)
    pages.site.tell()
    (alert,) = pages.site.alerts(uid)
    assert alert.identifier in reader.get(f"/studies/{uid}").text
    headers = {"X-Form-Token": form_token(reader)}
    other = reader.post(f"/studies/{pages.uid}/acknowledge", json={"alert": alert.identifier}, headers=headers)
    assert other.status_code == 404, "of another study"
    assert reader.post(f"/studies/{uid}/acknowledge", json={"alert": alert.identifier}, headers=headers).is_success
    (seen,) = pages.site.alerts(uid)
    assert (seen.state, seen.acknowledged_by) == ("ACKNOWLEDGED", "reader")
    assert "seen by reader" in reader.get(f"/studies/{uid}").text
    events = [json.loads(line) for line in pages.node.log("web").read_text().splitlines()]
    assert [one["by"] for one in events if one.get("alert") == alert.identifier] == ["reader"]
    recorded = [one for one in pages.recorded() if uid in one.studies and "reader" in one.users]
    assert any(alert.identifier in one.details.values() for one in recorded)


def test_what_a_reader_says_is_kept_with_who_said_it(pages: Pages, reader: httpx.Client) -> None:
    uid = pages.site.box.add_study(finding=FINDING)
    headers = {"X-Form-Token": form_token(reader)}
    path = f"/studies/{uid}/feedback"
    nothing = reader.post(path, json={"agrees": False}, headers=headers)
    assert nothing.status_code == 422
    seen = {"agrees": False, "revision": 1}
    assert reader.post(path, json=seen | {"classes": ["x"]}, headers=headers).status_code == 422
    assert reader.post(path, json={"agrees": True}, headers=headers).status_code == 422, "of which revision"
    assert reader.post(path, json={"agrees": True, "revision": 2}, headers=headers).status_code == 409
    odd = seen | {"classes": ["epidural"], "slices": [["1.2.3", None], ["x y", 1], 7, ["1.2", "3"]]}
    assert reader.post(path, json=odd | {"note": "x" * 900}, headers=headers).is_success
    assert reader.post(path, json={"agrees": True, "revision": 1}, headers=headers).is_success
    with pages.database.reading() as connection:
        rows = connection.execute(select(FeedbackRow).order_by(FeedbackRow.id.desc()).limit(2)).all()
    assert [(one.reader, one.agrees, one.hemorrhage, one.triage) for one in rows] == [
        ("reader", True, True, "positive"), ("reader", False, True, "positive"),
    ]  # fmt: skip
    assert (rows[1].classes, rows[1].slices, len(rows[1].note)) == (["epidural"], [["1.2.3", None]], 500)
    recorded = [one for one in pages.recorded() if uid in one.studies and "reader" in one.users]
    assert {"agrees", "disagrees"} <= {value for one in recorded for value in one.details.values()}


# ------------------------------------------------------------------------------------- what is recorded


def test_every_view_of_a_patient_is_recorded_with_who_and_from_where(pages: Pages) -> None:
    before = len(pages.recorded())
    browser = pages.browser("administrator")
    study = f"/studies/{pages.uid}"
    browser.get("/")
    browser.get(study)
    first = browser.get(f"{study}/slices").json()["series"][0]["slices"][0]["uid"]
    browser.get(f"{study}/slices/{first}")
    browser.get(objects_of(pages, browser)[0])
    new = [one for one in pages.recorded()[before:] if pages.uid in one.studies and "administrator" in one.users]
    assert all(one.patients == [PATIENT_ID] for one in new)
    from_here = "ActiveParticipant[@UserID='administrator'][@NetworkAccessPointID='127.0.0.1']"
    assert all(one.root.xpath(from_here) for one in new)
    shown = " ".join(" ".join(one.details.values()) for one in new)
    for what in ("worklist", "study", "images", "object "):
        assert what in shown, shown


def test_images_alone_are_recorded_too(pages: Pages) -> None:
    browser = pages.browser("operator")
    browser.get(f"/studies/{pages.uid}/slices")
    seen = [one for one in pages.recorded() if pages.uid in one.studies and "operator" in one.users]
    assert ["images" in " ".join(one.details.values()) for one in seen] == [True]


def test_what_a_viewer_sees_names_nobody_and_is_not_recorded_as_a_view(pages: Pages) -> None:
    browser = pages.browser("viewer")
    assert browser.get("/").status_code == 200
    assert browser.get(f"/studies/{pages.uid}").status_code == 200
    assert not [one for one in pages.recorded() if "viewer" in one.users and one.studies]
