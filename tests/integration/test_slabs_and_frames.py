"""Thin series in slabs and Enhanced CT frame by frame: over real sockets, whatever the order of arrival."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid
from sqlalchemy import select

from ich_node.database import PlaneRow
from ich_node.decode import DecoderPool
from ich_node.pipeline import Model
from ich_node.scoring import as_json, score_paths
from ich_node.worker import Worker
from tests.integration.test_worker import CONCLUSION, Site, open_site, text
from tests.report_reading import items

Numbers = dict[tuple[str, int | None], dict[str, float]]
"""Probabilities by SOP Instance UID and frame."""

THIN = {"slices": 60, "slice_spacing_mm": 2.0, "rows": 64}


@pytest.fixture
def site(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> Iterator[Site]:
    with open_site(tmp_path, tiny_model, decoder) as one:
        yield one


def offline(path: Path, model: Model, decoder: DecoderPool) -> Numbers:
    """What `score` says of every slice."""
    (series,) = score_paths([path], model, decoder, lambda *_: None).series
    return {(one["sop_instance_uid"], one["frame"]): one["probabilities"] for one in as_json(series, model)["slices"]}


def online(site: Site, uid: str) -> Numbers:
    """What the node says of every slice."""
    (series,) = [one for one in site.node.status(uid).studies[0].series if one.finding]
    return {
        (member["sop_instance_uid"], member["frame"]): one["probabilities"]
        for one in (series.finding or {})["slices"]
        for member in one["members"] or [one]
    }


def planes(site: Site) -> list[list[list[object]]]:
    with site.node.database.reading() as connection:
        return [row.members for row in connection.execute(select(PlaneRow.members).order_by(PlaneRow.position_mm))]


def assert_equal(one: Numbers, two: Numbers) -> None:
    values = [probabilities["any"] for probabilities in two.values()]
    assert max(values) - min(values) >= 0.1, "there is something to compare"
    assert one.keys() == two.keys()
    for key, probabilities in two.items():
        assert one[key] == pytest.approx(probabilities, abs=1e-3)


@pytest.mark.parametrize("order", ["in order", "at random", "associations of their own"])
def test_a_thin_series_gives_the_same_slabs_and_numbers_in_any_order(
    site: Site, tiny_model: Model, decoder: DecoderPool, order: str
) -> None:
    uid, files = site.head(**THIN)
    expected = offline(files[0].parent, tiny_model, decoder)
    sent = list(files)
    if order != "in order":
        random.Random(5).shuffle(sent)
    for part in [sent] if order != "associations of their own" else [sent[at : at + 7] for at in range(0, 60, 7)]:
        site.send(part)
        site.node.worker.step()

    study = site.settled(uid)

    assert (study.revision, study.series[0].complete, study.series[0].slices) == (1, True, 60)
    assert 24 <= study.series[0].planes <= 26
    assert all(len({float(member[2]) // 5 for member in one}) == 1 for one in planes(site))
    assert sorted(str(member[0]) for one in planes(site) for member in one) == sorted(
        str(dcmread(path).SOPInstanceUID) for path in files
    )
    assert_equal(online(site, uid), expected)


def test_slabs_are_scored_while_slices_still_arrive_and_a_restart_changes_nothing(
    site: Site, tiny_model: Model, decoder: DecoderPool
) -> None:
    uid, files = site.head(**THIN)
    site.send(files[:40])
    while site.node.worker.step():
        if len(planes(site)) >= 12:
            break
    assert len(planes(site)) >= 12
    node = site.node
    node.worker = Worker(node.config, node.database, tiny_model, decoder, "2.25.1")
    site.send(files[40:])
    site.settled(uid)

    assert_equal(online(site, uid), offline(files[0].parent, tiny_model, decoder))


def test_a_slab_whose_members_change_is_scored_again(site: Site, tiny_model: Model, decoder: DecoderPool) -> None:
    uid, files = site.head(**THIN)
    site.send([*files[:30], *files[31:]])
    first = site.settled(uid)
    assert (first.revision, first.series[0].complete) == (1, False)

    site.send(files[30:31])
    second = site.settled(uid)

    assert (second.revision, second.series[0].complete) == (2, True)
    assert_equal(online(site, uid), offline(files[0].parent, tiny_model, decoder))


def test_the_report_of_a_thin_series_names_middle_slices_and_says_that_there_are_slabs(site: Site) -> None:
    uid, files = site.head(**THIN)
    site.send(files)
    site.settled(uid)

    (report,) = site.reports(uid)
    middles = {str(one[(len(one) - 1) // 2][0]) for one in planes(site)}
    shown = [str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in items(report, "121080")]
    assert shown
    assert set(shown) <= middles
    assert "slabs of 5 mm" in text(report, CONCLUSION)
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 60, "evidence is every slice"


# --------------------------------------------------------------------------------------------- multi-frame


BY_FRAME = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SliceLocation",
    "RescaleIntercept", "RescaleSlope", "RescaleType", "WindowCenter", "WindowWidth",
)  # fmt: skip


def enhanced(files: Sequence[Path], *, shuffled: bool = False, extra: int = 0) -> Dataset:
    """One Enhanced CT object of the slices of a series; ``extra`` frames are localizers."""
    slices = [dcmread(path) for path in files]
    if shuffled:
        random.Random(2).shuffle(slices)
    slices += slices[:extra]
    one = dcmread(files[0])
    for keyword in BY_FRAME:
        delattr(one, keyword)
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    one.NumberOfFrames = len(slices)
    one.SharedFunctionalGroupsSequence = [Dataset()]
    one.PerFrameFunctionalGroupsSequence = [
        _groups(each, localizer=number >= len(slices) - extra) for number, each in enumerate(slices)
    ]
    one.PixelData = b"".join(each.PixelData for each in slices)
    return one


def _groups(one: Dataset, *, localizer: bool) -> Dataset:
    frame, position, orientation, measures, values, kind = (Dataset() for _ in range(6))
    position.ImagePositionPatient = one.ImagePositionPatient
    orientation.ImageOrientationPatient = one.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = one.PixelSpacing, one.SliceThickness
    values.RescaleIntercept, values.RescaleSlope, values.RescaleType = one.RescaleIntercept, one.RescaleSlope, "HU"
    kind.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER" if localizer else "VOLUME", "NONE"]
    frame.PlanePositionSequence, frame.PlaneOrientationSequence = [position], [orientation]
    frame.PixelMeasuresSequence, frame.PixelValueTransformationSequence = [measures], [values]
    frame.CTImageFrameTypeSequence = [kind]
    return frame


def save(site: Site, one: Dataset) -> Path:
    folder = site.folder / str(generate_uid())
    folder.mkdir(parents=True)
    path = folder / "enhanced.dcm"
    one.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=["uncompressed", "RLE"])
@pytest.mark.parametrize(("rows", "count", "spacing"), [(64, 28, 5.0), (512, 40, 3.3)], ids=["small", "large"])
def test_an_enhanced_ct_is_analysed_frame_by_frame(
    site: Site, tiny_model: Model, decoder: DecoderPool, syntax: str, rows: int, count: int, spacing: float
) -> None:
    uid, files = site.head(slices=count, slice_spacing_mm=spacing, rows=rows)
    one = enhanced(files, shuffled=True, extra=2)
    if syntax == RLELossless:
        one.compress(RLELossless, generate_instance_uid=False)
    path = save(site, one)
    site.send([path])

    study = site.settled(uid)

    (series,) = study.series
    assert (series.state, series.slices, series.planes, series.complete) == ("CONCLUDED", 1, count, True)
    numbers = online(site, uid)
    assert {frame for _, frame in numbers} == set(range(1, count + 1)), "the localizer frames are left out"
    assert_equal(numbers, offline(path, tiny_model, decoder))
    (report,) = site.reports(uid)
    references = [item.ReferencedSOPSequence[0] for item in items(report, "121080")]
    assert references
    assert all(one.ReferencedFrameNumber for one in references)


def test_an_enhanced_ct_gives_the_numbers_of_its_slices(site: Site, tiny_model: Model, decoder: DecoderPool) -> None:
    _, files = site.head(slices=28, slice_spacing_mm=5.0, rows=64)
    classic = offline(files[0].parent, tiny_model, decoder)
    path = save(site, enhanced(files))

    frames = offline(path, tiny_model, decoder)

    by_number = [classic[str(dcmread(one).SOPInstanceUID), None] for one in files]
    for number, expected in enumerate(by_number, start=1):
        (found,) = [value for (_, frame), value in frames.items() if frame == number]
        assert found == pytest.approx(expected, abs=1e-6)


def test_one_broken_frame_of_a_large_object_costs_one_frame(site: Site) -> None:
    uid, files = site.head(slices=40, slice_spacing_mm=3.3, rows=512)
    one = enhanced(files)
    one.compress(RLELossless, generate_instance_uid=False)
    frames = list(generate_frames(one.PixelData, number_of_frames=40))
    frames[11] = frames[11][:100] + bytes(28)
    one.PixelData = encapsulate(frames)
    one["PixelData"].is_undefined_length = True
    site.send([save(site, one)])

    study = site.settled(uid)

    (series,) = study.series
    assert (series.state, series.planes, series.complete) == ("CONCLUDED", 39, False)
    assert 12 not in {frame for _, frame in online(site, uid)}


def test_a_thin_enhanced_ct_is_scored_in_slabs(site: Site, tiny_model: Model, decoder: DecoderPool) -> None:
    uid, files = site.head(slices=100, slice_spacing_mm=1.4, rows=64)
    path = save(site, enhanced(files, shuffled=True))
    site.send([path])

    study = site.settled(uid)

    assert study.series[0].complete is True
    assert 27 <= study.series[0].planes <= 30
    assert len(online(site, uid)) == 100
    assert_equal(online(site, uid), offline(path, tiny_model, decoder))
