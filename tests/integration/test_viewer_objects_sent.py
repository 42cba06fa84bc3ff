"""What a radiologist meets in the viewer: which objects go to which destination, and what keeps them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from ich_node.decode import DecoderPool
from ich_node.job_queue import resend
from ich_node.pacs import SmallPacs
from ich_node.pipeline import Model, reporting
from ich_node.queries import DeliveryStatus, StudyStatus
from ich_node.routing import destinations_for
from ich_node.worker import loop
from tests.integration.test_worker import Site
from tests.running import parts_of_a_node, settings

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
PRESENTATION = "1.2.840.10008.5.1.4.1.1.11.1"
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
EVERYTHING = ["report", "summary", "key_slices", "key_objects", "presentation"]


def with_thresholds(model: Model, low: float, high: float) -> Model:
    """The model with the same thresholds for every class: what it says is then known beforehand."""
    manifest = model.bundle.manifest
    pair = next(iter(manifest.thresholds.values())).model_copy(update={"low": low, "high": high})
    thresholds = dict.fromkeys(manifest.thresholds, pair)
    return replace(model, bundle=replace(model.bundle, manifest=manifest.model_copy(update={"thresholds": thresholds})))


@pytest.fixture(scope="module")
def says_positive(tiny_model: Model) -> Model:
    return with_thresholds(tiny_model, 1e-6, 2e-6)


@pytest.fixture(scope="module")
def says_negative(tiny_model: Model) -> Model:
    return with_thresholds(tiny_model, 1 - 2e-6, 1 - 1e-6)


@contextmanager
def viewing_site(
    folder: Path, model: Model, decoder: DecoderPool, accepts: tuple[str, ...] | None = None, **sections: Any
) -> Iterator[Site]:
    """A node and its PACS, which gets everything unless ``destination`` says otherwise."""
    with SmallPacs(folder / "pacs", accepted_sop_classes=accepts) as pacs:
        chosen = {"objects": EVERYTHING} | sections.pop("destination", {})
        place = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port}
        values = settings(folder / "state", Path("unused"), **sections) | {"destination": [place | chosen]}
        with parts_of_a_node(values, model, decoder) as node:
            yield Site(node, pacs, folder / "sent")


def analysed(site: Site, **changes: Any) -> tuple[StudyStatus, list[Dataset]]:
    """Send a head CT; give its study and what the PACS has of it then."""
    uid, files = site.head(**changes)
    site.send(files)
    return site.settled(uid), stored(site, uid)


def stored(site: Site, uid: str) -> list[Dataset]:
    return [dcmread(path) for path in sorted((site.pacs.directory / uid).glob("*.dcm"))]


def classes(objects: Sequence[Dataset]) -> Counter[str]:
    return Counter(str(one.SOPClassUID) for one in objects)


def summaries(objects: Sequence[Dataset]) -> list[Dataset]:
    found = [one for one in objects if one.SOPClassUID == SECONDARY_CAPTURE and one.SeriesNumber == 9902]
    return sorted(found, key=lambda one: int(one.InstanceNumber))


def states(study: StudyStatus) -> dict[str, str]:
    return {one.kind: one.state for one in study.deliveries}


def test_a_positive_study_has_report_summary_key_slices_and_key_objects_in_the_pacs(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool
) -> None:
    with viewing_site(tmp_path, says_positive, decoder) as site:
        study, objects = analysed(site)

    assert study.triage == "positive"
    assert set(states(study).values()) == {"DELIVERED"}
    found = classes(objects)
    assert found[REPORT] == found[KEY_OBJECTS] == found[PRESENTATION] == 1
    assert found[SECONDARY_CAPTURE] == 1 + 5, "a summary and five key slices"
    assert len({one.SeriesInstanceUID for one in objects}) == 5, "one series per kind"
    assert {one.PatientName for one in objects} == {objects[0].PatientName}
    assert set(site.pacs.received.values()) == {1}


def test_the_report_is_sent_before_what_is_drawn_beside_it(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool
) -> None:
    with viewing_site(tmp_path, says_positive, decoder) as site:
        study, _ = analysed(site)
        first = next(iter(site.pacs.received))

    assert first == next(one.sop_instance_uid for one in study.deliveries if one.kind == "SR")


@pytest.mark.parametrize(("also", "count"), [(["indeterminate"], 0), (["negative"], 1)])
def test_a_summary_of_a_negative_study_is_a_matter_of_the_site(
    tmp_path: Path, says_negative: Model, decoder: DecoderPool, also: list[str], count: int
) -> None:
    with viewing_site(tmp_path, says_negative, decoder, viewer={"summary_also_for": also}) as site:
        study, objects = analysed(site)

    assert study.triage == "negative"
    assert len(summaries(objects)) == count
    assert classes(objects) - Counter({SECONDARY_CAPTURE: count}) == {REPORT: 1}


def test_without_heatmaps_nothing_marks_a_place(tmp_path: Path, says_positive: Model, decoder: DecoderPool) -> None:
    with viewing_site(tmp_path, says_positive, decoder, viewer={"heatmaps": False}) as site:
        _, objects = analysed(site)

    assert classes(objects) == {REPORT: 1, KEY_OBJECTS: 1, SECONDARY_CAPTURE: 1}


def test_a_destination_gets_what_it_is_configured_for(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool
) -> None:
    with viewing_site(tmp_path, says_positive, decoder, destination={"objects": ["summary"]}) as site:
        _, objects = analysed(site)

    assert classes(objects) == {SECONDARY_CAPTURE: 1}


def test_a_destination_for_urgent_studies_hears_of_no_others(
    tmp_path: Path, says_positive: Model, says_negative: Model, decoder: DecoderPool
) -> None:
    for folder, model, sent in (("a", says_positive, 1), ("b", says_negative, 0)):
        urgent = {"triage": ["positive"], "objects": ["report"]}
        with viewing_site(tmp_path / folder, model, decoder, destination=urgent) as site:
            study, objects = analysed(site)
        assert study.revision == 1
        assert len(objects) == len(study.deliveries) == sent


def test_what_a_destination_does_not_take_is_held_and_the_report_arrives(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool
) -> None:
    with viewing_site(tmp_path, says_positive, decoder, accepts=(REPORT, SECONDARY_CAPTURE)) as site:
        study, _ = analysed(site)
        held = [one for one in study.deliveries if one.state == "HELD"]

        assert {one.kind for one in held} == {"KEY_OBJECTS", "PRESENTATION"}
        assert {one.error for one in held} == {"the destination accepts none of the object's storage classes"}
        assert not site.node.status().paused_destinations
        assert states(study)["SR"] == states(study)["SUMMARY"] == "DELIVERED"

        site.pacs.accepted_sop_classes = None
        assert send_again(site, study) == len(study.deliveries)
        assert set(states(site.settled(study.study_instance_uid)).values()) == {"DELIVERED"}


def test_a_destination_that_takes_neither_flags_nor_pictures_is_not_paused(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool
) -> None:
    flags = {"objects": ["key_objects", "presentation"]}
    with viewing_site(tmp_path, says_positive, decoder, accepts=(REPORT,), destination=flags) as site:
        study, _ = analysed(site)
        assert states(study) == {"KEY_OBJECTS": "HELD", "PRESENTATION": "HELD"}
        assert not site.node.status().paused_destinations


def test_a_revision_names_what_it_replaces(tmp_path: Path, says_positive: Model, decoder: DecoderPool) -> None:
    with viewing_site(tmp_path, says_positive, decoder) as site:
        uid, files = site.head()
        site.send(files[:-1])
        site.settled(uid)
        site.send(files[-1:])
        assert site.settled(uid).revision == 2
        objects = stored(site, uid)

    first, second = summaries(objects)
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID in [one.ReferencedSOPInstanceUID for one in second.ReferencedImageSequence]
    assert "Replaces revision 1" in second.ImageComments
    assert "ReferencedImageSequence" not in first


def test_what_cannot_be_drawn_does_not_keep_the_report_back(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_request: Any, _pictures: Any, kinds: Any) -> tuple[()]:
        if kinds:
            raise OSError("no font can be read")
        return ()

    monkeypatch.setattr(reporting, "build_viewer_objects", fail)
    monkeypatch.setattr(loop, "_RETRY_S", 0.01)
    with viewing_site(tmp_path, says_positive, decoder) as site:
        study, objects = analysed(site)

    assert (study.triage, study.revision) == ("positive", 1)
    assert classes(objects) == {REPORT: 1}


@pytest.mark.parametrize("where", ["node", "peer"])
def test_in_shadow_mode_everything_is_made_and_nothing_leaves(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool, where: str
) -> None:
    peer = {"ae_title": "SCANNER1", "address": "127.0.0.1", "mode": "shadow"}
    shadow: dict[str, Any] = {"node": {"mode": "shadow"}} if where == "node" else {"peer": [peer]}
    with viewing_site(tmp_path, says_positive, decoder, **shadow) as site:
        study, objects = analysed(site)

        assert study.triage == "positive"
        assert not objects
        assert not site.pacs.received
        assert {(one.state, one.error) for one in study.deliveries} == {
            ("HELD", "shadow mode: nothing leaves the node")
        }
        assert all(_file(site, one).is_file() for one in study.deliveries), "administrators can look at all of it"


@pytest.mark.parametrize("mode", ["live", "objects"])
def test_objects_leave_before_alerts_do_and_the_report_says_in_which_mode_it_was_made(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool, mode: str
) -> None:
    with viewing_site(tmp_path, says_positive, decoder, node={"mode": mode}) as site:
        study, objects = analysed(site)
        assert {one.state for one in study.deliveries} == {"DELIVERED"}
        (report,) = (one for one in objects if one.SOPClassUID == REPORT)
        assert f" Mode {mode}" in report.to_json()


def test_what_shadow_mode_holds_is_not_received_again_either(
    tmp_path: Path, says_positive: Model, decoder: DecoderPool
) -> None:
    peer = {"ae_title": "SCANNER1", "address": "127.0.0.1", "mode": "shadow"}
    with viewing_site(tmp_path, says_positive, decoder, peer=[peer]) as site:
        study, _ = analysed(site)
        assert send_again(site, study) == 0
        site.settled(study.study_instance_uid)
        assert not site.pacs.received


def test_sent_again_a_study_still_goes_only_where_its_answer_is_wanted(
    tmp_path: Path, says_negative: Model, decoder: DecoderPool
) -> None:
    urgent = {"triage": ["positive"]}
    with viewing_site(tmp_path, says_negative, decoder, destination=urgent) as site:
        study, _ = analysed(site)
        assert send_again(site, study) == 0
        assert not site.settled(study.study_instance_uid).deliveries


def send_again(site: Site, study: StudyStatus) -> int:
    places = partial(destinations_for, site.node.config)
    return resend(site.node.database, places, study_instance_uid=study.study_instance_uid)


def _file(site: Site, delivery: DeliveryStatus) -> Path:
    assert delivery.report_file is not None
    return site.node.config.state_directory / delivery.report_file
