"""What is measured of slices and series, and what is entered of it when a series ends."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import update

from ich_node.config import Config, parse_config
from ich_node.database import (
    Database,
    DriftLookRow,
    DriftReferenceRow,
    SeriesMeasureRow,
    SeriesRow,
    StudyRow,
)
from ich_node.decode.tissue import measure_tissue
from ich_node.drift import measure_series
from ich_node.drift_watch import look_for_drift
from ich_node.housekeeping import watch_drift
from ich_node.job_queue import clock, conclude_series, fail_attempt
from ich_node.job_queue.conditions import WatchRules, find_conditions
from ich_node.job_queue.drift import look_is_due, save_look, take_new_reference
from ich_node.job_queue.facts import tissue_from_json, tissue_to_json
from ich_node.queries.drift import MOST_GROUPS, measured_groups, newest_look
from ich_node.records import (
    Completeness,
    DriftFinding,
    DriftRules,
    ModelIdentity,
    NotAnalysedReason,
    SeriesContent,
    SeriesMeasure,
    SliceFacts,
    Triage,
    TriageFinding,
)
from ich_node.triage import not_analysed
from tests.measured import GROUPS, Group, measure
from tests.postgresql import database_url
from tests.unit.concluding import closed_job, conclusion
from tests.unit.queueing import change, claim, make_due, open_queue, receive, received, rows

DAY = 86400.0
MODEL = ModelIdentity("m", "1", "ab" * 32, trained=True)
RULES = WatchRules(no_result_s=1e9, destination_down_s=1e9, queue_wait_s=1e9)


def head(noise_hu: float = 5.0, air_hu: float = -1000.0) -> NDArray[np.float32]:
    """A round skull of 512 pixels full of brain whose density slopes, in a round field of view with padding outside."""
    y, x = np.mgrid[:512, :512]
    distance = np.hypot(y - 255.5, x - 255.5)
    hu = np.full((512, 512), air_hu)
    hu[distance < 200] = 900.0
    brain = distance < 185
    hu[brain] = (30.0 + x / 64.0)[brain]
    hu += np.random.default_rng(0).normal(0.0, noise_hu, hu.shape)
    hu[distance > 255] = -2000.0
    return np.rint(hu).astype(np.float32)  # as with a RescaleSlope of 1


# ------------------------------------------------------------------------------------------------ a slice


def test_noise_of_brain_is_a_standard_deviation_in_hu_whatever_slopes_beneath() -> None:
    for noise_hu in (2.0, 2.5, 3.0, 5.0, 9.0):  # also between the whole numbers that a median would give
        assert measure_tissue(head(noise_hu)).noise_hu == pytest.approx(noise_hu, rel=0.05)


def test_air_is_what_lies_around_the_body_and_padding_is_none() -> None:
    assert measure_tissue(head(air_hu=-985.0)).air_median_hu == pytest.approx(-985.0, abs=0.5)


def test_a_slice_of_padding_or_of_bone_alone_says_nothing_of_air_and_noise() -> None:
    for hu in (-2000.0, 900.0):
        tissue = measure_tissue(np.full((512, 512), hu, np.float32))
        assert math.isnan(tissue.air_median_hu)
        assert math.isnan(tissue.noise_hu)


@pytest.mark.parametrize("shape", [(512, 512), (300, 517), (64, 64), (7, 3)])
def test_slices_of_any_shape_are_measured(shape: tuple[int, int]) -> None:
    assert math.isnan(measure_tissue(np.full(shape, 30.0, np.float32)).noise_hu), "nothing encloses it"


def test_tissue_that_was_stored_before_these_measures_is_still_read() -> None:
    stored = tissue_to_json(measure_tissue(head()))
    assert stored is not None
    assert tissue_from_json(stored) == measure_tissue(head())
    for name in ("air_median_hu", "noise_hu"):
        del stored[name]

    read = tissue_from_json(stored)

    assert read is not None
    assert math.isnan(read.air_median_hu)


# ----------------------------------------------------------------------------------------------- a series


def facts(number: int, kernel: str = "H31s", noise_hu: float = 5.0, **changes: Any) -> SliceFacts:
    values: dict[str, Any] = {
        "sop_instance_uid": f"1.{number}", "frame": None, "sop_class_uid": "1.2", "modality": "CT",
        "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"), "image_position_patient": None,
        "image_orientation_patient": None, "pixel_spacing_mm": None, "slice_thickness_mm": 5.0, "rows": 512,
        "columns": 512, "instance_number": number, "convolution_kernel": kernel, "names_head": True,
        "names_other_body_part": False, "tissue": measure_tissue(head(noise_hu)),
    }  # fmt: skip
    return SliceFacts(**values | changes)


def finding(probability: float | None) -> TriageFinding:
    empty = not_analysed(NotAnalysedReason.NOT_HEAD, "", Completeness())
    return empty if probability is None else dataclasses.replace(empty, reason=None, probabilities={"any": probability})


def test_a_series_is_measured_by_the_medians_of_its_slices() -> None:
    base = measure_tissue(np.full((512, 512), 900.0, np.float32))
    slices = (facts(1, "", tissue=None), *(facts(n, noise_hu=n) for n in (3, 4, 5)), facts(9, tissue=base))

    found = measure_series(SeriesContent(slices, (), ()), finding(0.25), MODEL)

    assert found.convolution_kernel == "H31s"
    assert found.noise_hu == pytest.approx(4.0, rel=0.05)
    assert found.brain_hu == pytest.approx(34.0, abs=0.5)
    assert found.air_hu == pytest.approx(-1000.0, abs=0.5)
    assert (found.slice_thickness_mm, found.probability, found.model_sha256) == (5.0, 0.25, MODEL.sha256)


def test_a_series_that_was_not_scored_has_no_score_and_no_model() -> None:
    found = measure_series(SeriesContent((facts(1, "k" * 99, tissue=None),), (), ()), finding(None), MODEL)

    assert found == SeriesMeasure("k" * 64, slice_thickness_mm=5.0)


# ------------------------------------------------------------------------------------------ when it ends


@pytest.fixture
def database(tmp_path: Path) -> Any:
    opened = open_queue(tmp_path)
    yield opened
    opened.close()


MEASURE = SeriesMeasure("H31s", -999.0, 31.0, 4.5, 5.0, 0.1, MODEL.sha256)


def end(database: Database, number: int = 1, measured: SeriesMeasure = MEASURE, **values: Any) -> None:
    job = closed_job(database, number=number)
    with database.writing() as connection:
        connection.execute(update(SeriesRow).values({"station_name": "CT1"} | values))
    done = dataclasses.replace(conclusion(database, job, Triage.NEGATIVE), measure=measured)
    assert conclude_series(database, job, "me", done)


def test_a_series_that_ends_is_entered_once_and_its_time_stays(database: Database) -> None:
    end(database)
    (first,) = rows(database, SeriesMeasureRow)
    end(database, 2, dataclasses.replace(MEASURE, brain_hu=33.0))

    (row,) = rows(database, SeriesMeasureRow)

    assert (row.station_name, row.convolution_kernel, row.triage, row.reason) == ("CT1", "H31s", "negative", None)
    assert (row.brain_hu, row.probability, row.model_sha256) == (33.0, 0.1, MODEL.sha256)
    assert row.measured_at == first.measured_at


@pytest.mark.parametrize("values", [{"modality": "MR"}, {"old": True}])
def test_what_is_no_ct_or_is_old_is_not_measured(database: Database, values: dict[str, Any]) -> None:
    end(database, **values)

    assert rows(database, SeriesMeasureRow) == []


def test_the_nodes_own_tests_are_not_measured(database: Database) -> None:
    receive(database, received(1))
    change(database, StudyRow, self_test=True)
    end(database, 2)

    assert rows(database, SeriesMeasureRow) == []


def test_a_series_that_fails_is_entered_with_that_reason(database: Database) -> None:
    receive(database, received(1))
    for _ in range(3):
        make_due(database)
        (job,) = claim(database, "me")
        fail_attempt(database, job, "me", "RuntimeError", retry_s=0.0)

    (row,) = rows(database, SeriesMeasureRow)

    assert (row.reason, row.triage, row.brain_hu) == ("ANALYSIS_FAILED", None, None)


# ----------------------------------------------------------------------------------------- the look of a day


def configuration(folder: Path, **drift: Any) -> Config:
    node, where = {"state_directory": str(folder)}, {"url": database_url(folder)}
    return parse_config({"node": node, "database": where, "receiver": {"allow_any": True}, "drift": drift})


def test_the_look_of_a_day_is_made_once_and_its_condition_ends_with_a_new_reference(
    tmp_path: Path, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    measure(database, [GROUPS[0], GROUPS[3]], time.time(), days=40)

    assert watch_drift(configuration(tmp_path, enabled=False), database) == 0
    assert newest_look(database) is None
    assert watch_drift(configuration(tmp_path), database) == 1

    assert "drift found" in caplog.text
    found = newest_look(database)
    assert found is not None
    assert [(one.station_name, one.quantity) for one in found.found] == [("CT_ER", "brain_hu")]
    assert [one["station_name"] for one in found.compared["groups"]] == ["CT_ER", "CT_MOBILE"]
    assert look_for_drift(configuration(tmp_path), database) is None, "it is made already"
    (name, text), *others = find_conditions(database, RULES).items()
    assert not others
    assert name == "drift CT_ER, kernel H31s"
    assert "HU higher than in the reference at CT_ER, kernel H31s" in text
    assert find_conditions(database, dataclasses.replace(RULES, drift=False)) == {}, "nobody looks"

    assert take_new_reference(database, "CT_ER", "H31s", days=7, by="olga", reason="new tube")

    assert find_conditions(database, RULES) == {}
    assert not take_new_reference(database, "CT_ER", "unknown", days=7, by="olga", reason="none")
    (row,) = rows(database, DriftReferenceRow)
    assert row.until - row.since == pytest.approx(7 * DAY)


def finding_at(station: str) -> DriftFinding:
    text = f"brain higher at {station} " + "x" * 600
    return DriftFinding(station, "H31s", "brain_hu", f"{station}, kernel H31s", text)


def test_a_look_that_finds_nothing_ends_the_conditions_and_older_looks_keep_only_findings(database: Database) -> None:
    now = time.time()
    assert save_look(database, now - 3 * 365 * DAY, 9, [finding_at("CT0")], {"groups": []})
    assert save_look(database, now - 2 * DAY, 9, [finding_at(f"CT{n}") for n in range(12)], {"groups": []})
    conditions = find_conditions(database, RULES)
    assert len(conditions) == 9
    assert conditions["drift elsewhere"].startswith("4 more stations and kernels")
    assert max(map(len, conditions.values())) < 600

    assert not save_look(database, now - 2 * DAY + 60, 9, [], {}), "the look of that day is there"
    assert save_look(database, now, 9, [], {"groups": [], "left_out": 0})

    assert find_conditions(database, RULES) == {}
    assert [row.compared for row in rows(database, DriftLookRow)] == [{}, {"groups": [], "left_out": 0}]


@pytest.mark.parametrize("step_s", [400 * DAY, -400 * DAY])
def test_a_clock_that_is_set_makes_no_look_due(database: Database, step_s: float, monkeypatch: Any) -> None:
    assert look_is_due(database)
    assert save_look(database, time.time(), 9, [], {})

    with database.writing() as connection:
        clock.shift_times(connection, step_s)
    monkeypatch.setattr("ich_node.job_queue.drift.time", _Later(step_s))

    assert not look_is_due(database)
    monkeypatch.setattr("ich_node.job_queue.drift.time", _Later(step_s + 1.1 * DAY))
    assert look_is_due(database)


class _Later:
    def __init__(self, by_s: float) -> None:
        self._by_s = by_s

    def time(self) -> float:
        return time.time() + self._by_s


def test_a_look_that_fails_is_told_and_made_later(tmp_path: Path, database: Database, caplog: Any) -> None:
    config = parse_config(
        {"node": {"state_directory": str(tmp_path)}, "receiver": {"allow_any": True},
         "database": {"url": f"sqlite:///{tmp_path / 'no' / 'such'}"}}
    )  # fmt: skip

    assert look_for_drift(config, database) is None

    assert "the look for drift could not be made" in caplog.text
    assert "status 1: " in str(caplog.records[-1].__dict__), "why"
    assert look_is_due(database)


def test_many_stations_fill_no_memory(database: Database) -> None:
    measure(database, [Group(f"CT{n}", "K", a_day=1 if n else 3) for n in range(MOST_GROUPS + 5)], time.time(), 12, 2)

    groups, left_out = measured_groups(database, DriftRules(), time.time())

    assert (len(groups), left_out) == (MOST_GROUPS, 5)
    assert groups[0].station_name == "CT0"


def test_the_reference_is_read_however_many_series_came_since(database: Database) -> None:
    now = time.time()
    measure(database, [Group("CT1", "K", a_day=2)], now, days=400)

    ((group,), _) = measured_groups(database, DriftRules(reference_series=30, minimum_series=20), now)

    ages = [(now - one.measured_at) / DAY for one in group.series]
    assert max(ages) > 390
    assert len([age for age in ages if age > 182]) <= 60, "some 430 came; no more of them than two references have"


def test_a_reference_holds_as_many_studies_whatever_they_send(database: Database) -> None:
    now = time.time()
    rules = DriftRules(reference_series=30, minimum_series=20)
    measure(database, [Group("CT1", "K", a_day=3)], now, days=400)
    with database.writing() as connection:  # three series of each study
        connection.execute(update(SeriesRow).values(study_id=SeriesRow.id - (SeriesRow.id - 1) % 3))

    ((group,), _) = measured_groups(database, rules, now)

    ages = sorted({one.study_id: (now - one.measured_at) / DAY for one in reversed(group.series)}.values())
    assert 30 <= len([age for age in ages if age > 182]) <= 60
    assert min(ages[-30:]) > 360
    assert newest_look(database) is None
