"""What viewers show passes the validators that a PACS vendor would run, with zero errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ich_node.records import ReportRequest, ResultObject, Triage
from ich_node.report.structured_report import build_reports
from ich_node.report.viewer_objects import VIEWER_KINDS, build_viewer_objects
from ich_node.report.withdrawal import withdrawn_context
from tests.acceptance.test_report_validators import (
    IMAGES,
    NAMES,
    OTHER_SERIES,
    OUTCOMES,
    errors,
    need,
    need_pixelmed,
    pixelmed_lines,
    write_ct,
)
from tests.ct_series import make_request, read_header
from tests.report_reading import read
from tests.viewing import next_revision, pictures


def request_of(images: Sequence[Path], outcome: str) -> ReportRequest:
    evidence = tuple(read_header(path) for path in images)
    others = OTHER_SERIES if outcome == "disagreement" else ()
    return make_request(evidence, OUTCOMES[outcome](evidence), other_series=others)


def build_all(request: ReportRequest) -> tuple[ResultObject, ...]:
    shown = pictures(request) if request.finding.triage is not None else ()
    return build_viewer_objects(request, shown, VIEWER_KINDS)


def write(folder: Path, results: Sequence[ResultObject], name: str = "") -> list[Path]:
    paths = [folder / f"{name}{one.kind}-{one.encoding}.dcm" for one in results]
    for path, one in zip(paths, results, strict=True):
        path.write_bytes(one.part10)
    return paths


def assert_valid(written: Sequence[Path], images: Sequence[Path]) -> None:
    for path in written:
        assert not errors("dciodvfy", "-new", path), path.name
    assert not errors("dcentvfy", *images, *written)


@pytest.fixture(autouse=True)
def validators() -> None:
    need("dciodvfy")
    need("dcentvfy")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_gives_valid_objects(tmp_path: Path, outcome: str) -> None:
    images = write_ct(tmp_path, **IMAGES.get(outcome, {}))
    request = request_of(images, outcome)
    results = build_all(request)
    assert results[0].kind == "SUMMARY"
    assert (len(results) > 1) == (request.finding.triage in (Triage.POSITIVE, Triage.INDETERMINATE))
    # the series are no enhanced objects but in name, so only what was made of them is checked there
    beside = [] if outcome == "multi_frame" else images
    assert_valid(write(tmp_path, results), beside)


@pytest.mark.parametrize("names", NAMES)
def test_names_of_every_kind_give_valid_objects_that_agree_with_images_and_report(tmp_path: Path, names: str) -> None:
    images = write_ct(tmp_path, **NAMES[names])
    request = request_of(images, "positive")
    results = (*build_all(request), *build_reports(request))
    assert {one.kind for one in results} == {
        "SUMMARY", "KEY_SLICE_1", "KEY_SLICE_2", "KEY_SLICE_3", "KEY_OBJECTS", "PRESENTATION", "SR",
    }  # fmt: skip
    assert_valid(write(tmp_path, results), images)


def test_headers_that_lack_what_is_not_demanded_give_valid_objects(tmp_path: Path) -> None:
    gone: dict[str, Any] = dict.fromkeys(("StudyID", "BodyPartExamined", "AccessionNumber", "StudyTime", "PatientSex"))
    gone |= {"LossyImageCompression": "01", "LossyImageCompressionRatio": "8.5", "RequestAttributesSequence": None}
    images = write_ct(tmp_path, **gone)
    written = write(tmp_path, build_all(request_of(images, "positive")))
    for path in written:
        assert not errors("dciodvfy", "-new", path), path.name
    of_the_source = errors("dcentvfy", *images)
    assert not errors("dcentvfy", *images, *written) - of_the_source


def test_revisions_agree_with_each_other_up_to_the_one_that_withdraws(tmp_path: Path) -> None:
    images = write_ct(tmp_path, **NAMES["latin_1"])
    first = request_of(images, "positive")
    written, results = [], build_all(first)
    written += write(tmp_path, results, "1-")
    second = next_revision(first, results)
    results = build_all(second)
    written += write(tmp_path, results, "2-")
    report = read(build_reports(second)[0].part10)
    withdrawn = replace(
        next_revision(second, results), finding=OUTCOMES["withdrawn"](()), study=withdrawn_context(report)
    )
    written += write(tmp_path, build_all(withdrawn), "3-")
    assert len(written) == 13
    assert_valid(written, images)


@pytest.mark.parametrize("series", ["cq500/CQ500-CT-181", "ge-head-tilted"])
def test_objects_on_real_headers_add_no_error(shared_data: Path, tmp_path: Path, series: str) -> None:
    images = sorted((shared_data / series).glob("*.dcm"))
    assert len(images) >= 28
    written = write(tmp_path, build_all(request_of(images, "positive")))
    assert len(written) == 6
    for path in written:
        assert not errors("dciodvfy", "-new", path), path.name
    assert not errors("dcentvfy", *images, *written) - errors("dcentvfy", *images)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_template_validator_finds_no_error_in_key_object_selections(tmp_path: Path) -> None:
    need_pixelmed()
    request = request_of(write_ct(tmp_path, **NAMES["latin_1"]), "positive")
    results = build_viewer_objects(request, (), ["KEY_OBJECTS"])
    (path,) = write(tmp_path, build_viewer_objects(next_revision(request, results), (), ["KEY_OBJECTS"]))
    lines = pixelmed_lines(path)
    assert "Root Template Validation Complete" in lines, lines
    assert not [line for line in lines if "Error" in line or "Warning" in line]
