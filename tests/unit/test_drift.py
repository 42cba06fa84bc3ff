"""What differs from its reference is found, and what does not is not: on values made up, and on simulated years."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ich_node.drift import Comparison, GroupLook, Look, Spread, in_words, look_from_json, look_to_json
from ich_node.drift.comparison import compare_shares, compare_values
from ich_node.drift.looking import holm, look_at
from ich_node.drift.periods import periods_of, scored_periods_of
from ich_node.drift.quantities import QUANTITIES, SCORES
from ich_node.drift.weeks import weeks_of
from ich_node.records import DriftRules, GroupMeasures, MeasuredSeries, SeriesMeasure, Triage
from ich_node.records.drift import DAY_S
from ich_node.web.drift_chart import charts_of
from tests.drift_simulation import CHANGES, Station, days_until_found, is_alarmed, looks, made_by

RULES = DriftRules()
MODEL = "m1"
NOW = 1000 * DAY_S
BRAIN = next(one for one in QUANTITIES if one.name == "brain_hu")


def series(number: int, days_ago: float, *, study: int | None = None, model: str | None = "m1") -> MeasuredSeries:
    measure = SeriesMeasure("H31s", -999.0, 31.0, 4.5, 5.0, 0.1 if model else None, model)
    triage = Triage.NEGATIVE if model else None
    at = NOW - days_ago * DAY_S
    return MeasuredSeries(number, study or number, at, triage, None if model else "NOT_HEAD", measure)


def group(*some: MeasuredSeries, since: float = 0.0, until: float | None = None) -> GroupMeasures:
    return GroupMeasures("CT1", "H31s", some, since, until)


# ---------------------------------------------------------------------------------------- which with which


def test_the_earliest_series_are_the_reference_and_the_recent_days_are_compared_with_it() -> None:
    known = [series(n, 400 - n) for n in range(1, 400)]

    found = periods_of(group(*known), RULES, NOW)

    assert [one.id for one in found.reference] == list(range(1, 201))
    assert [one.id for one in found.recent] == list(range(386, 400)), "the last 14 days"


def test_a_station_with_few_series_fills_its_reference_with_newer_ones_and_compares_what_follows() -> None:
    known = [series(n, 13 - n / 10) for n in range(1, 81)]

    found = periods_of(group(*known), RULES, NOW)

    assert [one.id for one in found.reference] == list(range(1, 51))
    assert [one.id for one in found.recent] == list(range(51, 81))


def test_a_new_reference_begins_and_ends_where_a_person_said_so() -> None:
    known = [series(n, 400 - n) for n in range(1, 400)]

    found = periods_of(group(*known, since=NOW - 100 * DAY_S, until=NOW - 20 * DAY_S), RULES, NOW)

    assert [one.id for one in found.reference] == list(range(300, 380))
    assert [one.id for one in found.recent] == list(range(386, 400))


def test_of_several_series_of_one_study_the_first_counts() -> None:
    known = [series(n, 400 - n, study=n // 2) for n in range(2, 400)]

    found = periods_of(group(*known), RULES, NOW)

    assert all(one.id % 2 == 0 for one in (*found.reference, *found.recent))


def test_scores_of_another_model_are_compared_with_its_own_first_ones() -> None:
    known = [series(n, 400 - n, model="m1" if n < 300 else "m2") for n in range(1, 400)]

    found, model = scored_periods_of(group(*known), RULES, NOW)

    assert model == "m2"
    assert [one.id for one in found.reference] == list(range(300, 386))


def test_too_few_series_are_not_compared_and_say_how_many_there_are() -> None:
    (found,) = look_at([group(*(series(n, 30 - n) for n in range(1, 13)))], RULES, NOW).groups

    assert (found.reference_count, found.recent_count) == (12, 0)
    assert {one.p for one in found.comparisons} == {None}
    assert not found.found


# -------------------------------------------------------------------------------------------- the tests


def test_p_values_are_corrected_for_each_other_by_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_shift_and_a_wider_scatter_are_both_seen() -> None:
    random = np.random.default_rng(1)
    before = random.normal(31, 1.5, 200)

    shifted = compare_values(before, random.normal(34, 1.5, 60), BRAIN)
    wider = compare_values(before, random.normal(31, 6, 200), BRAIN)
    same = compare_values(before, random.normal(31, 1.5, 60), BRAIN)

    assert shifted.p < 1e-12
    assert shifted.change == pytest.approx(3.0, abs=0.5)
    assert shifted.matters
    assert wider.p < 1e-5, "the rank test alone is blind to it"
    assert abs(wider.change) < 1.0
    assert wider.matters, "its ends moved"
    assert same.p > 0.01
    assert not same.matters


def test_what_never_varies_differs_from_nothing() -> None:
    found = compare_values([5.0] * 60, [5.0] * 30, BRAIN)

    assert (found.p, found.change, found.matters) == (1.0, 0.0, False)


def test_scores_matter_by_the_distance_of_their_distributions() -> None:
    low, high = [0.01] * 80 + [0.9] * 20, [0.01] * 60 + [0.9] * 40

    found = compare_values(low, high, SCORES)

    assert found.change == pytest.approx(0.2)
    assert found.matters, "though the medians are the same"


def test_shares_are_compared_by_fishers_exact_test() -> None:
    assert compare_shares(1, 11, 9, 12).p == pytest.approx(0.0028, abs=1e-4)  # Agresti, Categorical Data Analysis
    none = compare_shares(0, 200, 0, 100)
    assert (none.p, none.change, none.matters) == (1.0, 0.0, False)
    assert compare_shares(4, 200, 15, 100).change == pytest.approx(13.0)


def test_p_values_of_samples_that_do_not_differ_are_not_smaller_than_they_should_be() -> None:
    random = np.random.default_rng(5)
    pairs = [(np.round(random.normal(31, 1.6, 80), 1), np.round(random.normal(31, 1.6, 30), 1)) for _ in range(300)]

    small = sum(compare_values(before, after, BRAIN).p <= 0.05 for before, after in pairs)

    assert small <= 300 * 0.05 + 3 * (300 * 0.05 * 0.95) ** 0.5


# ----------------------------------------------------------------------------------------- simulated years


def test_stations_that_stay_as_they_are_alarm_nobody_more_often_than_stated() -> None:
    """Years of weekly looks at the level of one daily look each, and anything sure counts, however small.

    With a stated chance of 0.9 a year, 18 years of 49 looks may have 0.9 * 18 * 49 / 365 = 2.2 alarms.
    """
    rules = replace(RULES, false_alarms_per_year=0.9)
    alarms = 0
    for year in range(18):
        made = made_by(replace(Station(), a_day=8.0), (0, 365), np.random.default_rng(year))
        alarms += any(is_alarmed(look, by_anything_sure=True) for _, look in looks([made], range(24, 366, 7), rules))

    assert alarms <= 2


def test_the_same_years_are_full_of_alarms_where_nothing_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: it is the correction that keeps it from failing."""
    monkeypatch.setattr("ich_node.drift.looking.LOOKS_A_YEAR", 1)
    monkeypatch.setattr("ich_node.drift.looking.holm", lambda p_values: p_values)
    made = made_by(replace(Station(), a_day=8.0), (0, 365), np.random.default_rng(0))

    alarmed = [is_alarmed(look, by_anything_sure=True) for _, look in looks([made], range(24, 366, 14), RULES)]

    assert sum(alarmed) >= 5


