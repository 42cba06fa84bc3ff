"""What a validation says of known studies: figures computed by hand, groups, thresholds, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import pytest

from ich_node.errors import TableFaults
from ich_node.records import StudyResult, Triage
from ich_node.validation.as_json import proposed_thresholds, validation_as_json
from ich_node.validation.figures import Rates, share
from ich_node.validation.labels import LabelTable, StudyLabel
from ich_node.validation.page import render_page
from ich_node.validation.pictures import Picture
from ich_node.validation.predictive import at_prevalence
from ich_node.validation.validating import Validation, ValidationSettings, validate
from tests.validating import MODEL, label, result


def judged(labels: Sequence[StudyLabel], results: Sequence[StudyResult], **asked: Any) -> Validation:
    return validate(LabelTable("labels.csv", "0" * 64, tuple(labels), ()), results, ValidationSettings(**asked))


def some(**about: Any) -> tuple[list[StudyLabel], list[StudyResult]]:
    """Twenty studies with hemorrhage: 15 positive, 3 indeterminate, 2 negative; 40 without: 4, 6 and 30."""
    labels, results = [], []
    groups = ((1, 0.9, 15), (1, 0.4, 3), (1, 0.1, 2), (0, 0.8, 4), (0, 0.5, 6), (0, 0.05, 30))
    for any_, chance, count in groups:
        for _ in range(count):
            number = len(labels) + 1
            labels.append(label(number, any_, *(["subdural"] if any_ else [])))
            results.append(result(number, chance + number / 1000, **about))
    return labels, results


def test_figures_are_those_computed_by_hand() -> None:
    figures = judged(*some()).classes["any"]
    assert (figures.positives, figures.negatives) == (20, 40)
    assert (figures.positive.sensitivity.count, figures.positive.specificity.count) == (15, 36)
    assert (figures.not_negative.sensitivity.count, figures.not_negative.specificity.count) == (18, 30)
    assert figures.positive.sensitivity.low == pytest.approx(0.5090, abs=1e-4)  # Clopper and Pearson, 15 of 20
    assert figures.positive.sensitivity.high == pytest.approx(0.9134, abs=1e-4)
    pairs = 15 * 40 + 3 * 30 + 2 * 30  # won by the positives: 0.9 beats all, 0.4 and 0.1 only the 30 lowest
    assert figures.area is not None
    assert figures.area.value == pytest.approx(pairs / 800)


def test_predictive_values_and_alerts_follow_from_the_prevalence() -> None:
    rates = Rates(share(90, 100), share(80, 100))
    at = at_prevalence(rates, 0.1, 50)
    assert at.ppv is not None
    assert at.npv is not None
    assert at.ppv.value == pytest.approx(0.09 / 0.27)
    assert at.npv.value == pytest.approx(0.72 / 0.73)
    assert at.alerts_per_shift == pytest.approx(13.5)
    assert at.false_alerts_per_shift == pytest.approx(9.0)


def test_intervals_of_predictive_values_are_those_of_mercaldo() -> None:
    at = at_prevalence(Rates(share(90, 100), share(160, 200)), 0.1, 50)
    assert at.ppv is not None
    assert at.npv is not None
    assert (at.ppv.low, at.ppv.high) == pytest.approx((0.26578, 0.38721), abs=1e-5)
    assert (at.npv.low, at.npv.high) == pytest.approx((0.97322, 0.99072), abs=1e-5)


def test_of_few_studies_nothing_follows_for_a_shift() -> None:
    at = at_prevalence(Rates(share(3, 3), share(80, 100)), 0.1, 50)
    assert (at.ppv, at.npv, at.alerts_per_shift, at.false_alerts_per_shift) == (None,) * 4


def test_predictive_values_of_shares_of_one_have_an_interval_that_holds_the_value() -> None:
    at = at_prevalence(Rates(share(30, 30), share(30, 30)), 0.1, None)
    assert at.ppv is not None
    assert at.ppv.value == at.ppv.high == 1.0
    assert 0 < at.ppv.low < 1
    assert at.alerts_per_shift is None


def test_what_was_not_analysed_counts_as_an_error_in_the_second_table() -> None:
    labels, results = some()
    labels += [label(101, 1), label(102, 1), label(103, 0)]
    results += [result(101, None), result(102, None), result(103, None)]
    found = judged(labels, results)
    assert found.classes["any"].positive.sensitivity.of == 20
    assert (found.pessimistic.positive.sensitivity.count, found.pessimistic.positive.sensitivity.of) == (15, 22)
    assert (found.pessimistic.positive.specificity.count, found.pessimistic.positive.specificity.of) == (36, 41)
    assert found.observed_prevalence == pytest.approx(22 / 63)


def test_what_fits_nothing_is_named_and_never_dropped() -> None:
    labels, results = some()
    labels += [label(201, 1), label(202, 0), label(203, 0)]
    results += [result(202, 0.9, in_progress=True), result(203, 0.9, model=("old", "0.1", "cd" * 32))]
    results += [result(204, 0.2), StudyResult("1.2.205", Triage.POSITIVE)]
    labels.append(label(205, 1))
    found = judged(labels, results)
    told = {one.study_instance_uid: one.why.partition(":")[0] for one in found.matched.left_out}
    assert told == {
        "1.2.201": "not among the results",
        "1.2.202": "still being analysed",
        "1.2.203": "answered by another model",
        "1.2.205": "answered, but its probabilities are not in the database any more",
    }
    assert [one.study_instance_uid for one in found.matched.unlabelled] == ["1.2.204"]
    assert len(found.matched.analysed) == 60
    page = render_page(found, {}, "a test", 0.0)
    assert all(f"1.2.{number}" in page for number in (201, 202, 203, 204, 205))


def test_another_model_is_validated_where_that_is_asked() -> None:
    labels, results = some()
    labels.append(label(301, 1))
    results.append(result(301, 0.9, model=("old", "0.1", "cd" * 32)))
    found = judged(labels, results, model_sha256="cdcd")
    assert found.matched.model == ("old", "0.1", "cd" * 32)
    assert len(found.matched.left_out) == 60


def test_a_model_that_is_asked_for_and_answered_nothing_validates_no_unknown_one() -> None:
    labels, results = some()
    labels.append(label(302, 1))
    results.append(result(302, 0.9, model=None))
    with pytest.raises(TableFaults):
        judged(labels, results, model_sha256="ffff")


def test_labels_of_which_none_was_analysed_are_refused_with_the_reason() -> None:
    with pytest.raises(TableFaults) as error:
        judged([label(1, 1), label(2, 1)], [result(2, None)])
    (fault,) = error.value.faults
    assert fault.startswith("none of its 2 studies was analysed: 1 not among the results")
    assert fault.endswith("; 1 not analysed: not axial")


def test_groups_are_in_order_and_what_is_not_known_comes_last() -> None:
    labels, results = some(age_years=30, sex="F", slice_thickness_mm=5.0, station_name="CT1")
    labels += [label(401, 0), label(402, 0), label(403, 1)]
    results += [result(401, 0.1, age_years=17, sex="M", slice_thickness_mm=1.25), result(402, 0.1), result(403, None)]
    found = {
        one.name: [(two.name, two.not_analysed) for two in one.groups] for one in judged(labels, results).groupings
    }
    assert found == {
        "Station": [("CT1", 0), ("not known", 1)],
        "Slice thickness": [("up to 1.5 mm", 0), ("over 3 to 5 mm", 0), ("not known", 1)],
        "Age": [("under 18", 0), ("18 to 39", 0), ("not known", 1)],
        "Sex": [("female", 0), ("male", 0), ("not known", 1)],
    }


def test_a_group_with_too_few_studies_shows_its_count_and_no_share() -> None:
    labels, results = some(station_name="CT1")
    labels.append(label(501, 1))
    results.append(result(501, 0.9, station_name="CT2"))
    group = next(one for one in judged(labels, results).groupings[0].groups if one.name == "CT2")
    assert group.figures.positive.sensitivity.few
    assert group.figures.area is None
    assert "1 of 1<br><small>too few</small>" in render_page(judged(labels, results), {}, "a test", 0.0)


def test_a_subtype_of_which_a_label_says_nothing_is_in_no_figure_of_it() -> None:
    labels, results = some()
    labels.append(label(601, 1, unknown=["subdural", "epidural"]))
    results.append(result(601, 0.9))
    found = judged(labels, results).classes["subdural"]
    assert (found.positives, found.negatives, found.unknown) == (20, 40, 1)


def many(positives: int) -> tuple[list[StudyLabel], list[StudyResult]]:
    labels = [label(number, int(number <= positives)) for number in range(1, positives + 101)]
    results = [
        result(number, (0.2 + 0.7 * number / positives) if number <= positives else (number - positives) / 200)
        for number in range(1, positives + 101)
    ]
    return labels, results


def test_thresholds_are_chosen_where_the_lower_bound_can_reach_the_target() -> None:
    proposal = judged(*many(72)).proposals["any"]
    assert proposal.chosen_here
    assert proposal.point.meets_bound
    assert proposal.point.sensitivity == 1.0  # of 72 none may be missed
    assert proposal.proposed.low < 0.2 + 0.7 / 72


def test_a_class_with_too_few_studies_keeps_its_thresholds_and_says_how_many_it_needs() -> None:
    found = judged(*many(71))
    proposal = found.proposals["any"]
    assert not proposal.chosen_here
    assert proposal.proposed == proposal.in_use
    assert proposal.needed == 72
    page = render_page(found, {}, "a test", 0.0)
    assert "71 of 72 needed" in page
    assert "NOT met" in page


def test_the_proposal_is_of_the_model_that_was_validated() -> None:
    proposed = proposed_thresholds(judged(*many(72)), 5.0)
    assert proposed is not None
    assert (proposed.model.name, proposed.model.version, proposed.model.sha256) == MODEL
    assert proposed.site_classes == ("any",)
    assert proposed.signed_off is None


def test_alerts_of_a_shift_follow_from_when_studies_came() -> None:
    labels, results = some()
    came = [result(1000 + number, 0.1, received_at=3600.0 * number) for number in range(49)]
    assert judged(labels, [*results, *came]).studies_per_shift == pytest.approx(8 * 49 / 48)
    assert judged(labels, results).studies_per_shift is None
    assert judged(labels, results, studies_per_shift=7.0).studies_per_shift == 7.0


def test_the_worst_are_the_missed_with_the_lowest_and_the_false_alarms_with_the_highest_probability() -> None:
    worst = judged(*some()).worst
    chances = [one.case.result.probabilities["any"] for one in worst]
    assert [one.kind for one in worst] == ["missed"] * 5 + ["false alarm"] * 4
    assert chances[:5] == sorted(chances[:5])
    assert chances[5:] == sorted(chances[5:], reverse=True)


class Links(HTMLParser):
    """Collects what a page refers to, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.refers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.refers += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]


def test_the_page_fetches_nothing_and_runs_nothing_and_shows_names_as_text() -> None:
    labels, results = some(station_name="<script>alert(1)</script>")
    found = judged(labels, results)
    shown = {one.case.label.study_instance_uid: Picture(png=b"x") for one in found.worst}
    page = render_page(found, shown, "<b>a test</b>", 0.0)
    seen = Links()
    seen.feed(page)
    assert not seen.tags & {"script", "link", "iframe"}
    assert seen.refers
    assert all(one.startswith("data:") for one in seen.refers)
    assert "http" not in page
    assert "url(" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;a test&lt;/b&gt;" in page


def test_figures_for_programs_are_plain_json() -> None:
    found = json.loads(json.dumps(validation_as_json(judged(*some()), "a test", 5.0), allow_nan=False))
    assert found["classes"]["any"]["positive"]["sensitivity"]["value"] == 0.75
    assert len(found["analysed"]) == 60
    assert found["proposals"]["any"]["needed"] == 72
