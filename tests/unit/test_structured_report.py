"""The report says what the finding says, for every outcome."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage

from ich_node import __version__
from ich_node.errors import ReportError
from ich_node.records import (
    HEMORRHAGE_CLASSES,
    Completeness,
    Gap,
    NotAnalysedReason,
    OtherSeriesFinding,
    PlaneMember,
    Presence,
    ReportIdentity,
    ReportRequest,
    Triage,
)
from ich_node.report.identity import device_observer_uid, tracking_uid
from ich_node.report.structured_report import build_reports
from ich_node.report.study_attributes import TYPE_2
from ich_node.report.withdrawal import withdrawn_context
from ich_node.report.wording import completion_flag_description
from ich_node.triage import not_analysed as no_result
from tests.ct_series import (
    CREATED,
    INSTALLATION,
    MODEL,
    STUDY,
    headers,
    in_frames,
    in_slabs,
    make_request,
    negative,
    not_analysed,
    positive,
    withdrawn,
)
from tests.report_reading import (
    CERTAINTY,
    CONCLUSION,
    EVIDENCE,
    FINDING,
    FINDINGS,
    KEY_SLICE,
    PARAMETERS,
    SUMMARY,
    TRIAGE,
    build,
    class_value,
    code,
    groups,
    items,
    read,
    references,
    text,
)

IDENTITY = ReportIdentity(INSTALLATION, STUDY, revision=1)


@pytest.mark.parametrize(
    ("outcome", "value", "category", "status", "certainty", "completion"),
    [
        ("positive", "Present", "RID49480", "111242", 97.0, "COMPLETE"),
        ("indeterminate", "Indeterminate", "indeterminate", "111241", 34.0, "COMPLETE"),
        ("negative", "Absent", "no-finding", "111241", 2.0, "COMPLETE"),
        ("incomplete", "Indeterminate", "indeterminate", "111243", 2.0, "PARTIAL"),
        ("incomplete positive", "Present", "RID49480", "111244", 97.0, "PARTIAL"),
        ("not analysed", "Undetermined", "not-analysed", "111245", None, "PARTIAL"),
        ("untrained", "Undetermined", "not-analysed", "111245", None, "PARTIAL"),
    ],
)
def test_each_outcome_has_its_codes(
    outcome: str, value: str, category: str, status: str, certainty: float | None, completion: str
) -> None:
    report = build(FINDINGS[outcome])
    group = groups(report)["any"]
    assert class_value(group) == value
    assert code(report, TRIAGE) == category
    assert code(report, SUMMARY) == status
    assert report.CompletionFlag == completion
    numbers = [float(item.MeasuredValueSequence[0].NumericValue) for item in items(group, CERTAINTY)]
    assert numbers == ([] if certainty is None else [certainty])


@pytest.mark.parametrize("outcome", FINDINGS)
def test_every_report_has_a_group_for_each_of_the_six_classes(outcome: str) -> None:
    assert tuple(groups(build(FINDINGS[outcome]))) == HEMORRHAGE_CLASSES


@pytest.mark.parametrize("outcome", FINDINGS)
def test_every_report_is_unverified_and_preliminary(outcome: str) -> None:
    report = build(FINDINGS[outcome])
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert text(report, CONCLUSION).endswith("Research software, not a medical device. Not for diagnosis. Unverified.")


def test_only_present_classes_are_written_as_findings_and_have_key_slices() -> None:
    for name, group in groups(build(FINDINGS["positive"])).items():
        present = name in ("any", "intraparenchymal", "intraventricular")
        assert len(items(group, FINDING)) == present
        assert len(items(group, KEY_SLICE)) == 3 * present


def test_the_certainty_is_inferred_from_the_top_slice() -> None:
    finding = FINDINGS["positive"]
    (number,) = items(groups(build(finding))["any"], CERTAINTY)
    (image,) = number.ContentSequence
    assert image.RelationshipType == "INFERRED FROM"
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == finding.key_slices["any"][0].sop_instance_uid


def test_without_key_slices_the_certainty_is_inferred_from_the_slice_that_scored_highest() -> None:
    finding = replace(FINDINGS["negative"], key_slices={})
    best = max(finding.slices, key=lambda one: one.probabilities["subdural"])
    (number,) = items(groups(build(finding))["subdural"], CERTAINTY)
    assert number.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == best.sop_instance_uid


def test_the_image_library_lists_the_images_that_are_referred_to() -> None:
    finding = FINDINGS["positive"]
    (library,) = items(build(finding), "111028")
    uids = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items(library, "260753009")]
    assert sorted(uids) == sorted({one.sop_instance_uid for one in finding.key_slices["any"]})


def test_the_image_library_of_a_report_without_a_result_holds_the_middle_slice() -> None:
    (image,) = items(build(not_analysed()), "260753009")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == EVIDENCE[6].SOPInstanceUID


def test_a_slice_of_a_multi_frame_object_is_referred_to_by_its_frame() -> None:
    evidence = headers(1, SOPClassUID=EnhancedCTImageStorage)
    uid = str(evidence[0].SOPInstanceUID)
    finding = in_frames(evidence)
    finding = replace(finding, key_slices=dict.fromkeys(HEMORRHAGE_CLASSES, finding.slices[4:6]))
    report = build(finding, evidence)
    references = [item.ReferencedSOPSequence[0] for item in items(groups(report)["any"], KEY_SLICE)]
    assert [(item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber) for item in references] == [(uid, 5), (uid, 6)]
    (library,) = items(report, "111028")
    listed = [item.ReferencedSOPSequence[0].ReferencedFrameNumber for item in items(library, "260753009")]
    assert sorted(listed) == [5, 6]
    assert "(instance number): 1 frame 5, 1 frame 6." in text(report, CONCLUSION)
    assert (
        len(report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence) == 1
    )


def test_algorithm_weights_and_both_thresholds_are_named_in_every_group() -> None:
    for group in groups(build(FINDINGS["positive"])).values():
        assert (text(group, "111001"), text(group, "111003")) == (MODEL.name, MODEL.version)
        parameters = [str(item.TextValue) for item in items(group, PARAMETERS)]
        assert f"weights SHA-256: {MODEL.sha256}" in parameters
        assert "thresholds: absent below 0.2, present from 0.5" in parameters


def test_what_was_measured_at_the_thresholds_is_said_of_its_class() -> None:
    said = "any: sensitivity 0.97 (lower bound 0.85, target 0.95 NOT met: 36 positive studies)"
    model = replace(MODEL, operating_points={"any": said})
    for name, group in groups(build(FINDINGS["positive"], model=model)).items():
        parameters = [str(item.TextValue) for item in items(group, PARAMETERS)]
        assert (f"measured at the thresholds: {said}" in parameters) is (name == "any")


def test_a_report_without_a_model_names_no_algorithm() -> None:
    report = build(not_analysed(), model=None)
    assert not items(report, "111001")
    assert "Model" not in text(report, CONCLUSION)


def test_the_time_of_each_step_is_written() -> None:
    steps = [item.TextValue for item in items(build(FINDINGS["negative"]), "processing-step")]
    assert steps[0] == "first slice received: 2026-03-02 14:04:51.120+00:00"
    assert len(steps) == 3


# ------------------------------------------------------------------------------------------------ wording


def test_the_conclusion_of_a_positive_report_names_probability_subtypes_and_slices() -> None:
    assert text(build(FINDINGS["positive"]), CONCLUSION).startswith(
        "Suspected intracranial hemorrhage. Probability 97.0 % (suspected from 50.0 %, no finding below 20.0 %). "
        "Suspected subtypes: intraparenchymal 93.0 %, intraventricular 61.0 %. "
        "Indeterminate subtypes: subarachnoid 31.0 %. Slices to look at first (instance number): 5, 4, 6. "
        f"The series has no gap (12 slices). Model ich-irv2 1.0.0, software ich-node {__version__}."
    )


def test_the_conclusion_of_a_negative_report_does_not_exclude_hemorrhage() -> None:
    assert "does not exclude hemorrhage" in text(build(FINDINGS["negative"]), CONCLUSION)


def test_the_conclusion_of_an_incomplete_report_names_every_gap() -> None:
    conclusion = text(build(FINDINGS["incomplete"]), CONCLUSION)
    assert "-12.0 to 3.0 mm" in conclusion
    assert "86.0 to 101.0 mm" in conclusion
    assert "2 slices could not be read" in conclusion
    assert "never called negative" in conclusion


def test_a_report_without_a_result_says_the_reason_and_that_it_is_not_negative() -> None:
    report = build(not_analysed(NotAnalysedReason.TOO_FEW_SLICES, "7 slices"))
    assert text(report, CONCLUSION).startswith("Not analysed: fewer than 10 slices (7 slices).")
    assert "this is not a negative result" in text(report, CONCLUSION)
    assert report.CompletionFlagDescription == "Not analysed: fewer than 10 slices (7 slices)"


def test_an_untrained_model_is_named_as_the_reason() -> None:
    report = build(FINDINGS["untrained"])
    assert text(report, CONCLUSION).startswith("Untrained model, no finding.")
    assert "%" not in text(report, CONCLUSION)


def test_a_key_slice_without_an_instance_number_is_named_by_its_position() -> None:
    report = build(FINDINGS["positive"], headers(12, InstanceNumber=None))
    assert "(instance number): at 20.0 mm, at 15.0 mm, at 25.0 mm." in text(report, CONCLUSION)


def test_a_later_revision_says_that_it_replaces_the_earlier() -> None:
    report = build(FINDINGS["negative"], identity=ReportIdentity("2.25.1", STUDY, revision=2))
    assert "Revision 2: replaces revision 1 of this report." in text(report, CONCLUSION)
    assert report.InstanceNumber == 2


@pytest.mark.parametrize("count", [1, 2, 5, 40])
@pytest.mark.parametrize("unreadable", [0, 3])
def test_the_missing_positions_fit_the_completion_flag_description(count: int, unreadable: int) -> None:
    gaps = tuple(Gap(-1234.5 + 20 * n, -1225.0 + 20 * n) for n in range(count))
    report = build(replace(FINDINGS["positive"], completeness=Completeness(gaps, unreadable)))
    description = report.CompletionFlagDescription
    assert len(description) <= 64
    assert "-1234..-1225" in description
    assert ("unreadable" in description) == bool(unreadable)
    named = description.count("..")
    assert named == count or f"(+{count - named} more)" in description


def test_unreadable_slices_alone_make_a_report_partial() -> None:
    report = build(replace(FINDINGS["positive"], completeness=Completeness(unreadable=1)))
    assert (report.CompletionFlag, report.CompletionFlagDescription) == ("PARTIAL", "1 unreadable")


def test_findings_of_a_test_model_are_marked_in_every_object_and_lie_in_a_series_of_their_own() -> None:
    marked = replace(FINDINGS["positive"], test_model=True)
    for result in build_reports(make_request(EVIDENCE, marked)):
        report = read(result.part10)
        assert report.SeriesDescription.startswith("TEST MODEL")
        assert text(report, CONCLUSION).startswith("TEST MODEL")
        assert all(text(group, "111001").startswith("TEST MODEL") for group in groups(report).values())
    assert report.SeriesInstanceUID != build(FINDINGS["positive"]).SeriesInstanceUID


@pytest.mark.parametrize(
    ("known", "sentences", "description"),
    [
        (
            Completeness(cut_below=True),
            "The series may not show the whole head. "
            "The lowest slice still shows much brain: the series seems to begin inside the head.",
            "cut below",
        ),
        (
            Completeness(short=True, cut_above=True),
            "The series may not show the whole head. The series covers less than the height of a head. "
            "The highest slice still shows much brain: the series seems to end inside the head.",
            "cut above; too short",
        ),
        (
            Completeness((Gap(1.0, 9.0),), cut_below=True, cut_above=True, missing_by_count=3),
            "The series is incomplete. Slices are missing along the slice normal at 1.0 to 9.0 mm. "
            "The PACS holds 3 more images of this series than came. The lowest slice",
            "3 missing; cut both ends; gaps at mm: 1..9",
        ),
        (
            Completeness(missing_by_count=1),
            "The series is incomplete. The PACS holds 1 more image of this series than came. Model",
            "1 missing",
        ),
        (
            Completeness((Gap(-1234.0, -1200.0),) * 8, 999, None, True, True, True, 999),
            "999 slices could not be read. The PACS holds 999 more images",
            "999 unreadable; 999 missing; cut both ends; too short; 8 gaps",
        ),
    ],
)
def test_what_a_series_lacks_is_said_in_full_and_in_short(
    known: Completeness, sentences: str, description: str
) -> None:
    report = build(replace(FINDINGS["positive"], completeness=known))
    assert sentences in text(report, CONCLUSION)
    assert (report.CompletionFlag, report.CompletionFlagDescription) == ("PARTIAL", description)


def test_a_series_that_may_not_show_the_whole_head_is_never_called_negative() -> None:
    report = build(replace(FINDINGS["incomplete"], completeness=Completeness(cut_above=True)))
    assert "an incomplete series is never called negative" in text(report, CONCLUSION)


def test_slabs_are_named_by_their_middle_slice_and_their_stretch() -> None:
    evidence = headers(36)
    report = build(in_slabs(evidence), evidence)
    conclusion = text(report, CONCLUSION)
    assert "(instance number, and those of its slab): 14 (13 to 15), 11 (10 to 12), 17 (16 to 18)." in conclusion
    assert "The series has no gap (36 slices). Thin slices were averaged to slabs of 5 mm" in conclusion
    assert "(12 slabs)" in conclusion
    (best, *_) = items(groups(report)["any"], KEY_SLICE)
    assert best.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == evidence[13].SOPInstanceUID


def test_a_slab_without_instance_numbers_is_named_by_positions() -> None:
    evidence = headers(36, InstanceNumber=None)
    assert "at 13.0 mm (12.0 to 14.0 mm)" in text(build(in_slabs(evidence), evidence), CONCLUSION)


def test_a_series_of_single_slices_is_not_said_to_be_in_slabs() -> None:
    assert "slab" not in text(build(FINDINGS["positive"]), CONCLUSION)


def test_slabs_of_frames_are_named_by_their_frames() -> None:
    evidence = headers(1, SOPClassUID=EnhancedCTImageStorage)
    finding = in_frames(evidence)
    uid = str(evidence[0].SOPInstanceUID)
    slab = replace(finding.slices[4], members=tuple(PlaneMember(uid, frame, float(frame)) for frame in (4, 5, 6)))
    report = build(replace(finding, key_slices={"any": (slab,)}), evidence)
    assert "(instance number, and those of its slab): 1 frame 5 (4 to 6)." in text(report, CONCLUSION)


@pytest.mark.parametrize("mark", ["derived", "bone_kernel"])
def test_a_second_choice_of_series_is_named(mark: str) -> None:
    expected = {
        "derived": "Analysed from a derived series (reformatted, averaged or lossy-compressed): "
        "the study has no original one.",
        "bone_kernel": "Analysed from a bone reconstruction: the study has no soft-tissue one.",
    }[mark]
    assert expected in text(build(replace(FINDINGS["negative"], **{mark: True})), CONCLUSION)
    assert expected not in text(build(replace(not_analysed(), **{mark: True})), CONCLUSION)
    assert expected not in text(build(FINDINGS["negative"]), CONCLUSION)


@pytest.mark.parametrize(
    ("outcome", "other", "number", "sentence"),
    [
        (
            "positive",
            Triage.NEGATIVE,
            3,
            "The series has no gap (12 slices). Another series of this study (series 3) was negative for the software; "
            "the study keeps the higher answer, which is this one.",
        ),
        (
            "negative",
            Triage.POSITIVE,
            None,
            "Another series of this study was positive for the software; the study keeps that higher answer. "
            "What follows is of this series alone. The software found no intracranial hemorrhage.",
        ),
        (
            "negative",
            None,
            4,
            "Another series of this study (series 4) gave no finding; this is not a negative result.",
        ),
        (
            "not analysed",
            Triage.INDETERMINATE,
            3,
            "Another series of this study (series 3) was indeterminate for the software; the study keeps that higher "
            "answer. What follows is of this series alone. Not analysed: not axial. "
            "There is no result for this series; this is not a negative result.",
        ),
    ],
)
def test_another_series_that_says_something_else_is_named_beside_the_answer(
    outcome: str, other: Triage | None, number: int | None, sentence: str
) -> None:
    report = build(FINDINGS[outcome], other_series=(OtherSeriesFinding("2.25.5", number, other),))
    assert sentence in text(report, CONCLUSION)


def test_of_several_other_series_the_highest_answer_is_named_first() -> None:
    others = (OtherSeriesFinding("2.25.5", 5, None), OtherSeriesFinding("2.25.6", 6, Triage.POSITIVE))
    conclusion = text(build(FINDINGS["negative"], other_series=others), CONCLUSION)
    assert conclusion.index("series 6") < conclusion.index("found no intracranial") < conclusion.index("series 5")


# ---------------------------------------------------------------------------------------------- withdrawal


def test_a_withdrawn_report_says_so_in_words_and_codes() -> None:
    report = build(withdrawn())
    assert text(report, CONCLUSION).startswith(
        "WITHDRAWN: the earlier report of this software on this study does not hold: the series holds images of two "
        "patients. There is no result for this study; this is not a negative result."
    )
    assert (report.CompletionFlag, report.CompletionFlagDescription) == (
        "PARTIAL",
        "Withdrawn: the series holds images of two patients",
    )
    assert (code(report, SUMMARY), code(report, TRIAGE)) == ("111245", "withdrawn")
    assert {class_value(group) for group in groups(report).values()} == {"Undetermined"}


@pytest.mark.parametrize("reason", NotAnalysedReason)
def test_every_reason_of_a_withdrawal_fits_the_completion_flag_description(reason: NotAnalysedReason) -> None:
    description = completion_flag_description(withdrawn(reason))
    assert description.startswith("Withdrawn: ")
    assert len(description) <= 64


def test_a_withdrawn_finding_that_still_says_something_is_an_error() -> None:
    with pytest.raises(ReportError):
        build(replace(FINDINGS["positive"], withdrawn=True))


def test_a_report_is_withdrawn_from_its_own_file_alone() -> None:
    attributes = Dataset()
    attributes.RequestedProcedureID, attributes.RequestedProcedureDescription = "RP1", "CT head"
    evidence = headers(
        12, PatientName="Müller^Jörg", RequestAttributesSequence=[attributes], TimezoneOffsetFromUTC="+0200"
    )
    first = build(FINDINGS["positive"], evidence)
    second = build(withdrawn(), evidence, study=withdrawn_context(first), identity=replace(IDENTITY, revision=2))
    for keyword in (
        *TYPE_2, "SpecificCharacterSet", "IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDate",
        "ReferencedRequestSequence", "TimezoneOffsetFromUTC", "CurrentRequestedProcedureEvidenceSequence",
    ):  # fmt: skip
        assert second[keyword] == first[keyword], keyword
    assert second.SOPInstanceUID != first.SOPInstanceUID


def test_a_report_without_evidence_cannot_be_withdrawn() -> None:
    report = build(FINDINGS["positive"])
    del report.CurrentRequestedProcedureEvidenceSequence
    with pytest.raises(ReportError):
        withdrawn_context(report)


# --------------------------------------------------------------------------------------------- predecessors


def test_each_encoding_names_the_report_before_in_the_same_encoding() -> None:
    before = references(build_reports(make_request(EVIDENCE, FINDINGS["positive"])))
    after = build_reports(make_request(EVIDENCE, FINDINGS["negative"], predecessors=before))
    for reference, result in zip(before, after, strict=True):
        (study,) = read(result.part10).PredecessorDocumentsSequence
        (series,) = study.ReferencedSeriesSequence
        (document,) = series.ReferencedSOPSequence
        assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (STUDY, reference.series_instance_uid)
        assert document.ReferencedSOPClassUID == reference.sop_class_uid
        assert document.ReferencedSOPInstanceUID == reference.sop_instance_uid


def test_an_encoding_that_the_report_before_lacks_names_the_one_there_is() -> None:
    only = references(build_reports(make_request(EVIDENCE, FINDINGS["positive"])))[2:]
    report = build(FINDINGS["negative"], predecessors=only)
    (document,) = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert document.ReferencedSOPInstanceUID == only[0].sop_instance_uid


def test_a_first_report_names_no_predecessor() -> None:
    assert "PredecessorDocumentsSequence" not in build(FINDINGS["positive"])


# ----------------------------------------------------------------------------------- identity and encodings


def test_the_same_request_gives_the_same_bytes() -> None:
    assert build_reports(make_request(EVIDENCE, FINDINGS["positive"])) == build_reports(
        make_request(headers(12), positive(headers(12)))
    )


def test_three_encodings_hold_the_same_content_under_uids_of_their_own() -> None:
    results = build_reports(make_request(EVIDENCE, FINDINGS["positive"]))
    assert [result.encoding for result in results] == ["Comprehensive3DSR", "ComprehensiveSR", "EnhancedSR"]
    assert len({result.sop_instance_uid for result in results}) == 3
    reports = [read(result.part10) for result in results]
    for result, report in zip(results, reports, strict=True):
        assert report.file_meta.MediaStorageSOPInstanceUID == report.SOPInstanceUID == result.sop_instance_uid
        assert report.file_meta.MediaStorageSOPClassUID == report.SOPClassUID == result.sop_class_uid
        del report.SOPClassUID, report.SOPInstanceUID
    assert reports[0] == reports[1] == reports[2]


def test_another_revision_study_or_installation_never_shares_a_uid() -> None:
    identities = [
        ReportIdentity(installation, study, revision)
        for installation in ("2.25.1", "2.25.11")
        for study in ("2.25.2", "2.25.22")
        for revision in (1, 11)
    ]
    uids = [
        result.sop_instance_uid
        for identity in identities
        for result in build_reports(make_request(EVIDENCE, not_analysed(), identity=identity))
    ]
    assert len(set(uids)) == 3 * len(identities)
    assert all(len(uid) <= 64 for uid in uids)


def test_revisions_share_their_series_and_all_its_attributes() -> None:
    late = headers(13)
    first = build(FINDINGS["positive"])
    second = build(
        negative(late),
        late,
        identity=replace(make_request(EVIDENCE, FINDINGS["positive"]).identity, revision=2),
        created_at=CREATED + timedelta(days=1),
    )
    assert first.SOPInstanceUID != second.SOPInstanceUID
    for keyword in ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime", "Modality"):
        assert first[keyword] == second[keyword]


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "IssuerOfPatientID"])
def test_a_report_under_a_corrected_identity_lies_in_a_series_of_its_own(keyword: str) -> None:
    first, corrected = build(FINDINGS["positive"]), build(FINDINGS["positive"], headers(12, **{keyword: "Other"}))
    assert first.SeriesInstanceUID != corrected.SeriesInstanceUID
    assert first.SOPInstanceUID == corrected.SOPInstanceUID


def test_other_patient_data_leave_the_series_as_it_is() -> None:
    changed = headers(12, PatientBirthDate="19610101", AccessionNumber="ACC2")
    assert build(FINDINGS["positive"], changed).SeriesInstanceUID == build(FINDINGS["positive"]).SeriesInstanceUID


def test_observer_and_tracking_uids_follow_the_identity() -> None:
    request = make_request(EVIDENCE, FINDINGS["positive"])
    report = build(FINDINGS["positive"])
    (observer,) = items(report, "121012")
    assert device_observer_uid(request.identity.installation_uid) == observer.UID
    for name, group in groups(report).items():
        (tracking,) = items(group, "112040")
        assert tracking_uid(request.identity, name) == tracking.UID


def test_times_come_from_the_request_alone() -> None:
    report = build(FINDINGS["positive"], created_at=datetime(2026, 3, 2, 23, 30, tzinfo=timezone(timedelta(hours=-5))))
    assert (report.ContentDate, report.ContentTime) == ("20260302", "233000.000000")
    assert (report.InstanceCreationDate, report.InstanceCreationTime) == ("20260302", "233000.000000")
    assert report.TimezoneOffsetFromUTC == "-0500"


def test_times_are_written_in_the_zone_of_the_images() -> None:
    evidence = headers(12, TimezoneOffsetFromUTC="+0200")
    report = build(FINDINGS["positive"], evidence, created_at=datetime(2026, 3, 2, 23, 30, tzinfo=UTC))
    assert (report.ContentDate, report.ContentTime) == ("20260303", "013000.000000")
    assert report.TimezoneOffsetFromUTC == "+0200"
    assert "16:04:51.120+02:00" in items(report, "processing-step")[0].TextValue


def test_words_that_the_character_set_cannot_hold_are_replaced() -> None:
    model = replace(MODEL, name="modèle", version="1.0 ≥ 0.9")
    report = build(not_analysed(detail="Schädel"), headers(12, SpecificCharacterSet=None), model=model)
    assert "Sch?del" in text(report, CONCLUSION)
    assert text(groups(report)["any"], "111001") == "mod?le"


def test_a_slice_that_is_not_among_the_images_is_an_error() -> None:
    with pytest.raises(ReportError):
        build_reports(make_request(EVIDENCE[:3], FINDINGS["positive"]))


def test_a_report_without_images_is_an_error() -> None:
    request: ReportRequest = make_request(EVIDENCE, not_analysed())
    with pytest.raises(ReportError):
        build_reports(replace(request, study=replace(request.study, evidence=())))


def test_a_class_that_the_finding_does_not_name_is_undetermined() -> None:
    presence = {"any": Presence.ABSENT}
    report = build(replace(FINDINGS["negative"], presence=presence))
    assert class_value(groups(report)["subdural"]) == "Undetermined"


TAKEN_BACK = (
    NotAnalysedReason.TWO_PATIENTS,
    NotAnalysedReason.TWO_STUDIES,
    NotAnalysedReason.TWO_FRAMES_OF_REFERENCE,
    NotAnalysedReason.OTHER_PIXELS,
    NotAnalysedReason.UID_ELSEWHERE,
    NotAnalysedReason.REJECTED_QUALITY,
    NotAnalysedReason.REJECTED_SAFETY,
    NotAnalysedReason.REJECTED_WORKLIST,
    NotAnalysedReason.REJECTED_BY_PERSON,
)


@pytest.mark.parametrize("reason", TAKEN_BACK)
def test_why_a_report_is_withdrawn_fits_into_what_every_viewer_shows(reason: NotAnalysedReason) -> None:
    finding = replace(no_result(reason, "", Completeness()), withdrawn=True)

    assert completion_flag_description(finding) == f"Withdrawn: {reason.text}"
    assert len(completion_flag_description(finding)) <= 64