@pytest.mark.parametrize(
    ("change", "days"),
    [
        ("brain 3 HU higher", 10),
        ("air 4 HU higher", 10),
        ("noise 25 % higher", 10),
        ("slices of 4 mm", 5),
        ("another scanner (brain +2 HU, noise -20 %, 4.8 mm)", 10),
    ],
)
def test_a_change_is_found_within_the_days_that_the_document_states(change: str, days: int) -> None:
    found = [days_until_found(CHANGES[change], seed, RULES) for seed in range(3)]

    assert all(one is not None and one <= days for one in found), found


def test_a_shift_that_is_sure_but_small_is_no_drift() -> None:
    random = np.random.default_rng(3)
    made = made_by(replace(Station(), a_day=60.0), (0, 60), random)
    made += made_by(replace(Station(), a_day=60.0, brain=32.2), (60, 74), random, first_id=10**6)

    ((_, look),) = looks([made], range(74, 75), RULES)

    (brain,) = [one for one in look.groups[0].comparisons if one.name == "brain_hu"]
    assert brain.sure
    assert not is_alarmed(look)


def test_one_station_that_changes_is_named_and_the_others_are_not() -> None:
    random = np.random.default_rng(4)
    stays = made_by(Station(), (0, 74), random)
    changes = made_by(Station(), (0, 60), random) + made_by(CHANGES["brain 3 HU higher"], (60, 74), random, 10**6)

    ((_, look),) = looks([stays, changes], range(74, 75), RULES)

    assert [[one.name for one in each.found] for each in look.groups] == [[], ["brain_hu"]]
    assert in_words(look.groups[1], look.groups[1].found[0]).endswith(
        " HU higher than in the reference at CT1, kernel H31s"
    )


# ----------------------------------------------------------------------------------------- words, storage


