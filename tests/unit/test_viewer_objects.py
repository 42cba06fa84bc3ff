"""Summary, key slice images, key objects and presentation state: what refers to what, and what is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage, SecondaryCaptureImageStorage

from ich_node.errors import ReportError
from ich_node.records import Presence, ReportRequest, TriageFinding
from ich_node.report.key_objects import build_key_objects
from ich_node.report.key_slice_images import LABEL, build_key_slice_images, draw_key_slice
from ich_node.report.presentation_state import build_presentation_state
from ich_node.report.slice_pictures import heated, heated_slice, plain_slice
from ich_node.report.structured_report import build_reports
from ich_node.report.summary_image import build_summary_image
from ich_node.report.viewer_objects import VIEWER_KINDS, build_viewer_objects
from tests.ct_series import headers, in_frames, in_slabs, make_request, minimal
from tests.report_reading import EVIDENCE, FINDINGS, read
from tests.viewing import HOT, next_revision, picture, pictures, pixels, referred, without_maps


def request_of(finding: TriageFinding = FINDINGS["positive"], **changes: Any) -> ReportRequest:
    return make_request(EVIDENCE, finding, **changes)


def key_object_text(document: Dataset) -> str:
    (one,) = [
        item.TextValue
        for item in document.ContentSequence
        if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeValue == "113012"
    ]
    return str(one)


REQUEST = request_of()
PICTURES = pictures(REQUEST)
KEY_UIDS = [one.sop_instance_uid for one in PICTURES]
KINDS = ["SUMMARY", "KEY_SLICE_1", "KEY_SLICE_2", "KEY_SLICE_3", "KEY_OBJECTS", "PRESENTATION"]


# --------------------------------------------------------------------------------------- which are built


def test_all_kinds_are_built_in_their_order_and_only_those_asked_for() -> None:
    assert [one.kind for one in build_viewer_objects(REQUEST, PICTURES, VIEWER_KINDS)] == KINDS
    assert [one.kind for one in build_viewer_objects(REQUEST, PICTURES, {"KEY_OBJECTS"})] == ["KEY_OBJECTS"]
    assert build_viewer_objects(REQUEST, PICTURES, ()) == ()
    with pytest.raises(ValueError, match="MOVIE"):
        build_viewer_objects(REQUEST, PICTURES, ["MOVIE"])


@pytest.mark.parametrize("outcome", ["negative", "not analysed", "untrained"])
def test_without_a_finding_there_is_a_summary_alone(outcome: str) -> None:
    request = request_of(FINDINGS[outcome])
    assert [one.kind for one in build_viewer_objects(request, (), VIEWER_KINDS)] == ["SUMMARY"]
    if outcome == "untrained":  # scores that nobody may read
        assert [one.kind for one in build_viewer_objects(request, PICTURES, VIEWER_KINDS)] == ["SUMMARY"]


def test_without_maps_key_slices_are_flagged_but_no_attention_is_shown() -> None:
    built = build_viewer_objects(REQUEST, without_maps(PICTURES), VIEWER_KINDS)
    assert [one.kind for one in built] == ["SUMMARY", "KEY_OBJECTS"]


def test_attention_is_shown_only_on_slices_that_are_high_themselves() -> None:
    low = dict.fromkeys(PICTURES[0].probabilities, 0.3)
    unclear = replace(PICTURES[1], probabilities=low)
    built = build_key_slice_images(REQUEST, (PICTURES[0], unclear, PICTURES[2]))
    shown = [referred(read(one.part10).SourceImageSequence) for one in built]
    assert shown == [[KEY_UIDS[0]], [KEY_UIDS[2]]]
    by_subtype = replace(unclear, probabilities={**low, "subdural": 0.9})
    assert not build_key_slice_images(REQUEST, (by_subtype,))
    presence = {**REQUEST.finding.presence, "subdural": Presence.PRESENT}
    assert build_key_slice_images(replace(REQUEST, finding=replace(REQUEST.finding, presence=presence)), (by_subtype,))


def test_the_same_request_gives_the_same_bytes() -> None:
    again = build_viewer_objects(request_of(), pictures(request_of()), VIEWER_KINDS)
    assert again == build_viewer_objects(REQUEST, PICTURES, VIEWER_KINDS)


# ------------------------------------------------------------------------------------------- the headers


def test_each_kind_lies_in_one_series_of_its_own_in_the_study_of_the_images() -> None:
    results = (*build_reports(REQUEST)[:1], *build_viewer_objects(REQUEST, PICTURES, VIEWER_KINDS))
    read_back = [read(one.part10) for one in results]
    assert {one.StudyInstanceUID for one in read_back} == {EVIDENCE[0].StudyInstanceUID}
    series = {(one.SeriesInstanceUID, one.SeriesNumber, one.SeriesDescription, one.Modality) for one in read_back}
    assert sorted((number, modality) for _, number, _, modality in series) == [
        (9901, "SR"), (9902, "OT"), (9903, "OT"), (9904, "KO"), (9905, "PR"),
    ]  # fmt: skip
    assert len({one.SOPInstanceUID for one in read_back}) == len(results)
    for one, data in zip(results, read_back, strict=True):
        assert (one.sop_instance_uid, one.series_instance_uid) == (data.SOPInstanceUID, data.SeriesInstanceUID)
        assert (data.PatientName, data.StudyDescription) == ("Doe^Jane", "CT HEAD W/O CONTRAST")


def test_what_a_test_model_gave_lies_in_series_apart_and_says_so() -> None:
    marked = build_viewer_objects(request_of(replace(FINDINGS["positive"], test_model=True)), PICTURES, VIEWER_KINDS)
    plain = build_viewer_objects(REQUEST, PICTURES, VIEWER_KINDS)
    assert not {one.series_instance_uid for one in marked} & {one.series_instance_uid for one in plain}
    for one in marked:
        data = read(one.part10)
        assert data.SeriesDescription.startswith("TEST MODEL")
        assert len(data.SeriesDescription) <= 64


def test_images_say_what_they_are_and_what_they_were_made_of() -> None:
    summary, *key_slices = build_viewer_objects(REQUEST, PICTURES, ["SUMMARY", "KEY_SLICES"])
    assert [read(one.part10).InstanceNumber for one in (summary, *key_slices)] == [1, 11, 12, 13]
    for one, conversion in ((summary, "SYN"), (key_slices[0], "WSD")):
        data = read(one.part10)
        assert data.SOPClassUID == SecondaryCaptureImageStorage
        assert (data.ConversionType, data.BurnedInAnnotation, list(data.ImageType)[:2]) == (
            conversion, "YES", ["DERIVED", "SECONDARY"],
        )  # fmt: skip
        assert {item.PurposeOfReferenceCodeSequence[0].CodeValue for item in data.SourceImageSequence} == {"121322"}
        assert "Not for diagnosis" in data.ImageComments
        assert "LossyImageCompression" not in data
    assert referred(read(summary.part10).SourceImageSequence) == KEY_UIDS
    assert referred(read(key_slices[1].part10).SourceImageSequence) == [KEY_UIDS[1]]
    assert LABEL in read(key_slices[0].part10).DerivationDescription


def test_images_of_a_slab_refer_to_all_its_slices() -> None:
    evidence = headers(36)
    request = make_request(evidence, in_slabs(evidence))
    (first, *_) = build_key_slice_images(request, pictures(request))
    data = read(first.part10)
    assert referred(data.SourceImageSequence) == [str(one.SOPInstanceUID) for one in evidence[12:15]]
    assert "mean of 3 slices" in data.DerivationDescription


def test_frames_are_referred_to_by_their_numbers() -> None:
    evidence = headers(1, SOPClassUID=EnhancedCTImageStorage)
    request = make_request(evidence, in_frames(evidence))
    for one in build_viewer_objects(request, pictures(request), ["SUMMARY", "KEY_SLICES"]):
        frames = [item.ReferencedFrameNumber for item in read(one.part10).SourceImageSequence]
        assert set(frames) <= {4, 5, 6}
    state = read(build_presentation_state(request, pictures(request)).part10)
    assert state.GraphicAnnotationSequence[0].ReferencedImageSequence[0].ReferencedFrameNumber == 5


def test_loss_of_the_images_stays_with_what_is_made_of_them() -> None:
    evidence = headers(12, LossyImageCompression="01", LossyImageCompressionRatio="9.5")
    data = read(build_summary_image(make_request(evidence, FINDINGS["negative"]), ()).part10)
    assert (data.LossyImageCompression, data.LossyImageCompressionRatio) == ("01", 9.5)


def test_a_later_revision_names_the_objects_it_replaces() -> None:
    first = build_viewer_objects(REQUEST, PICTURES, VIEWER_KINDS)
    uids = {one.kind: one.sop_instance_uid for one in first}
    later = {
        one.kind: read(one.part10)
        for one in build_viewer_objects(next_revision(REQUEST, first), PICTURES, VIEWER_KINDS)
    }
    assert not {data.SOPInstanceUID for data in later.values()} & set(uids.values())
    assert {one.series_instance_uid for one in first} == {data.SeriesInstanceUID for data in later.values()}
    assert referred(later["SUMMARY"].ReferencedImageSequence) == [uids["SUMMARY"]]
    assert f"Replaces revision 1: {uids['SUMMARY']}." in later["SUMMARY"].ImageComments
    replaced = [uids[kind] for kind in ("KEY_SLICE_1", "KEY_SLICE_2", "KEY_SLICE_3")]
    assert referred(later["KEY_SLICE_2"].ReferencedImageSequence) == replaced
    assert later["KEY_SLICE_2"].InstanceNumber == 22
    description = f"Superseded: replaces revision 1, {uids['KEY_OBJECTS']}."
    assert description in key_object_text(later["KEY_OBJECTS"])
    assert later["PRESENTATION"].ContentDescription == f"Rev 2 replaces {uids['PRESENTATION']}"
    assert len(later["PRESENTATION"].ContentDescription) <= 64


def test_a_picture_of_a_foreign_slice_is_an_error() -> None:
    foreign = [replace(PICTURES[0], sop_instance_uid="2.25.404")]
    for build in (build_key_slice_images, build_presentation_state):
        with pytest.raises(ReportError):
            build(REQUEST, foreign)
    slices = (replace(REQUEST.finding.slices[0], sop_instance_uid="2.25.404"),)
    with pytest.raises(ReportError):
        build_key_objects(request_of(replace(REQUEST.finding, key_slices={"any": slices})))


# ------------------------------------------------------------------------------------------- key objects


def test_key_objects_flag_the_original_key_slices_best_first_and_say_why() -> None:
    document = read(build_key_objects(REQUEST).part10)
    images = [item for item in document.ContentSequence if item.ValueType == "IMAGE"]
    assert [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images] == KEY_UIDS
    assert not any("ConceptNameCodeSequence" in item for item in images)
    assert document.ConceptNameCodeSequence[0].CodeValue == "113000"
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    assert sorted(referred(study.ReferencedSeriesSequence[0].ReferencedSOPSequence)) == sorted(KEY_UIDS)
    assert key_object_text(document).startswith("Suspected intracranial hemorrhage. Probability 97.0 %")


def test_an_indeterminate_result_flags_slices_and_says_that_it_is_indeterminate() -> None:
    document = read(build_key_objects(request_of(FINDINGS["indeterminate"])).part10)
    assert key_object_text(document).startswith("Indeterminate for intracranial hemorrhage")


# --------------------------------------------------------------------------------------------- the pictures


def test_a_slice_is_drawn_in_the_brain_window() -> None:
    grey = plain_slice(PICTURES[0], 80)
    assert grey.shape == (64, 80, 3)
    assert (grey[..., 0] == grey[..., 2]).all()
    assert grey[0, 0, 0] == 0
    assert abs(int(grey[50, 40, 0]) - round(255 * 30 / 80)) <= 2
    assert grey[HOT[0], HOT[1], 0] > 200


@pytest.mark.parametrize("spacing", [(3.0, 3.0), (6.0, 3.0), (1.0, 2.0), (0.0, 0.0)])
def test_a_millimetre_is_as_long_down_as_across(spacing: tuple[float, float]) -> None:
    drawn = plain_slice(replace(PICTURES[0], pixel_spacing_mm=spacing), 400)
    between_rows, between_columns = spacing if all(spacing) else (1.0, 1.0)
    assert max(drawn.shape[:2]) == 400
    assert drawn.shape[0] / drawn.shape[1] == pytest.approx(64 * between_rows / (80 * between_columns), rel=0.01)


def test_heat_lies_where_the_share_is_high_and_nowhere_else() -> None:
    plain, hot = plain_slice(PICTURES[0], 160), heated_slice(PICTURES[0], 160, 12.0)
    changed = (plain != hot).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.mean() / 2, columns.mean() / 2) == pytest.approx(HOT, abs=1.5)
    assert changed.mean() < 0.15
    assert not changed[:8].any()  # nan: the network did not see it


def test_what_speaks_against_is_not_shown() -> None:
    against = replace(PICTURES[0], shares=-np.abs(PICTURES[0].shares))
    assert np.array_equal(heated_slice(against, 160, 12.0), plain_slice(against, 160))
    page = draw_key_slice(REQUEST, against, 0.0)
    assert "No place of this slice adds to the score." in page.texts


def test_brightness_rises_along_the_scale() -> None:
    scale = heated(np.full((1, 50, 3), 70, np.uint8), np.linspace(0.1, 1, 50, dtype=np.float32)[np.newaxis])
    luminance = scale[0].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance[15:]) >= -1).all()
    assert luminance[-1] > luminance[15] + 80


def test_a_key_slice_image_names_slice_score_model_and_what_it_is_not() -> None:
    page = draw_key_slice(REQUEST, PICTURES[0], 12.0)
    words = " ".join(page.texts)
    for part in (
        LABEL, "Slice 5, 20.0 mm", "any hemorrhage 97.0 %", "Revision 1. Model ich-irv2 1.0.0", "12.0", "Doe, Jane",
        "Not for diagnosis",
    ):  # fmt: skip
        assert part in words
    assert not any(line.endswith("…") for line in page.texts)


def test_key_slice_images_share_one_scale_of_colours() -> None:
    weak = replace(PICTURES[1], shares=PICTURES[1].shares / 4)
    first, second = build_key_slice_images(REQUEST, (PICTURES[0], weak))
    alone = build_key_slice_images(REQUEST, (weak,))[0]
    assert pixels(first).shape == pixels(second).shape
    assert not np.array_equal(pixels(second), pixels(alone))


def test_a_test_model_is_named_in_the_picture() -> None:
    request = request_of(replace(FINDINGS["positive"], test_model=True))
    assert "TEST MODEL: means nothing" in draw_key_slice(request, PICTURES[0], 12.0).texts


# ------------------------------------------------------------------------------------- presentation state


def test_the_presentation_state_shows_the_brain_window_and_outlines_the_hottest_place() -> None:
    state = read(build_presentation_state(REQUEST, PICTURES).part10)
    (window,) = state.SoftcopyVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth) == (40, 80)
    assert (state.RescaleIntercept, state.RescaleSlope) == (0, 1)
    assert referred(state.ReferencedSeriesSequence[0].ReferencedImageSequence) == KEY_UIDS
    for annotation in state.GraphicAnnotationSequence:
        (line,) = annotation.GraphicObjectSequence
        points = np.array(line.GraphicData).reshape(-1, 2)
        assert len(points) == line.NumberOfGraphicPoints
        assert (points[0] == points[-1]).all()
        assert points.mean(axis=0) == pytest.approx([HOT[1] + 0.5, HOT[0] + 0.5], abs=1)
        assert annotation.TextObjectSequence[0].UnformattedTextValue == LABEL
    area = state.DisplayedAreaSelectionSequence[0]
    assert list(area.DisplayedAreaBottomRightHandCorner) == [80, 64]
    assert [float(value) for value in area.PresentationPixelSpacing] == [3.0, 3.0]


def test_no_presentation_state_is_made_where_the_rescale_is_unknown_or_differs() -> None:
    bare = tuple(minimal(header) for header in EVIDENCE)
    other_series = headers(1, SeriesInstanceUID="2.25.909")[0]
    study = replace(REQUEST.study, evidence=bare, header=other_series)
    assert build_presentation_state(replace(REQUEST, study=study), PICTURES) is None
    same_series = replace(REQUEST.study, evidence=bare, header=EVIDENCE[-1])
    assert build_presentation_state(replace(REQUEST, study=same_series), PICTURES) is not None
    mixed = (*headers(4), *headers(12, RescaleSlope="2")[4:])
    assert build_presentation_state(make_request(mixed, FINDINGS["positive"]), PICTURES) is None


def test_no_presentation_state_is_made_without_a_place_that_speaks_for_hemorrhage() -> None:
    against = [replace(one, shares=-np.abs(one.shares)) for one in PICTURES]
    assert build_presentation_state(REQUEST, against) is None


def test_pictures_of_other_sizes_have_displayed_areas_of_their_own() -> None:
    shown = (picture(REQUEST, 0, 64, 80), picture(REQUEST, 1, 80, 90))
    areas = read(build_presentation_state(REQUEST, shown).part10).DisplayedAreaSelectionSequence
    assert [list(area.DisplayedAreaBottomRightHandCorner) for area in areas] == [[80, 64], [90, 80]]
