"""A site's table of labels and its scores: what is read, and every fault by its line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from ich_node.errors import TableFaults
from ich_node.records import HEMORRHAGE_CLASSES, Presence, Triage
from ich_node.score_table import write_part
from ich_node.validation.labels import LabelTable, read_labels
from ich_node.validation.scores_file import read_scores
from tests.validating import MODEL, probabilities

HEADING = "study_instance_uid,any,epidural,intraparenchymal,intraventricular,subarachnoid,subdural"


def table(folder: Path, *lines: str, heading: str = HEADING) -> LabelTable:
    path = folder / "labels.csv"
    path.write_text("\n".join([heading, *lines]) + "\n")
    return read_labels(path)


def faults(folder: Path, *lines: str, heading: str = HEADING) -> list[str]:
    with pytest.raises(TableFaults) as error:
        table(folder, *lines, heading=heading)
    return error.value.faults


def test_labels_are_read_and_an_empty_subtype_is_not_known(tmp_path: Path) -> None:
    found = table(tmp_path, "1.2.3,1,0,,0,0,1", "", "1.2.4,0,,,,,").labels
    assert [one.study_instance_uid for one in found] == ["1.2.3", "1.2.4"]
    assert found[0].shows["intraparenchymal"] is None
    assert found[0].shows["subdural"] is True
    assert not any(found[1].shows.values())
    assert None not in found[1].shows.values()


def test_a_table_of_a_spreadsheet_with_semicolons_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("\ufeffany;study_instance_uid\r\n1;1.2.3\r\n".encode())
    (one,) = read_labels(tmp_path / "labels.csv").labels
    assert (one.study_instance_uid, one.hemorrhage, one.shows["subdural"]) == ("1.2.3", True, None)


def test_every_fault_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    assert faults(
        tmp_path,
        "1.2.3,1,0,0,0,0,1",
        "1.2.03,1,,,,,",
        "1.2.4,yes,,,,,2",
        "1.2.5,,,,,,",
        "1.2.6,0,0,0,0,0,1",
        "1.2.7,1,0,0,0,0,0",
        "1.2.8,1,0",
        "1.2.3,0,,,,,",
    ) == [
        "line 3: '1.2.03' is no Study Instance UID",
        "line 4: any is 'yes'; it may be 0 or 1",
        "line 4: subdural is '2'; it may be 0 or 1, or empty: not known",
        "line 5: any is empty; it must be 0 or 1",
        "line 6: any is 0, and subdural 1",
        "line 7: any is 1, and every subtype 0; leave those empty that are not known",
        "line 8: 3 cells, and 7 columns",
        "line 9: 1.2.3 is on line 2 with other labels",
    ]


def test_other_columns_missing_ones_and_double_ones_are_named(tmp_path: Path) -> None:
    found = faults(tmp_path, heading="study_instance_uid,subdurl,epidural,epidural")
    assert [one.partition(";")[0] for one in found] == [
        "line 1: the column any is missing",
        "line 1: 'subdurl' is no column of labels",
        "line 1: the column epidural is there 2 times",
    ]


def test_a_line_that_repeats_another_is_counted_once_and_named(tmp_path: Path) -> None:
    found = table(tmp_path, "1.2.3,1,,,,,1", "1.2.3,1,,,,,1")
    assert len(found.labels) == 1
    assert found.repeats == ("line 3: 1.2.3 is on line 2 with the same labels",)


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "missing"), (b"\xff\xfe", "not UTF-8"), (b'a,"b', "unexpected end")]
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(TableFaults, match=said):
        read_labels(tmp_path / "labels.csv")


def test_a_table_without_studies_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path) == ["no study is in it"]


# ---------------------------------------------------------------------------------------------- scores


def entry(study: int, triage: str | None, any_: float = 0.5, **changes: Any) -> dict[str, Any]:
    """One series as `ich-node score --json` prints it."""
    scored = {
        "probabilities": probabilities(any_, subdural=0.9),
        "thresholds": {name: {"low": 0.3, "high": 0.6} for name in HEMORRHAGE_CLASSES},
    }
    said = scored if triage else {"probabilities": None, "thresholds": None}
    model = dict(zip(("name", "version", "sha256"), MODEL, strict=True))
    reason = None if triage else "not axial"
    whole = {"triage": triage, "complete": True, "not_analysed_reason": reason, "model": model}
    return {"study_instance_uid": f"1.2.{study}"} | whole | said | changes


def test_of_several_series_of_a_study_the_highest_answer_counts(tmp_path: Path) -> None:
    entries = [entry(1, "negative", 0.1), entry(1, "positive", 0.7), entry(1, "positive", 0.8), entry(1, None)]
    (tmp_path / "scores.json").write_text(json.dumps([*entries, entry(2, None)]))
    one, two = read_scores(tmp_path / "scores.json")
    assert (one.triage, one.probabilities["any"], one.model) == (Triage.POSITIVE, 0.8, MODEL)
    assert one.presence["subdural"] is Presence.PRESENT
    assert (two.triage, two.why_not) == (None, "not axial")


def test_a_subtype_that_contradicts_a_negative_answer_is_indeterminate_as_in_the_node(tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text(json.dumps(entry(1, "negative", 0.1)) + "\n\n")
    (one,) = read_scores(tmp_path / "scores.jsonl")
    assert one.presence["subdural"] is Presence.INDETERMINATE


def test_entries_that_are_none_are_named(tmp_path: Path) -> None:
    odd = entry(1, "positive", 1.5)
    lines = [json.dumps(odd), "{", json.dumps([{"study_instance_uid": "1.2"}])]
    (tmp_path / "scores.jsonl").write_text("\n".join(lines))
    with pytest.raises(TableFaults) as error:
        read_scores(tmp_path / "scores.jsonl")
    assert [one.partition(":")[0] for one in error.value.faults] == [
        "line 1, entry 1",
        "line 2, no JSON",
        "line 3, entry 1",
    ]


def test_a_table_of_bulk_scoring_is_read_with_what_studies_are_grouped_by(tmp_path: Path) -> None:
    about = {"station_name": "CT1", "slice_thickness_mm": 5.0, "age_years": 60, "sex": "F"}
    entries = [entry(1, "positive", 0.7), entry(1, "negative", 0.1), entry(2, None)]
    write_part(tmp_path / "scores.parquet", [table_row(one) | about for one in entries])
    (tmp_path / "scores.json").write_text(json.dumps(entries))
    plain = read_scores(tmp_path / "scores.json")
    assert [(one.triage, one.why_not) for one in plain] == [(Triage.POSITIVE, ""), (None, "not axial")]
    assert read_scores(tmp_path / "scores.parquet") == tuple(replace(one, **about) for one in plain)


def table_row(one: dict[str, Any]) -> dict[str, Any]:
    shares, limits = one["probabilities"] or {}, one["thresholds"] or {}
    row = {f"probability_{name}": share for name, share in shares.items()}
    row |= {f"threshold_{end}_{name}": both[end] for name, both in limits.items() for end in both}
    return row | {f"model_{name}": value for name, value in one["model"].items()} | one


def test_a_file_that_is_no_table_of_scores_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores.parquet").write_text("PAR1")
    with pytest.raises(TableFaults, match="damaged, or no Parquet file"):
        read_scores(tmp_path / "scores.parquet")
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(TableFaults, match="no table of `ich-node score-archive`"):
        read_scores(tmp_path / "other.parquet")
