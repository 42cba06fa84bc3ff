"""Reports pass the validators that a PACS vendor would run, with zero errors."""

import shutil
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage

from ich_node.records import Completeness, Gap, OtherSeriesFinding, ReportReference, Triage, TriageFinding
from ich_node.report.structured_report import ENCODINGS, build_reports
from ich_node.report.study_attributes import source_character_set
from ich_node.report.withdrawal import withdrawn_context
from tests.ct_series import (
    STUDY,
    as_file,
    ct_slice,
    in_frames,
    in_slabs,
    incomplete,
    indeterminate,
    make_request,
    negative,
    not_analysed,
    positive,
    read_header,
    untrained,
    withdrawn,
)

DSR2HTML = "/usr/bin/dsr2html"
PIXELMED = Path("/usr/share/java/pixelmed.jar")

CUT = Completeness(short=True, cut_below=True, cut_above=True, missing_by_count=3)
OTHER_SERIES = (OtherSeriesFinding(f"{STUDY}.3", 3, Triage.NEGATIVE), OtherSeriesFinding(f"{STUDY}.4", None, None))
OUTCOMES: dict[str, Callable[[tuple[Dataset, ...]], TriageFinding]] = {
    "positive": positive,
    "indeterminate": indeterminate,
    "negative": negative,
    "not_analysed": lambda _: not_analysed(detail="orientation 1/0/0, 0/0/-1"),
    "untrained": untrained,
    "incomplete": incomplete,
    "incomplete_positive": lambda evidence: replace(positive(evidence), completeness=Completeness((Gap(10.0, 20.0),))),
    "test_model": lambda evidence: replace(positive(evidence), test_model=True),
    "slabs": in_slabs,
    "multi_frame": in_frames,
    "derived": lambda evidence: replace(negative(evidence), derived=True, bone_kernel=True),
    "disagreement": positive,
    "cut": lambda evidence: replace(indeterminate(evidence), completeness=CUT),
    "withdrawn": lambda _: withdrawn(),
}
IMAGES: dict[str, dict[str, Any]] = {"multi_frame": {"SOPClassUID": EnhancedCTImageStorage}}
"""What the images of an outcome are like."""
NAMES: dict[str, dict[str, Any]] = {
    "ascii": {"SpecificCharacterSet": None},
    "latin_1": {"PatientName": "Müller-Lüdenscheidt^Jörg", "StudyDescription": "CT Schädel"},
    "utf_8": {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Łukasiewicz^Žofie", "StudyDescription": "CT głowy"},
    "japanese": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "StudyDescription": "頭部CT",
    },
    "empty": dict.fromkeys(
        ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"), ""
    ),
    "odd": {"PatientAge": "66", "PatientSex": "W", "StudyDate": "2. 3. 2026", "PatientIdentityRemoved": "YES"},
}


def need(tool: str) -> None:
    """Skip where a program is absent, by its name."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def need_pixelmed() -> None:
    """Skip where the template validator is absent, by its name."""
    need("java")
    if not PIXELMED.is_file():
        pytest.skip("pixelmed.jar (libpixelmed-java) is not installed")


def errors(*command: str | Path) -> set[str]:
    """Return the error lines of a validator."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace")
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}


def write_ct(folder: Path, **changes: Any) -> list[Path]:
    """Write a series of 12 slices."""
    paths = [folder / f"ct{number:02}.dcm" for number in range(1, 13)]
    for number, path in enumerate(paths, start=1):
        path.write_bytes(as_file(ct_slice(number, **changes)))
    return paths


def write_reports(folder: Path, images: list[Path], outcome: str, revision: int = 1, **changes: Any) -> list[Path]:
    """Write the three encodings of one report on these images."""
    evidence = tuple(read_header(path) for path in images)
    others = OTHER_SERIES if outcome == "disagreement" else ()
    request = make_request(evidence, OUTCOMES[outcome](evidence), other_series=others, **changes)
    identity = replace(request.identity, revision=revision)
    paths = []
    for result in build_reports(replace(request, identity=identity)):
        paths.append(folder / f"{outcome}-{revision}-{result.encoding}.dcm")
        paths[-1].write_bytes(result.part10)
    return paths


def references_to(reports: list[Path]) -> tuple[ReportReference, ...]:
    """Return how a later report refers to these."""
    encodings = [encoding for encoding, _ in ENCODINGS]
    return tuple(
        ReportReference(encoding, report.SOPClassUID, report.SOPInstanceUID, report.SeriesInstanceUID)
        for encoding, report in zip(encodings, map(read_header, reports), strict=True)
    )


def write_revisions(folder: Path, images: list[Path], outcomes: Iterable[str]) -> list[Path]:
    """Write reports each of which replaces the one before; a withdrawn one is made of that alone."""
    reports: list[Path] = []
    for revision, outcome in enumerate(outcomes, start=1):
        changes: dict[str, Any] = {"predecessors": references_to(reports[-3:])} if reports else {}
        if outcome == "withdrawn":
            changes["study"] = withdrawn_context(read_header(reports[-3]))
        reports += write_reports(folder, images, outcome, revision, **changes)
    return reports


