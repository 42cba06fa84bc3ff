"""Reports agree with the headers of their images, and no header makes one fail."""

import logging
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from ich_node.records import StudyContext
from ich_node.report.structured_report import build_reports
from ich_node.report.study_attributes import OPTIONAL, TYPE_2, content_digest, patient_digest
from ich_node.report.withdrawal import withdrawn_context
from tests.ct_series import STUDY, headers, make_request, minimal, not_analysed
from tests.report_reading import EVIDENCE, FINDINGS, build, read


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


# ---------------------------------------------------------------------------------------- who speaks for all


def test_everything_but_references_is_read_from_the_header_that_speaks_for_the_study() -> None:
    header = headers(12)[11]
    study = StudyContext(STUDY, tuple(map(minimal, EVIDENCE)), header)
    whole = make_request((header, *EVIDENCE), FINDINGS["positive"])
    whole = replace(whole, study=replace(whole.study, evidence=EVIDENCE, header=header))
    assert build_reports(replace(whole, study=study)) == build_reports(whole)


def test_a_corrected_header_speaks_for_the_study_and_not_the_images() -> None:
    corrected = headers(1, PatientName="Smith^Ann", AccessionNumber="ACC2", TimezoneOffsetFromUTC="+0300")[0]
    report = build(FINDINGS["positive"], study=StudyContext(STUDY, EVIDENCE, corrected))
    assert (report.PatientName, report.AccessionNumber, report.TimezoneOffsetFromUTC) == ("Smith^Ann", "ACC2", "+0300")


# ----------------------------------------------------------------------------------------------- the digest

REQUEST = Dataset()
REQUEST.RequestedProcedureID, REQUEST.RequestedProcedureDescription = "RP1", "CT head"


def test_the_digest_is_that_of_any_other_image_and_of_the_report_itself() -> None:
    evidence = headers(12, PatientName="Müller^Jörg", RequestAttributesSequence=[REQUEST])
    report = build(FINDINGS["positive"], evidence)
    assert content_digest(evidence[0]) == content_digest(evidence[7]) == content_digest(report)
    assert patient_digest(evidence[0]) == patient_digest(report)


def test_the_digest_is_that_of_the_same_text_in_another_character_set() -> None:
    latin = headers(1, PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")[0]
    unicode = headers(1, PatientName="Müller^Jörg^^", SpecificCharacterSet="ISO_IR 192")[0]
    assert content_digest(latin) == content_digest(unicode)
    assert patient_digest(latin) == patient_digest(unicode)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "Doe^Janet"),
        ("PatientID", "PID0002"),
        ("IssuerOfPatientID", "CLINIC"),
        ("PatientBirthDate", "19600102"),
        ("PatientSex", None),
        ("AccessionNumber", "ACC2"),
        ("StudyDescription", "CT"),
        ("RequestAttributesSequence", [REQUEST]),
    ],
)
def test_the_digest_changes_with_what_a_report_takes_over(keyword: str, value: object) -> None:
    assert content_digest(headers(1, **{keyword: value})[0]) != content_digest(EVIDENCE[0])


@pytest.mark.parametrize("keyword", ["SeriesDescription", "KVP", "TimezoneOffsetFromUTC", "PatientPosition"])
def test_the_digest_stays_whatever_else_an_image_says(keyword: str) -> None:
    changed = headers(1, **{keyword: "+0200" if keyword == "TimezoneOffsetFromUTC" else None})[0]
    assert content_digest(changed) == content_digest(EVIDENCE[0])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*TYPE_2, *OPTIONAL, "TimezoneOffsetFromUTC"]), st.binary(max_size=90)))
def test_no_bytes_in_a_header_make_a_report_fail(values: dict[str, bytes]) -> None:
    evidence = headers(1)
    for keyword, value in values.items():
        tag = Tag(keyword)
        evidence[0][tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    report = build(not_analysed(), evidence)
    assert report.StudyInstanceUID == STUDY
    assert len(content_digest(evidence[0])) == 64
    assert build(not_analysed(), study=withdrawn_context(report)).SeriesInstanceUID == report.SeriesInstanceUID


def test_an_odd_value_is_never_quoted_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    build(FINDINGS["positive"], headers(12, PatientAge="secret", PatientID="P" * 70, StudyDate="secret"))
    assert "secret" not in caplog.text
    assert "PPPP" not in caplog.text
