"""Thin slices are scored in slabs and multi-frame objects frame by frame, whatever the order of arrival."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from ich_node.decode import DecoderPool
from ich_node.decode.instance import MOST_PIXELS_AT_ONCE
from ich_node.phantom import PhantomSettings, write_series
from ich_node.pipeline import Model
from ich_node.scoring import as_json, score_paths
from ich_node.worker import Worker
from tests.enhanced_ct import LOCALIZER, SAGITTAL, write_enhanced_ct
from tests.integration.test_worker import CONCLUSION, HEAD, Site, open_site, text
from tests.running import wait_for

THIN = PhantomSettings(lesion="subdural", slices=132, rows=64, slice_spacing_mm=1.0)
Planes = dict[tuple[tuple[str, int | None], ...], float]
Scores = dict[tuple[str, int | None], float]


@dataclass(frozen=True)
class Sample:
    """A series, and what `ich-node score` says of its slices."""

    uid: str
    files: list[Path]
    scores: Scores


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory, tiny_model: Model, decoder: DecoderPool) -> Sample:
    return draw(tmp_path_factory.mktemp("thin"), THIN, tiny_model, decoder)


@pytest.fixture(scope="module")
def thick(tmp_path_factory: pytest.TempPathFactory, tiny_model: Model, decoder: DecoderPool) -> Sample:
    return draw(tmp_path_factory.mktemp("thick"), HEAD, tiny_model, decoder)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, tiny_model: Model, decoder: DecoderPool) -> Sample:
    settings = PhantomSettings(lesion="subdural", slices=28, rows=512, slice_spacing_mm=5.0)
    sample = draw(tmp_path_factory.mktemp("large"), settings, tiny_model, decoder)
    assert len(sample.files) * 512 * 512 > MOST_PIXELS_AT_ONCE
    return sample


def draw(folder: Path, settings: PhantomSettings, model: Model, decoder: DecoderPool) -> Sample:
    files = write_series(folder, settings)
    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    return Sample(uid, files, as_scored(folder, model, decoder))


@pytest.fixture
def site(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> Iterator[Site]:
    with open_site(tmp_path, tiny_model, decoder) as one:
        yield one


def as_scored(folder: Path, model: Model, decoder: DecoderPool) -> Scores:
    """What `ich-node score --json` says of every slice; it tells slices apart."""
    (series,) = score_paths([folder], model, decoder, lambda *_: None).series
    slices = as_json(series, model)["slices"]
    scores = {(one["sop_instance_uid"], one["frame"]): one["probabilities"]["any"] for one in slices}
    assert len(scores) == len(slices)
    assert max(scores.values()) - min(scores.values()) >= 0.1, "wrong slices would show"
    return scores


def as_found(site: Site, uid: str) -> Planes:
    """Members and probability of every plane in the node's finding on a study of one series."""
    (series,) = site.node.status(uid).studies[0].series
    assert series.finding is not None
    return {members_of(one): one["probabilities"]["any"] for one in series.finding["slices"]}


def members_of(plane: dict[str, Any]) -> tuple[tuple[str, int | None], ...]:
    """The slices of a plane; one of a single slice lists no members."""
    return tuple((one["sop_instance_uid"], one["frame"]) for one in plane["members"] or [plane])


def per_slice(planes: Planes) -> Scores:
    return {member: probability for members, probability in planes.items() for member in members}


def image_references(report: Dataset) -> list[Dataset]:
    """Every image that the report's content refers to."""
    found = [report.ReferencedSOPSequence[0]] if report.get("ValueType") == "IMAGE" else []
    return found + [one for item in report.get("ContentSequence", ()) for one in image_references(item)]


@pytest.mark.parametrize("arrival", ["in order", "in random order", "in associations of their own"])
def test_a_thin_series_is_scored_in_the_same_slabs_however_it_arrives(site: Site, thin: Sample, arrival: str) -> None:
    uid, files, expected = thin.uid, list(thin.files), thin.scores
    if arrival != "in order":
        random.Random(arrival).shuffle(files)
    size = 12 if arrival == "in associations of their own" else len(files)
    for start in range(0, len(files), size):
        site.send(files[start : start + size])
        site.node.worker.step()

    study = site.settled(uid)

    planes = as_found(site, uid)
    assert study.series[0].complete is True
    assert 20 <= len(planes) <= 30, "slabs of 5 mm"
    assert per_slice(planes) == pytest.approx(expected, abs=1e-3)


def test_slabs_are_scored_before_the_last_slice_and_a_new_worker_goes_on_with_them(
    site: Site, thin: Sample, tiny_model: Model, decoder: DecoderPool
) -> None:
    uid, files, expected = thin.uid, list(thin.files), thin.scores
    site.send(files[:70])
    wait_for(lambda: not site.node.worker.step() or planes_stored(site) >= 10, "slabs are scored while slices arrive")
    before = planes_stored(site)
    assert before >= 10

    node = site.node
    node.worker = Worker(node.config, node.database, tiny_model, decoder, "2.25.1")
    site.send(files[70:])
    site.settled(uid)

    assert len(as_found(site, uid)) > before
    assert per_slice(as_found(site, uid)) == pytest.approx(expected, abs=1e-3)