def compared(name: str, before: tuple[float, float, float], after: tuple[float, float, float]) -> Comparison:
    change = after[1] - before[1]
    return Comparison(name, 200, 40, Spread(*before), Spread(*after), change, 0.001, found=True, sure=True)


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        (compared("brain_hu", (30, 31, 32), (33, 34.1, 35)), "brain 3.1 HU higher than in the reference"),
        (compared("noise_hu", (4, 4.5, 5), (3, 3.6, 4)), "noise 0.90 HU (-20 %) lower than in the reference"),
        (
            compared("brain_hu", (30, 31, 32), (27, 31.2, 36)),
            "brain otherwise scattered than in the reference (middle half 27.0 to 36.0 HU, before 30.0 to 32.0)",
        ),
        (
            compared("probability", (0.01, 0.02, 0.2), (0.02, 0.04, 0.3)),
            "scores otherwise distributed than in the reference (median 4.0 %, before 2.0 %)",
        ),
        (compared("positives", (8, 10, 12), (18, 21, 25)), "positives: 21 of 100, 10 in the reference,"),
        (
            compared("reason:NO_BRAIN_FOUND", (1, 2, 3), (10, 15, 20)),
            "not analysed: no brain found: the Hounsfield values cannot be those of a head: 15 of 100, "
            "2 in the reference,",
        ),
    ],
)
def test_a_finding_is_said_in_plain_words(comparison: Comparison, words: str) -> None:
    assert in_words(GroupLook("CT_ER", "H31s", 200, 40), comparison) == f"{words} at CT_ER, kernel H31s"


def test_names_from_headers_are_one_short_line() -> None:
    said = in_words(GroupLook("CT\x1b[2J\n" + "x" * 99, "", 200, 40), compared("air_hu", (0, 0, 0), (9, 9, 9)))

    assert said.endswith("at CT?[2J?" + "x" * 32 + "…, no kernel named")


def test_a_look_is_read_as_it_was_stored() -> None:
    random = np.random.default_rng(4)
    ((_, look),) = looks([made_by(Station(), (0, 60), random), []], range(60, 61), RULES)
    full = Look(look.looked_at, look.tests, tuple(replace(one, weeks=WEEKS) for one in look.groups), left_out=3)

    read = look_from_json(full.looked_at, full.tests, json.loads(json.dumps(look_to_json(full))))

    assert read == full


WEEKS = weeks_of([series(n, (60 - n) / 4) for n in range(1, 60)], MODEL, NOW, 3)


def test_weeks_count_back_from_the_look_and_those_with_few_series_say_nothing() -> None:
    assert [one.series for one in WEEKS] == [4, 28, 27]
    assert [one.begins_at for one in WEEKS] == [NOW - days * DAY_S for days in (21, 14, 7)]
    assert WEEKS[0].spreads == {}
    assert WEEKS[1].spreads["brain_hu"] == [31.0, 31.0, 31.0]
    assert (WEEKS[0].positives, WEEKS[1].positives) == (None, 0.0)


def test_a_week_counts_one_series_of_a_study_and_scores_of_the_model_that_is_compared_alone() -> None:
    known = [series(n, 3, model="old" if n < 20 else MODEL, study=n // 2) for n in range(2, 60)]
    known = [one if one.id >= 20 else replace(one, measure=replace(one.measure, probability=0.9)) for one in known]

    (week,) = weeks_of(known, MODEL, NOW, 1)

    assert week.series == 29
    assert week.spreads["probability"] == [0.1, 0.1, 0.1]


def test_a_set_reference_is_over_for_scores_of_a_model_that_came_after_it() -> None:
    known = [series(n, 400 - n, model="m1" if n < 100 else "m2") for n in range(1, 400)]
    set_before = group(*known, since=NOW - 390 * DAY_S, until=NOW - 350 * DAY_S)
    found, model = scored_periods_of(set_before, RULES, NOW)
    assert model == "m2"
    assert len(found.reference) == RULES.reference_series


def test_what_is_0_throughout_has_a_chart_all_the_same() -> None:
    quiet = [
        replace(one, measure=replace(one.measure, noise_hu=0.0)) for one in (series(n, n / 4) for n in range(1, 60))
    ]
    look = look_at([group(*sorted(quiet, key=lambda one: one.measured_at))], RULES, NOW, weeks=3).groups[0]
    assert {one.name.split(",")[0] for one in charts_of(look)} >= {"Noise", "Brain"}


def test_the_document_names_every_change_that_is_simulated() -> None:
    text = (Path(__file__).parents[2] / "docs/drift.md").read_text()

    assert [name for name in CHANGES if f"| {name} |" not in text] == []
