"""The report says what the finding says, for every outcome and on every header."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from typing import Any

import pydicom
import pytest
from ct_series import (
    CREATED,
    MODEL,
    STUDY,
    headers,
    incomplete,
    indeterminate,
    make_request,
    negative,
    not_analysed,
    positive,
    untrained,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import EnhancedCTImageStorage

from ich_node import __version__
from ich_node.errors import ReportError
from ich_node.records import (
    HEMORRHAGE_CLASSES,
    Completeness,
    Gap,
    NotAnalysedReason,
    Presence,
    ReportIdentity,
    ReportRequest,
    TriageFinding,
)
from ich_node.report.identity import device_observer_uid, tracking_uid
from ich_node.report.structured_report import build_reports
from ich_node.report.study_attributes import OPTIONAL, TYPE_2

EVIDENCE = headers(12)

GROUP, FINDING, CERTAINTY, KEY_SLICE = "125007", "121071", "111012", "121080"
CONCLUSION, SUMMARY, TRIAGE, PARAMETERS = "121077", "111017", "triage-category", "111002"


def build(finding: TriageFinding, evidence: tuple[Dataset, ...] = EVIDENCE, **changes: Any) -> Dataset:
    """Build a report and read its preferred encoding back."""
    return read(build_reports(make_request(evidence, finding, **changes))[0].part10)


def read(part10: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(part10))


def items(container: Dataset, code_value: str) -> list[Dataset]:
    """Return all content items with this concept, at any depth."""
    return [item for item in _walk(container) if item.ConceptNameCodeSequence[0].CodeValue == code_value]


def code(container: Dataset, code_value: str) -> str:
    (item,) = items(container, code_value)
    return str(item.ConceptCodeSequence[0].CodeValue)


def text(container: Dataset, code_value: str) -> str:
    (item,) = items(container, code_value)
    return str(item.TextValue)


def groups(report: Dataset) -> dict[str, Dataset]:
    """Return the measurement groups by the hemorrhage class they name in their tracking identifier."""
    return {text(group, "112039").removeprefix("ich-node "): group for group in items(report, GROUP)}


def class_value(group: Dataset) -> str:
    """Return the coded value of the qualitative evaluation, the last CODE item with a class as its concept."""
    (value,) = (
        item.ConceptCodeSequence[0].CodeMeaning
        for item in group.ContentSequence
        if item.ValueType == "CODE"
        and item.RelationshipType == "CONTAINS"
        and item.ConceptNameCodeSequence[0].CodeValue != FINDING
    )
    return str(value)


def _walk(container: Dataset) -> Iterator[Dataset]:
    for item in container.get("ContentSequence", ()):
        yield item
        yield from _walk(item)


FINDINGS = {
    "positive": positive(EVIDENCE),
    "indeterminate": indeterminate(EVIDENCE),
    "negative": negative(EVIDENCE),
    "incomplete": incomplete(EVIDENCE),
    "incomplete positive": replace(positive(EVIDENCE), completeness=Completeness((Gap(1.0, 9.0),))),
    "not analysed": not_analysed(),
    "untrained": untrained(EVIDENCE),
}


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
    scored = positive(headers(12))
    slices = tuple(replace(one, sop_instance_uid=uid, frame=n) for n, one in enumerate(scored.slices, start=1))
    finding = replace(scored, slices=slices, key_slices=dict.fromkeys(HEMORRHAGE_CLASSES, slices[4:6]))
    report = build(finding, evidence)
    references = [item.ReferencedSOPSequence[0] for item in items(groups(report)["any"], KEY_SLICE)]
    assert [(item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber) for item in references] == [(uid, 5), (uid, 6)]
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
    assert "Revision 2, replaces earlier reports" in text(report, CONCLUSION)
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


# -------------------------------------------------------------------------------------- patient and study


def test_patient_and_study_agree_with_the_images() -> None:
    report = build(FINDINGS["positive"])
    for keyword in (*TYPE_2, "IssuerOfPatientID", "StudyDescription", "PatientAge", "StudyInstanceUID"):
        assert report[keyword] == EVIDENCE[0][keyword]


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Łukasz^Žofie=山田^太郎"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (None, "Doe^Jane"),
    ],
)
def test_the_character_set_of_the_images_is_kept_and_names_have_the_same_bytes(
    character_set: str | list[str] | None, name: str
) -> None:
    evidence = headers(12, SpecificCharacterSet=character_set, PatientName=name, StudyDescription=name[:20])
    result = build_reports(make_request(evidence, FINDINGS["positive"]))[0]
    report = read(result.part10)
    assert report.get("SpecificCharacterSet") == evidence[0].get("SpecificCharacterSet")
    assert str(report.PatientName) == name
    untouched = headers(1, SpecificCharacterSet=character_set, PatientName=name)[0]
    assert read(result.part10).get_item("PatientName").value == untouched.get_item("PatientName").value


def test_a_name_in_an_undeclared_character_set_keeps_its_bytes() -> None:
    evidence = headers(12, SpecificCharacterSet=None)
    tag = Tag("PatientName")
    for header in evidence:
        header[tag] = RawDataElement(tag, "PN", 10, b"M\xfcller^Eva", 0, False, True)
    report = build(FINDINGS["positive"], evidence)
    assert report.get_item("PatientName").value.rstrip(b" ") == b"M\xfcller^Eva"


def test_an_unknown_character_set_is_replaced_by_utf_8() -> None:
    evidence = headers(12)
    tag = Tag("SpecificCharacterSet")
    for header in evidence:
        header[tag] = RawDataElement(tag, "CS", 8, b"KLINGON ", 0, False, True)
    assert build(FINDINGS["positive"], evidence).SpecificCharacterSet == "ISO_IR 192"


def test_missing_type_2_attributes_are_written_empty() -> None:
    evidence = headers(12, **dict.fromkeys(TYPE_2))
    report = build(FINDINGS["positive"], evidence)
    assert all(keyword in report and not report[keyword].value for keyword in TYPE_2)
    assert "SeriesDate" not in report


@pytest.mark.parametrize(
    ("keyword", "value", "written"),
    [
        ("PatientAge", "66", None),
        ("PatientBirthDate", "19.11.1960", ""),
        ("StudyDate", "yesterday", ""),
        ("PatientSex", "W", ""),
        ("StudyDescription", "x" * 80, None),
        ("PatientWeight", "heavy", None),
        ("PatientIdentityRemoved", "YES", None),
    ],
)
def test_a_value_without_a_valid_form_is_left_out_or_empty(keyword: str, value: str, written: str | None) -> None:
    evidence = headers(12)
    tag = Tag(keyword)
    for header in evidence:
        header[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value.encode(), 0, False, True)
    report = build(FINDINGS["positive"], evidence)
    assert (str(report[keyword].value or "") if keyword in report else None) == written


@pytest.mark.parametrize(("keyword", "value"), [("PatientID", "P" * 70), ("AccessionNumber", "A" * 20)])
def test_what_a_pacs_matches_on_is_kept_even_when_it_is_too_long(keyword: str, value: str) -> None:
    report = build(FINDINGS["positive"], headers(12, **{keyword: value}))
    assert report.get_item(keyword).value.decode() == value


def test_the_request_that_the_images_name_is_referenced() -> None:
    attributes = Dataset()
    attributes.RequestedProcedureID, attributes.RequestedProcedureDescription = "RP1", "CT head"
    (item,) = build(FINDINGS["positive"], headers(12, RequestAttributesSequence=[attributes])).ReferencedRequestSequence
    assert (item.RequestedProcedureID, item.AccessionNumber, item.StudyInstanceUID) == ("RP1", "ACC0001", STUDY)
    assert "ReferencedRequestSequence" not in build(FINDINGS["positive"])


def test_every_image_that_was_read_is_evidence() -> None:
    (study,) = build(FINDINGS["positive"]).CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    uids = [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence]
    assert uids == [header.SOPInstanceUID for header in EVIDENCE]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*TYPE_2, *OPTIONAL, "TimezoneOffsetFromUTC"]), st.binary(max_size=90)))
def test_no_bytes_in_a_header_make_a_report_fail(values: dict[str, bytes]) -> None:
    evidence = headers(1)
    for keyword, value in values.items():
        tag = Tag(keyword)
        evidence[0][tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    report = build(not_analysed(), evidence)
    assert report.StudyInstanceUID == STUDY


def test_an_odd_value_is_never_quoted_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    build(FINDINGS["positive"], headers(12, PatientAge="secret", PatientID="P" * 70, StudyDate="secret"))
    assert "secret" not in caplog.text
    assert "PPPP" not in caplog.text


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