def test_a_late_thin_slice_has_its_slab_scored_again(site: Site, thin: Sample) -> None:
    uid, files, expected = thin.uid, list(thin.files), thin.scores
    site.send([*files[:60], *files[61:]])
    first = site.settled(uid)
    planes = as_found(site, uid)
    assert (first.revision, first.series[0].complete) == (1, False), "one missing thin slice is a gap"

    site.send([files[60]])
    second = site.settled(uid)

    changed = set(as_found(site, uid)) - set(planes)
    assert (second.revision, second.series[0].complete) == (2, True)
    assert len(changed) == 1
    assert per_slice(as_found(site, uid)) == pytest.approx(expected, abs=1e-3)


def test_the_report_names_the_middle_member_of_a_slab(site: Site, thin: Sample) -> None:
    uid, files = thin.uid, thin.files
    site.send(files)
    site.settled(uid)

    middles = {members[(len(members) - 1) // 2][0] for members in as_found(site, uid)}
    (report,) = site.reports(uid)
    named = {str(one.ReferencedSOPInstanceUID) for one in image_references(report)}
    assert named
    assert named <= middles
    assert "slabs of 5 mm" in text(report, CONCLUSION)
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == len(files), "evidence is every slice"


@pytest.mark.parametrize(
    ("transfer_syntax", "offset_table"),
    [(ExplicitVRLittleEndian, True), (RLELossless, True), (RLELossless, False),
     (JPEG2000Lossless, True), (JPEG2000Lossless, False)],
)  # fmt: skip
def test_an_enhanced_ct_is_scored_as_the_classic_series_it_was_made_from(
    site: Site, thick: Sample, transfer_syntax: Any, offset_table: bool
) -> None:
    uid, files = thick.uid, list(thick.files)
    random.Random(1).shuffle(files)
    others = (LOCALIZER, SAGITTAL)
    path = site.folder / "enhanced" / "1.dcm"
    write_enhanced_ct(path, files, transfer_syntax, offset_table=offset_table, others=others)
    site.send([path])

    study = site.settled(uid)

    found = per_slice(as_found(site, uid))
    assert study.series[0].complete is True
    assert sorted(frame or 0 for _, frame in found) == list(range(1, 13)), "neither localizer nor sagittal frame"
    by_frame = [found[key] for key in sorted(found, key=lambda key: key[1] or 0)]
    assert by_frame == pytest.approx([thick.scores[uid_of(one), None] for one in files], abs=1e-3)
    (report,) = site.reports(uid)
    references = image_references(report)
    assert references
    assert all(1 <= int(one.ReferencedFrameNumber) <= 12 for one in references)


@pytest.mark.parametrize("transfer_syntax", [RLELossless, JPEG2000Lossless])
def test_a_broken_frame_costs_one_frame(site: Site, thick: Sample, transfer_syntax: Any) -> None:
    uid, files = thick.uid, thick.files
    path = write_enhanced_ct(site.folder / "enhanced" / "1.dcm", files, transfer_syntax, broken=(5,))
    site.send([path])

    (series,) = site.settled(uid).series

    assert (series.state, series.complete) == ("CONCLUDED", False)
    assert sorted(frame or 0 for _, frame in per_slice(as_found(site, uid))) == [1, 2, 3, 4, *range(6, 13)]


@pytest.mark.parametrize(
    ("transfer_syntax", "offset_table"), [(ExplicitVRLittleEndian, True), (RLELossless, True), (RLELossless, False)]
)
def test_an_object_too_large_to_be_decoded_at_once_is_read_plane_by_plane(
    site: Site, large: Sample, transfer_syntax: Any, offset_table: bool
) -> None:
    frames = list(large.files)
    random.Random(2).shuffle(frames)
    path = site.folder / "enhanced" / "1.dcm"
    write_enhanced_ct(path, frames, transfer_syntax, offset_table=offset_table, others=(LOCALIZER,))
    site.send([path])

    (series,) = site.settled(large.uid).series

    found = per_slice(as_found(site, large.uid))
    assert (series.state, series.slices, series.complete) == ("CONCLUDED", 1, True)
    assert sorted(frame or 0 for _, frame in found) == list(range(1, len(frames) + 1))
    by_frame = [found[key] for key in sorted(found, key=lambda key: key[1] or 0)]
    assert by_frame == pytest.approx([large.scores[uid_of(one), None] for one in frames], abs=1e-3)


def test_a_broken_frame_of_a_large_object_costs_one_frame(site: Site, large: Sample) -> None:
    path = write_enhanced_ct(site.folder / "enhanced" / "1.dcm", large.files, RLELossless, broken=(12,))
    site.send([path])

    (series,) = site.settled(large.uid).series

    assert (series.state, series.complete) == ("CONCLUDED", False)
    frames = {frame for _, frame in per_slice(as_found(site, large.uid))}
    assert frames == set(range(1, len(large.files) + 1)) - {12}


def test_a_thin_enhanced_ct_is_scored_in_the_slabs_of_the_classic_series(site: Site, thin: Sample) -> None:
    frames = list(thin.files)
    random.Random(4).shuffle(frames)
    site.send([write_enhanced_ct(site.folder / "enhanced" / "1.dcm", frames)])

    study = site.settled(thin.uid)

    planes = as_found(site, thin.uid)
    assert study.series[0].complete is True
    assert 20 <= len(planes) <= 30
    found = {uid_of(frames[(frame or 0) - 1]): probability for (_, frame), probability in per_slice(planes).items()}
    assert found == pytest.approx({uid: probability for (uid, _), probability in thin.scores.items()}, abs=1e-3)


def planes_stored(site: Site) -> int:
    with site.node.database.reading() as connection:
        return int(connection.exec_driver_sql("select count(*) from plane").scalar() or 0)


def uid_of(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