def assert_readable(report: Path) -> None:
    """Check that dcmtk renders a report, and decodes every character of it where it knows the character set."""
    html = report.with_suffix(".html")
    # dcmtk on the C library's iconv has no converter for ISO 2022 IR 87, in images as little as in reports
    convert = [] if "ISO 2022 IR 87" in source_character_set(read_header(report)) else ["+U8"]
    done = subprocess.run([DSR2HTML, *convert, report, html], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith(("E:", "F:"))]
    assert "Not for diagnosis" in html.read_text(encoding="utf-8")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_dciodvfy_and_dsr2html_find_no_error_in_any_encoding(tmp_path: Path, outcome: str) -> None:
    need("dciodvfy")
    need(DSR2HTML)
    for report in write_reports(tmp_path, write_ct(tmp_path, **IMAGES.get(outcome, {})), outcome):
        assert not errors("dciodvfy", "-new", report)
        assert_readable(report)


@pytest.mark.parametrize("names", NAMES)
def test_reports_on_names_of_every_kind_are_valid_and_agree_with_their_images(tmp_path: Path, names: str) -> None:
    for tool in ("dciodvfy", "dcentvfy", DSR2HTML):
        need(tool)
    images = write_ct(tmp_path, **NAMES[names])
    reports = write_reports(tmp_path, images, "positive")
    for report in reports:
        assert not errors("dciodvfy", "-new", report)
        assert_readable(report)
    assert not errors("dcentvfy", *images, *reports)


def test_revisions_in_one_study_agree_with_each_other_and_the_images(tmp_path: Path) -> None:
    need("dcentvfy")
    images = write_ct(tmp_path)
    outcomes = ("incomplete", "positive", "negative", "not_analysed", "untrained", "test_model", "slabs", "withdrawn")
    reports = write_revisions(tmp_path, images, outcomes)
    assert not errors("dcentvfy", *images, *reports)


@pytest.mark.parametrize("names", NAMES)
def test_a_report_and_the_one_that_withdraws_it_are_valid_and_agree(tmp_path: Path, names: str) -> None:
    for tool in ("dciodvfy", "dcentvfy", DSR2HTML):
        need(tool)
    images = write_ct(tmp_path, **NAMES[names])
    reports = write_revisions(tmp_path, images, ("positive", "withdrawn"))
    assert len({read_header(report).SeriesInstanceUID for report in reports}) == 1
    for report in reports[3:]:
        assert read_header(report).PredecessorDocumentsSequence
        assert not errors("dciodvfy", "-new", report)
        assert_readable(report)
    assert not errors("dcentvfy", *images, *reports)


def test_the_validators_do_find_errors(tmp_path: Path) -> None:
    """Guard against a validator whose complaints we do not see."""
    need("dciodvfy")
    need("dcentvfy")
    images = write_ct(tmp_path)
    (report, *_) = write_reports(tmp_path, images, "positive")
    broken = read_header(report)
    broken.PatientName = "Other^Name"
    del broken.CompletionFlag
    broken.save_as(report)
    assert errors("dciodvfy", "-new", report)
    assert errors("dcentvfy", *images, report)


@pytest.mark.parametrize("series", ["cq500/CQ500-CT-181", "cq500/CQ500-CT-47", "ge-head-tilted"])
def test_reports_on_real_headers_add_no_error(shared_data: Path, tmp_path: Path, series: str) -> None:
    for tool in ("dciodvfy", "dcentvfy", DSR2HTML):
        need(tool)
    images = sorted((shared_data / series).glob("*.dcm"))
    assert len(images) >= 28
    reports = write_reports(tmp_path, images, "positive")
    for report in reports:
        assert not errors("dciodvfy", "-new", report)
        assert_readable(report)
    of_the_source = errors("dcentvfy", *images)
    assert not errors("dcentvfy", *images, *reports) - of_the_source


def pixelmed_lines(report: Path) -> list[str]:
    """Run PixelMed's template validator; its XPath needs the limits of newer Java versions lifted."""
    command = ["java", *(f"-Djdk.xml.xpath{limit}=0" for limit in ("ExprGrpLimit", "ExprOpLimit", "TotalOpLimit"))]
    command += ["-cp", str(PIXELMED), "com.pixelmed.validate.DicomSRValidator", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    return (done.stdout + done.stderr).splitlines()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_template_validator_finds_no_error(tmp_path: Path) -> None:
    need_pixelmed()
    images = write_ct(tmp_path, **NAMES["latin_1"])
    (tmp_path / "enhanced").mkdir()
    enhanced = write_ct(tmp_path / "enhanced", **IMAGES["multi_frame"])[:1]
    encodings = {"positive": 0, "indeterminate": 1, "negative": 2, "not_analysed": 0, "incomplete": 1}
    encodings |= {"slabs": 0, "disagreement": 1, "derived": 2}
    reports = [write_reports(tmp_path, images, outcome)[encoding] for outcome, encoding in encodings.items()]
    reports.append(write_reports(tmp_path, enhanced, "multi_frame")[0])
    reports += write_revisions(tmp_path, images, ("cut", "withdrawn"))[::3]
    with ThreadPoolExecutor(2) as pool:
        for report, lines in zip(reports, pool.map(pixelmed_lines, reports), strict=True):
            assert "Root Template Validation Complete" in lines, (report.name, lines)
            assert not [line for line in lines if "Error" in line], report.name
