"""The summary page says what the finding says, for every outcome and every name."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta, timezone
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ich_node.errors import ReportError
from ich_node.records import (
    HEMORRHAGE_CLASSES,
    Completeness,
    Gap,
    NotAnalysedReason,
    OtherSeriesFinding,
    ReportIdentity,
    ReportRequest,
    Triage,
    TriageFinding,
)
from ich_node.report import page_style as look
from ich_node.report.result_header import in_zone_of_images
from ich_node.report.summary_charts import _side_by_side
from ich_node.report.summary_image import build_summary_image, draw_summary
from ich_node.report.withdrawal import withdrawn_context
from tests.ct_series import CREATED, INSTALLATION, MODEL, STUDY, headers, in_slabs, make_request, positive, withdrawn
from tests.report_reading import EVIDENCE, FINDINGS, build, read, references
from tests.viewing import next_revision, picture, pictures, pixels, without_maps

OUTCOMES: dict[str, TriageFinding] = {
    **FINDINGS,
    "withdrawn": withdrawn(),
    "test model": replace(FINDINGS["positive"], test_model=True),
}
VERDICTS = {
    "positive": "SUSPECTED HEMORRHAGE",
    "indeterminate": "INDETERMINATE",
    "negative": "NO HEMORRHAGE FOUND",
    "incomplete": "INDETERMINATE",
    "incomplete positive": "SUSPECTED HEMORRHAGE",
    "not analysed": "NOT ANALYSED",
    "untrained": "NO RESULT",
    "withdrawn": "RESULT WITHDRAWN",
    "test model": "SUSPECTED HEMORRHAGE",
}
LONG_NAME = (
    "Wolfeschlegelsteinhausenbergerdorff-von-und-zu-Oberschwappach^Hubert Blaine Maximilian^Ignatius^Prof. Dr.^III"
)
UTF_8 = "ISO_IR 192"
HEADERS: dict[str, dict[str, Any]] = {
    "long": {"PatientName": LONG_NAME * 2, "PatientID": "X" * 64, "AccessionNumber": "9" * 64},
    "latin": {"PatientName": "Müller-Lüdenscheidt^Jörg", "StudyDescription": "CT Schädel nativ " + "und " * 11},
    "japanese": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "StudyDescription": "頭部CT",
    },
    "korean": {"SpecificCharacterSet": UTF_8, "PatientName": "Kim^Minjun=김^민준"},
    "hangul alone": {"SpecificCharacterSet": UTF_8, "PatientName": "김^민준"},
    "greek": {"SpecificCharacterSet": UTF_8, "PatientName": "Παπαδόπουλος^Γεώργιος"},
    "arabic": {"SpecificCharacterSet": UTF_8, "PatientName": "Al-Masri^Mohammed=محمد^المصري"},
    "hebrew": {"SpecificCharacterSet": UTF_8, "PatientName": "כהן^דוד"},
    "empty": dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "StudyTime", "StudyID"), ""),
    "absent": dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "AccessionNumber")),
    "odd": {"PatientName": "a^b^c^d^e^f=^=", "PatientSex": "W", "StudyDate": "2. 3. 2026", "StudyTime": "noon"},
}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, that the headers are odd


def request_of(finding: TriageFinding, **changes: Any) -> ReportRequest:
    return make_request(EVIDENCE, finding, **changes)


def said(request: ReportRequest) -> str:
    """Return all that is written on the page."""
    shown = pictures(request) if request.finding.triage is not None else ()
    return "\n".join(draw_summary(in_zone_of_images(request), shown).texts)


def words(request: ReportRequest) -> str:
    return said(request).replace("\n", " ")


def assert_nothing_is_clipped(page: np.ndarray) -> None:
    """The margin of the page is empty all round."""
    background = np.array(look.PAGE, np.uint8)
    edge = look.MARGIN - 4
    for stripe in (page[:12], page[-12:], page[:, :edge], page[:, -edge:]):
        assert (stripe == background).all()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_has_its_verdict_in_words_and_a_colour_of_its_own(outcome: str) -> None:
    request = request_of(OUTCOMES[outcome])
    text = words(request)
    assert VERDICTS[outcome] in text
    assert sum(verdict in text for verdict in set(VERDICTS.values())) == 1
    result = build_summary_image(request, pictures(request) if OUTCOMES[outcome].key_slices else ())
    page = pixels(result)
    assert page.shape[1] == 1024
    assert_nothing_is_clipped(page)
    grounds = {name: (page == np.array(colour, np.uint8)).all(axis=2).sum() for name, colour in GROUNDS.items()}
    assert max(grounds, key=lambda name: grounds[name]) == VERDICTS[outcome].replace("NO RESULT", "NOT ANALYSED")


GROUNDS = {
    "SUSPECTED HEMORRHAGE": look.RED,
    "INDETERMINATE": look.AMBER,
    "NO HEMORRHAGE FOUND": look.TEAL,
    "NOT ANALYSED": look.GREY,
    "RESULT WITHDRAWN": look.VIOLET,
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_page_says_that_it_is_research_and_names_the_patient(outcome: str) -> None:
    text = words(request_of(OUTCOMES[outcome]))
    assert text.count("Research software, not a medical device. Not for diagnosis. Unverified.") == 2
    for value in ("Doe, Jane", "PID0001", "1960-01-01", "ACC0001", "2026-03-02", "Revision 1"):
        assert value in text


@pytest.mark.parametrize("outcome", ["not analysed", "untrained", "withdrawn"])
def test_a_page_without_a_result_gives_the_reason_no_number_and_no_picture(outcome: str) -> None:
    text = words(request_of(OUTCOMES[outcome]))
    assert "this is not a negative result" in text
    assert "%" not in text
    assert "Slices to look at" not in text
    page = pixels(build_summary_image(request_of(FINDINGS["untrained"]), pictures(request_of(FINDINGS["untrained"]))))
    assert page.shape[0] == 768


def test_a_negative_page_does_not_exclude_hemorrhage() -> None:
    assert "does not exclude hemorrhage" in words(request_of(FINDINGS["negative"]))


def test_a_positive_page_gives_all_classes_with_thresholds_and_its_key_slices() -> None:
    text = said(request_of(FINDINGS["positive"])).splitlines()
    for name in (*HEMORRHAGE_CLASSES[1:], "97.0 %", "93.0 %", "present", "absent", "indeterminate", "20.0 | 50.0 %"):
        assert name in text
    assert [line for line in text if line.startswith("Slice ")] == ["Slice 5", "Slice 4", "Slice 6"]


def test_pages_of_a_model_that_was_not_trained_are_marked() -> None:
    text = words(request_of(OUTCOMES["test model"], model=replace(MODEL, trained=False)))
    assert "TEST MODEL: this result comes from a model that was not trained and means nothing." in text
    assert "(untrained)" in text
    assert read(build_summary_image(request_of(OUTCOMES["test model"]), ()).part10).SeriesDescription.startswith("TEST")


def test_a_later_revision_names_the_one_it_supersedes() -> None:
    first = request_of(FINDINGS["negative"])
    later = next_revision(first, (build_summary_image(first, ()),))
    assert "Revision 2, supersedes revision 1" in words(later)
    lone = replace(first, identity=ReportIdentity(INSTALLATION, STUDY, 2))
    assert "supersedes" not in words(lone)


def test_what_a_series_lacks_is_said_and_shown_along_the_head() -> None:
    known = Completeness((Gap(20.0, 45.0),), unreadable=2, cut_below=True, missing_by_count=3)
    finding = positive(EVIDENCE)
    slices = tuple(one for one in finding.slices if not 20 < one.position_mm < 45)
    text = words(request_of(replace(finding, completeness=known, slices=slices)))
    for sentence in (
        "The series is incomplete. Slices are missing along the slice normal at 20.0 to 45.0 mm.",
        "2 slices could not be read.",
        "The PACS holds 3 more images of this series than came.",
        "the series seems to begin inside the head",
        "foot 0 mm (cut: the head goes on)",
        "missing",
    ):
        assert sentence in text


def test_many_gaps_leave_room_for_what_else_is_lacking() -> None:
    known = Completeness(tuple(Gap(20.0 * n, 20.0 * n + 9) for n in range(60)), 3, short=True, missing_by_count=4)
    text = words(request_of(replace(FINDINGS["positive"], completeness=known)))
    assert "…" in text
    assert "3 slices could not be read." in text
    assert "less than the height of a head" in text


def test_a_higher_answer_of_another_series_stands_before_the_verdict() -> None:
    others = (OtherSeriesFinding("2.25.5", 5, None), OtherSeriesFinding("2.25.6", 6, Triage.POSITIVE))
    text = words(request_of(FINDINGS["negative"], other_series=others))
    assert text.index("series 6") < text.index("this series alone") < text.index("NO HEMORRHAGE FOUND")
    assert text.index("NO HEMORRHAGE FOUND") < text.index("series 5")


def test_a_page_on_which_everything_comes_together_has_room_for_all_of_it() -> None:
    others = tuple(OtherSeriesFinding(f"2.25.{n}", n, Triage.POSITIVE if n % 2 else None) for n in range(30))
    known = Completeness(tuple(Gap(20.0 * n, 20.0 * n + 9) for n in range(60)), 3, None, True, True, True, 4)
    finding = replace(FINDINGS["indeterminate"], completeness=known, derived=True, bone_kernel=True, test_model=True)
    request = make_request(headers(12, **HEADERS["long"]), finding, other_series=others)
    request = replace(request, steps=request.steps * 4)
    page = draw_summary(in_zone_of_images(request), pictures(request))
    assert_nothing_is_clipped(page.pixels())
    assert page.pixels().shape[0] < 3200
    said_at_all = " ".join(page.texts)
    assert "13 more: see the report." in said_at_all
    assert said_at_all.endswith("Unverified.")


def test_of_several_patient_names_the_first_is_shown() -> None:
    assert "Doe, Jane" in said(make_request(headers(12, PatientName=["Doe^Jane", "Roe^June"]), FINDINGS["negative"]))


def test_steps_are_given_in_the_zone_of_the_report_with_the_time_between_them() -> None:
    text = said(request_of(FINDINGS["negative"], created_at=CREATED.astimezone(timezone(timedelta(hours=5.5)))))
    assert "Times (2026-03-02, UTC+05:30), 20.9 s in all" in text
    assert "19:34:51  first slice received" in text
    assert "19:35:01  last slice received +9.9 s" in text


def test_slabs_are_named_by_their_slices() -> None:
    evidence = headers(36)
    text = words(make_request(evidence, in_slabs(evidence)))
    assert "Slice 14 (13 to 15)" in text
    assert "along the head (12 slabs)" in text
    assert "averaged to slabs of 5 mm" in text


@pytest.mark.parametrize("name", HEADERS)
def test_no_name_or_number_is_too_long_or_strange_for_the_page(name: str) -> None:
    request = make_request(headers(12, **HEADERS[name]), FINDINGS["positive"])
    page = pixels(build_summary_image(request, pictures(request)))
    assert_nothing_is_clipped(page)
    assert page[:140, look.MARGIN : 500].max() > 200  # something stands where the name belongs


def test_alphabetic_and_ideographic_groups_of_a_name_are_both_shown() -> None:
    assert "Yamada, Tarou  山田 太郎" in said(make_request(headers(12, **HEADERS["japanese"]), FINDINGS["negative"]))
    assert "Al-Masri, Mohammed" in said(make_request(headers(12, **HEADERS["arabic"]), FINDINGS["negative"]))
    assert "(no name)" in said(make_request(headers(12, **HEADERS["empty"]), FINDINGS["negative"]))


def test_an_identifier_is_never_shortened_while_it_has_the_length_that_dicom_allows() -> None:
    assert "X" * 64 in said(make_request(headers(12, **HEADERS["long"]), FINDINGS["negative"]))


@pytest.mark.parametrize("count", [1, 10, 600])
def test_series_of_any_length_are_drawn_with_every_high_slice_seen(count: int) -> None:
    evidence = headers(12)[:1] * count
    finding = positive(headers(12))
    low = dict.fromkeys(HEMORRHAGE_CLASSES, 0.01)
    one = finding.slices[0]
    slices = [replace(one, sop_instance_uid=f"2.25.{n}", position_mm=0.5 * n, probabilities=low) for n in range(count)]
    slices[count // 2] = replace(slices[count // 2], probabilities=dict.fromkeys(HEMORRHAGE_CLASSES, 0.9))
    finding = replace(finding, slices=tuple(slices), key_slices={}, probabilities=low | {"any": 0.01})
    page = draw_summary(make_request(evidence, finding), ()).pixels()
    assert_nothing_is_clipped(page)
    bars = (page == np.array(look.BRIGHT_RED, np.uint8)).all(axis=2).sum(axis=0)
    assert bars.max() > 60


def test_numbers_above_slices_that_lie_close_together_stand_side_by_side() -> None:
    places = _side_by_side([100.0, 101.0, 102.0, 400.0, 1000.0])
    assert places[:3] == [83.0, 101.0, 119.0]
    assert places[3] == 400.0
    assert places[4] <= 1024 - look.MARGIN
    assert all(later - before >= 18 for before, later in pairwise(places))


def test_the_same_request_gives_the_same_bytes() -> None:
    request = request_of(FINDINGS["positive"])
    assert build_summary_image(request, pictures(request)) == build_summary_image(request, pictures(request))


def test_a_withdrawing_page_is_made_of_the_report_that_it_withdraws() -> None:
    report = build(FINDINGS["positive"])
    request = request_of(withdrawn(NotAnalysedReason.TWO_PATIENTS), study=withdrawn_context(report), model=None)
    request = replace(request, predecessors=references([]))
    text = words(request)
    assert "images of two patients" in text
    assert "Doe, Jane" in text
    assert build_summary_image(request, ()).kind == "SUMMARY"


def test_a_page_needs_an_image_and_pictures_of_the_study() -> None:
    request = request_of(FINDINGS["positive"])
    with pytest.raises(ReportError):
        build_summary_image(replace(request, study=replace(request.study, evidence=())), ())
    with pytest.raises(ReportError):
        build_summary_image(request, [replace(picture(request), sop_instance_uid="2.25.404")])


def test_pictures_need_no_maps_on_the_page() -> None:
    request = request_of(FINDINGS["positive"])
    with_maps = pixels(build_summary_image(request, pictures(request)))
    assert np.array_equal(with_maps, pixels(build_summary_image(request, without_maps(pictures(request)))))
