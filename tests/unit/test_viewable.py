"""Which slices can be looked at: in anatomical order, frame by frame, with what was said of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from ich_node.database import Database, InstanceRow, SeriesRow, StudyRow
from ich_node.job_queue.facts import facts_to_json
from ich_node.job_queue.findings import finding_to_json
from ich_node.records import SliceFacts
from ich_node.viewable import ViewableSeries, viewable_series
from tests.ct_series import headers, in_slabs, positive
from tests.unit.queueing import copied_queue

STUDY = "1.2.3"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.fixture
def database(tmp_path: Path, migrated_database: Path) -> Iterator[Database]:
    database = copied_queue(migrated_database, tmp_path)
    with database.writing() as connection:
        study = {"id": 1, "study_instance_uid": STUDY, "created_at": 0.0, "rests_on_series_id": 2}
        connection.execute(insert(StudyRow).values(study))
    yield database
    database.close()


def fact(uid: str, height_mm: float | None, **changes: Any) -> SliceFacts:
    position = None if height_mm is None else (0.0, 0.0, height_mm)
    values: dict[str, Any] = {
        "sop_instance_uid": uid, "frame": None, "sop_class_uid": "1", "modality": "CT", "image_type": (),
        "image_position_patient": position, "image_orientation_patient": AXIAL, "pixel_spacing_mm": (0.5, 0.4),
        "slice_thickness_mm": 5.0, "rows": 64, "columns": 32, "instance_number": None, "convolution_kernel": "H31",
        "names_head": True, "names_other_body_part": False, "tissue": None,
    }  # fmt: skip
    return SliceFacts(**values | changes)


def add(database: Database, number: int, *images: list[SliceFacts], finding: Any = None, **of: Any) -> None:
    """A series, each of its images with what its header says."""
    series = {
        "id": number, "study_id": 1, "series_instance_uid": f"{STUDY}.{number}", "modality": "CT",
        "state": "CONCLUDED", "due_at": 0.0, "first_received_at": 0.0, "last_received_at": 0.0,
        "calling_ae_title": "CT1", "remote_address": "h", "finding": finding,
    }  # fmt: skip
    with database.writing() as connection:
        connection.execute(insert(SeriesRow).values(series))
        for place, facts in enumerate(images):
            image = {
                "series_id": number, "sop_instance_uid": facts[0].sop_instance_uid, "sop_class_uid": "1",
                "transfer_syntax_uid": "1", "sha256": f"{number}.{place}", "size_bytes": 1,
                "path": f"spool/{number}.{place}.dcm", "state": "DECODED", "received_at": 0.0,
                "facts": facts_to_json(tuple(facts)),
            }  # fmt: skip
            connection.execute(insert(InstanceRow).values(image | of))


def shown(database: Database) -> list[ViewableSeries]:
    return list(viewable_series(database, STUDY))


def test_slices_rise_toward_the_head_whatever_came_first(database: Database) -> None:
    add(database, 2, *([fact(f"1.{height}", height)] for height in (10, -5, 100, 0)))
    (series,) = shown(database)
    assert [one.position_mm for one in series.slices] == [-5, 0, 10, 100]
    first = series.slices[0]
    assert (first.rows, first.columns, first.spacing_mm, first.file) == (64, 32, (0.5, 0.4), "spool/2.1.dcm")
    assert (series.kernel, series.thickness_mm, series.is_basis) == ("H31", 5.0, True)


def test_where_no_position_is_known_the_instance_number_counts(database: Database) -> None:
    add(database, 2, *([fact(f"1.{number}", None, instance_number=number)] for number in (3, 1, 2)))
    assert [one.instance_number for one in shown(database)[0].slices] == [1, 2, 3]


def test_each_frame_is_a_slice(database: Database) -> None:
    add(database, 2, [fact("1.1", 5.0 * (4 - frame), frame=frame) for frame in (1, 2, 3)])
    assert [(one.frame, one.file) for one in shown(database)[0].slices] == [
        (3, "spool/2.0.dcm"), (2, "spool/2.0.dcm"), (1, "spool/2.0.dcm"),
    ]  # fmt: skip


def test_the_series_that_the_answer_rests_on_comes_first_then_by_number(database: Database) -> None:
    for series, number in ((1, 7), (2, 9), (3, 2), (4, None)):
        add(database, series, [fact(f"1.{series}", 0.0, series_number=number)])
    assert [(one.number, one.is_basis) for one in shown(database)] == [
        (9, True), (2, False), (7, False), (None, False),
    ]  # fmt: skip


def test_scores_and_key_slices_are_those_of_the_finding(database: Database) -> None:
    evidence = headers(12)
    finding = positive(evidence)
    images = ([fact(str(one.SOPInstanceUID), place)] for place, one in enumerate(evidence))
    add(database, 2, *images, finding=finding_to_json(finding))
    said = {one.sop_instance_uid: one.probabilities for one in finding.slices}
    found = shown(database)[0].slices
    assert {one.sop_instance_uid: one.probabilities for one in found} == said
    keys = {one.sop_instance_uid for one in finding.key_slices["any"]}
    assert keys
    assert {one.sop_instance_uid for one in found if one.is_key} == keys


def test_what_was_said_of_a_slab_is_said_of_each_of_its_slices(database: Database) -> None:
    evidence = headers(12)
    finding = in_slabs(evidence)
    slabs = [one for one in finding.slices if len(one.members) > 1]
    assert slabs
    members = [two for one in slabs for two in one.members]
    images = ([fact(two.sop_instance_uid, place, frame=two.frame)] for place, two in enumerate(members))
    add(database, 2, *images, finding=finding_to_json(finding))
    said = {(one.sop_instance_uid, one.frame): one.probabilities for one in shown(database)[0].slices}
    assert all(said[two.key] == one.probabilities for one in slabs for two in one.members)


def test_without_a_result_nothing_is_said(database: Database) -> None:
    add(database, 2, [fact("1.1", 0.0)])
    (one,) = shown(database)[0].slices
    assert (one.probabilities, one.is_key) == (None, False)


def test_what_is_not_there_cannot_be_looked_at(database: Database) -> None:
    add(database, 2, [fact("1.1", 0.0)], path=None)
    add(database, 3, [fact("1.2", 0.0)], current=False)
    add(database, 4, [replace(fact("1.3", 0.0), rows=0)])
    assert shown(database) == []
    assert viewable_series(database, "1.9") == ()
