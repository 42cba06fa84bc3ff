"""Several series in one study: which one is analysed, and what the study says in the end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from sqlalchemy import update

from ich_node.database import SeriesRow
from ich_node.decode import DecodeLimits, DecoderPool
from ich_node.eligibility import slice_ineligibility
from ich_node.pipeline import Model
from ich_node.queries import SeriesStatus, StudyStatus
from ich_node.records import EligibilityRules
from ich_node.worker import Worker
from tests.integration.test_worker import CONCLUSION, Site, _spoil_pixels, open_site, text


@pytest.fixture
def site(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> Iterator[Site]:
    with open_site(tmp_path, tiny_model, decoder) as one:
        yield one


FEW, MORE = list(itertools.permutations(range(4)))[::10], list(itertools.permutations(range(4)))[5::10]
ORDERS = [*FEW, *(pytest.param(order, marks=pytest.mark.slow) for order in MORE)]
KINDS: dict[str, dict[str, Any]] = {
    "soft 5 mm": {"slices": 28, "slice_spacing_mm": 5.0, "kernel": "STANDARD"},
    "soft thin": {"slices": 66, "slice_spacing_mm": 2.0, "kernel": "STANDARD"},
    "unknown": {"slices": 28, "slice_spacing_mm": 5.0, "kernel": "XYZ"},
    "bone": {"slices": 28, "slice_spacing_mm": 5.0, "kernel": "BONE"},
}


def series_of(site: Site, study: str, kind: str, number: int, **changes: Any) -> list[Path]:
    """Write one series of a kind; ``changes`` are attributes."""
    settings = dict(KINDS[kind])
    kernel = settings.pop("kernel")
    _, files = site.head(study_instance_uid=study, series_instance_uid=str(generate_uid()), rows=32, **settings)
    for path in files:
        dataset = dcmread(path)
        dataset.ConvolutionKernel, dataset.SeriesNumber, dataset.FrameOfReferenceUID = kernel, number, "1.2.3"
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    return files


def by_number(study: StudyStatus) -> dict[int | None, SeriesStatus]:
    return {one.number: one for one in study.series}


def told(site: Site, uid: str) -> StudyStatus:
    site.settled(uid)
    return site.settled(uid)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "a derived or secondary image"),
        ({"ImageType": ["DERIVED", "SECONDARY", "CT_SOM5 MIP"]}, "a projection"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not axial"),
        ({"ContrastBolusAgent": "Iomeprol 300"}, "contrast agent was given"),
        ({"BodyPartExamined": "CHEST", "StudyDescription": "", "SeriesDescription": "", "ProtocolName": ""}, "another"),
        ({"PatientAge": "012Y"}, "younger"),
        ({"PatientAge": "", "PatientBirthDate": "20200101"}, "younger"),
        ({"RescaleIntercept": "-500"}, "no brain found"),
    ],
)
def test_what_is_declined_says_why(site: Site, changes: dict[str, Any], reason: str) -> None:
    uid = str(generate_uid())
    site.send(series_of(site, uid, "soft 5 mm", 2, **changes))

    study = told(site, uid)

    assert study.series[0].state == "NOT_ANALYSED"
    assert reason in study.outcome
    assert study.triage is None


@pytest.mark.parametrize("agent", ["", "none", "W/O", "Without", "N/A", "C-"])
def test_values_that_mean_no_contrast_are_none(site: Site, agent: str) -> None:
    uid = str(generate_uid())
    site.send(series_of(site, uid, "soft 5 mm", 2, ContrastBolusAgent=agent))

    assert site.settled(uid).series[0].state == "CONCLUDED"


def test_what_means_no_contrast_and_who_is_too_young_is_for_the_site_to_say(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool
) -> None:
    rules = EligibilityRules(minimum_age_years=10, no_contrast_values=("KEINS",))
    settings = {"minimum_age_years": 10, "no_contrast_values": ["keins"]}
    with (
        DecoderPool(DecodeLimits(), partial(slice_ineligibility, rules=rules)) as pool,
        open_site(tmp_path, tiny_model, pool, eligibility=settings) as site,
    ):
        uid = str(generate_uid())
        site.send(series_of(site, uid, "soft 5 mm", 2, ContrastBolusAgent="Keins", PatientAge="012Y"))
        assert site.settled(uid).series[0].state == "CONCLUDED"
        uid = str(generate_uid())
        site.send(series_of(site, uid, "soft 5 mm", 2, ContrastBolusAgent="NONE"))
        assert site.settled(uid).series[0].state == "NOT_ANALYSED"


def test_a_derived_series_is_analysed_where_there_is_no_original_one_and_the_report_says_so(site: Site) -> None:
    uid = str(generate_uid())
    site.send(series_of(site, uid, "soft 5 mm", 2, ImageType=["DERIVED", "PRIMARY", "AXIAL", "AVERAGE"]))

    assert site.settled(uid).series[0].state == "CONCLUDED"
    assert "derived series" in text(site.reports(uid)[0], CONCLUSION)


def test_a_derived_series_beside_an_original_one_is_not_analysed(site: Site) -> None:
    uid = str(generate_uid())
    derived = series_of(site, uid, "soft 5 mm", 3, ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    original = series_of(site, uid, "unknown", 2)
    site.send([*derived, *original])

    study = site.settled(uid)

    assert {number: one.state for number, one in by_number(study).items()} == {3: "NOT_ANALYSED", 2: "CONCLUDED"}
    assert "series 2" in by_number(study)[3].why
    assert study.revision == 1


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_of_several_series_sent_at_once_the_best_is_analysed_and_the_others_name_it(
    site: Site, order: Sequence[int]
) -> None:
    uid = str(generate_uid())
    series = [series_of(site, uid, kind, number) for number, kind in enumerate(KINDS, start=1)]
    site.send([path for index in order for path in series[index]])
    with site.node.database.writing() as connection:  # the worker was down meanwhile: all of them are due
        connection.execute(update(SeriesRow).values(due_at=0))

    study = site.settled(uid)

    states = by_number(study)
    assert states[1].state == "CONCLUDED"
    assert study.rests_on == states[1].series_instance_uid
    for number in (2, 3, 4):
        assert states[number].state == "NOT_ANALYSED"
        assert f"series 1, {states[1].series_instance_uid}" in states[number].why
    assert (study.revision, len(site.reports(uid))) == (1, 1)


def test_within_a_class_the_first_stays(site: Site) -> None:
    uid = str(generate_uid())
    site.send(series_of(site, uid, "soft 5 mm", 1))
    site.settled(uid)
    site.send(series_of(site, uid, "soft 5 mm", 2))

    assert [one.state for one in site.settled(uid).series] == ["CONCLUDED", "NOT_ANALYSED"]


def test_a_better_class_that_comes_later_is_analysed_too(site: Site) -> None:
    uid = str(generate_uid())
    for number, kind in ((4, "bone"), (3, "unknown"), (2, "soft thin"), (1, "soft 5 mm")):
        site.send(series_of(site, uid, kind, number))
        assert by_number(site.settled(uid))[number].state == "CONCLUDED"


def test_a_bone_reconstruction_waits_for_a_better_series(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool
) -> None:
    with open_site(tmp_path, tiny_model, decoder, series={"quiet_s": 0.1, "max_wait_s": 8.0}) as site:
        uid = str(generate_uid())
        site.send(series_of(site, uid, "bone", 4))
        for _ in range(20):
            site.node.worker.step()
        assert site.node.status(uid).studies[0].outcome == "in progress"
        site.send(series_of(site, uid, "soft 5 mm", 1))
        study = site.settled(uid)

    assert {number: one.state for number, one in by_number(study).items()} == {4: "NOT_ANALYSED", 1: "CONCLUDED"}
    assert study.revision == 1


def test_a_bone_reconstruction_alone_is_analysed_in_the_end_and_the_report_says_so(site: Site) -> None:
    uid = str(generate_uid())
    site.send(series_of(site, uid, "bone", 4))

    assert site.settled(uid).series[0].state == "CONCLUDED"
    assert "bone" in text(site.reports(uid)[0], CONCLUSION)


@pytest.mark.parametrize("end", ["FAILED", "QUARANTINED", "unreadable"])
def test_when_the_chosen_series_ends_badly_the_next_best_is_analysed(
    site: Site, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = str(generate_uid())
    chosen, next_best = series_of(site, uid, "soft 5 mm", 1), series_of(site, uid, "soft thin", 2)
    site.send([*chosen, *next_best])
    assert by_number(site.settled(uid))[2].state == "NOT_ANALYSED"

    if end == "FAILED":
        with site.node.database.writing() as connection:
            late = (SeriesRow.series_instance_uid == str(dcmread(chosen[0]).SeriesInstanceUID)) & (
                SeriesRow.state == "CONCLUDED"
            )
            changes = {"state": "RECEIVING", "due_at": 0, "attempts": 2, "lease_owner": "elsewhere:1:1",
                       "lease_expires_at": 1}  # fmt: skip  # its worker has died on it for the third time
            connection.execute(update(SeriesRow).where(late).values(changes))
    elif end == "QUARANTINED":
        dataset = dcmread(chosen[0])
        dataset.PixelData = bytes(len(dataset.PixelData))
        dataset.save_as(chosen[0])
        site.send(chosen[:1])
    else:
        for path in chosen:
            _spoil_pixels(path)
        site.send(chosen)
    study = told(site, uid)

    assert by_number(study)[2].state == "CONCLUDED"
    assert study.triage is not None
    assert study.rests_on == by_number(study)[2].series_instance_uid


def test_two_series_that_each_show_a_part_of_the_head_are_both_analysed(site: Site) -> None:
    uid = str(generate_uid())
    lower = series_of(site, uid, "soft 5 mm", 1)[:14]
    upper = series_of(site, uid, "soft 5 mm", 2)[14:]
    site.send([*lower, *upper])

    study = site.settled(uid)

    assert [one.state for one in study.series] == ["CONCLUDED", "CONCLUDED"]
    assert not any(one.complete for one in study.series)
    assert study.triage != "negative"


def with_thresholds(site: Site, model: Model, decoder: DecoderPool, low: float, high: float) -> None:
    """Let another worker go on, whose model calls fewer things positive."""
    thresholds = {name: pair.model_copy(update={"low": low, "high": high})
                  for name, pair in model.bundle.manifest.thresholds.items()}  # fmt: skip
    manifest = model.bundle.manifest.model_copy(update={"thresholds": thresholds})
    stricter = replace(model, bundle=replace(model.bundle, manifest=manifest))
    node = site.node
    node.worker = Worker(node.config, node.database, stricter, decoder, "2.25.1")


@pytest.mark.parametrize("rises", [False, True])
def test_on_disagreement_both_are_shown_and_the_study_keeps_the_higher_answer(
    site: Site, tiny_model: Model, decoder: DecoderPool, rises: bool
) -> None:
    uid = str(generate_uid())
    lenient, strict = (0.0001, 0.0002), (0.99998, 0.99999)
    with_thresholds(site, tiny_model, decoder, *(strict if rises else lenient))
    site.send(series_of(site, uid, "soft thin", 2))
    first = site.settled(uid)
    with_thresholds(site, tiny_model, decoder, *(lenient if rises else strict))
    site.send(series_of(site, uid, "soft 5 mm", 1))
    study = site.settled(uid)

    assert (first.triage, study.triage) == ("negative" if rises else "positive", "positive")
    assert study.revision == 2
    higher, lower = (1, 2) if rises else (2, 1)
    assert study.rests_on == by_number(study)[higher].series_instance_uid
    assert by_number(study)[lower].triage == "negative"
    assert f"series {lower}: negative" in study.outcome
    report = site.reports(uid)[-1]
    conclusion = text(report, CONCLUSION)
    assert f"series {lower}" in conclusion
    assert "negative" in conclusion
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = evidence.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == study.rests_on
