import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ich_node.records import (
    HEMORRHAGE_CLASSES,
    ClassThresholds,
    Completeness,
    Gap,
    NotAnalysedReason,
    PlaneScore,
    Presence,
    Triage,
)
from ich_node.triage import not_analysed, triage_series

THRESHOLDS = {name: ClassThresholds(low=0.3, high=0.7) for name in HEMORRHAGE_CLASSES}
UNIT_TEMPERATURE = dict.fromkeys(HEMORRHAGE_CLASSES, 1.0)
COMPLETE = Completeness()
INCOMPLETE = Completeness(gaps=(Gap(10.0, 20.0),))
SURE, UNSURE, NO = 6.0, 0.0, -6.0


def logits(default: float = NO, **by_class: float) -> tuple[float, ...]:
    return tuple(by_class.get(name, default) for name in HEMORRHAGE_CLASSES)


def planes(*rows: tuple[float, ...]) -> tuple[PlaneScore, ...]:
    return tuple(
        PlaneScore(f"1.2.{number}", None, 5.0 * number, row, np.zeros(2, np.float16))
        for number, row in enumerate(rows, start=1)
    )


def conclude(rows, completeness=COMPLETE, **options):
    return triage_series(planes(*rows), THRESHOLDS, UNIT_TEMPERATURE, completeness, **options)


def test_three_neighbouring_planes_with_hemorrhage_make_the_series_positive():
    finding = conclude([logits()] * 5 + [logits(any=SURE, subdural=SURE)] * 4 + [logits()] * 5)

    assert finding.triage is Triage.POSITIVE
    assert finding.presence["subdural"] is Presence.PRESENT
    assert finding.presence["epidural"] is Presence.ABSENT


def test_one_odd_plane_alone_does_not_make_the_series_positive():
    finding = conclude([logits()] * 6 + [logits(any=20.0)] + [logits()] * 6)

    assert finding.triage is not Triage.POSITIVE
    # One plane of probability 1 spreads to 1/4, 1/2, 1/4; the mean of the three highest is a third of it.
    assert finding.probabilities["any"] == pytest.approx(1 / 3, abs=0.01)


def test_a_plane_at_the_end_of_the_series_counts_as_much_as_its_renormalised_neighbours():
    finding = conclude([logits(any=50.0), logits(any=-50.0), logits(any=-50.0)])

    # Smoothed: (2 * 1 + 0) / 3, (1 + 0 + 0) / 4, 0.
    assert finding.probabilities["any"] == pytest.approx((2 / 3 + 1 / 4 + 0) / 3)


def test_probability_is_the_sigmoid_of_the_logit_over_its_temperature():
    temperature = {**UNIT_TEMPERATURE, "any": 2.0}

    finding = triage_series(planes(logits(any=3.0)), THRESHOLDS, temperature, COMPLETE)

    assert finding.slices[0].probabilities["any"] == pytest.approx(1 / (1 + math.exp(-1.5)))


def test_the_sequence_head_decides_where_it_gives_study_logits():
    finding = conclude([logits()] * 10, study_logits=logits(any=SURE))

    assert finding.triage is Triage.POSITIVE


def test_refined_logits_replace_those_of_the_planes_and_travel_with_their_plane():
    refined = np.full((3, 6), NO)
    refined[2, 0] = SURE
    reversed_planes = planes(logits(), logits(), logits())[::-1]

    finding = triage_series(reversed_planes, THRESHOLDS, UNIT_TEMPERATURE, COMPLETE, refined_slice_logits=refined)

    assert [one.sop_instance_uid for one in finding.slices] == ["1.2.1", "1.2.2", "1.2.3"]
    assert finding.slices[0].probabilities["any"] > 0.9
    assert finding.slices[2].probabilities["any"] < 0.1


def test_between_the_thresholds_is_indeterminate_and_the_ends_belong_to_the_higher_answer():
    def triage_at(probability: float) -> Triage | None:
        logit = math.log(probability / (1 - probability))
        return conclude([logits()], study_logits=logits(any=logit)).triage

    assert triage_at(0.299) is Triage.NEGATIVE
    assert triage_at(0.301) is Triage.INDETERMINATE
    assert triage_at(0.699) is Triage.INDETERMINATE
    assert triage_at(0.701) is Triage.POSITIVE


@pytest.mark.parametrize("completeness", [INCOMPLETE, Completeness(unreadable=1)])
def test_an_incomplete_series_is_never_negative(completeness):
    finding = conclude([logits()] * 10, completeness)

    assert finding.triage is Triage.INDETERMINATE
    assert set(finding.presence.values()) == {Presence.INDETERMINATE}


def test_an_incomplete_series_with_hemorrhage_is_positive():
    finding = conclude([logits(any=SURE, epidural=SURE)] * 4, INCOMPLETE)

    assert finding.triage is Triage.POSITIVE
    assert finding.presence["epidural"] is Presence.PRESENT
    assert Presence.ABSENT not in finding.presence.values()


def test_a_subtype_is_not_present_where_hemorrhage_as_such_is_negative():
    finding = conclude([logits(subdural=SURE)] * 10)

    assert finding.triage is Triage.NEGATIVE
    assert finding.presence["any"] is Presence.ABSENT
    assert finding.presence["subdural"] is Presence.INDETERMINATE


def test_a_subtype_may_be_present_where_hemorrhage_as_such_is_indeterminate():
    finding = conclude([logits(any=UNSURE, subdural=SURE)] * 10)

    assert finding.triage is Triage.INDETERMINATE
    assert finding.presence["subdural"] is Presence.PRESENT


def test_key_slices_are_the_five_highest_best_first():
    finding = conclude([logits(any=float(value)) for value in (1, 9, 3, 8, 2, 7, 4, 6)])

    assert [one.sop_instance_uid for one in finding.key_slices["any"]] == ["1.2.2", "1.2.4", "1.2.6", "1.2.8", "1.2.7"]


def test_key_slices_stay_above_the_low_threshold_and_an_absent_class_has_none():
    finding = conclude([logits(any=SURE), logits(any=SURE), logits(), logits()])

    assert [one.sop_instance_uid for one in finding.key_slices["any"]] == ["1.2.1", "1.2.2"]
    assert finding.key_slices["epidural"] == ()


def test_the_best_slice_is_a_key_slice_where_none_reaches_the_threshold():
    finding = conclude([logits(), logits(any=-3.0), logits()], study_logits=logits(any=SURE))

    assert [one.sop_instance_uid for one in finding.key_slices["any"]] == ["1.2.2"]


def test_an_untrained_model_gives_no_finding():
    finding = conclude([logits(any=SURE)] * 5, trained=False)

    assert finding.triage is None
    assert finding.reason is NotAnalysedReason.UNTRAINED_MODEL
    assert finding.probabilities == {}
    assert finding.slices == ()
    assert finding.key_slices == {}
    assert set(finding.presence.values()) == {Presence.UNDETERMINED}
    assert not finding.test_model


def test_an_untrained_model_is_marked_where_a_test_shows_its_finding():
    finding = conclude([logits(any=SURE)] * 5, trained=False, show_untrained=True)

    assert finding.triage is Triage.POSITIVE
    assert finding.test_model
    assert not conclude([logits(any=SURE)] * 5).test_model


def test_not_analysed_says_why_and_gives_no_number():
    finding = not_analysed(NotAnalysedReason.TOO_FEW_SLICES, "4 axial", INCOMPLETE)

    assert finding.triage is None
    assert (finding.reason, finding.reason_detail) == (NotAnalysedReason.TOO_FEW_SLICES, "4 axial")
    assert finding.completeness is INCOMPLETE
    assert set(finding.presence) == set(HEMORRHAGE_CLASSES)
    assert set(finding.presence.values()) == {Presence.UNDETERMINED}
    assert finding.probabilities == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="finite"):
        conclude([logits(), logits(epidural=value)])
    with pytest.raises(ValueError, match="finite"):
        conclude([logits()], study_logits=logits(epidural=value))


def test_no_plane_wrong_shapes_and_missing_temperatures_are_refused():
    with pytest.raises(ValueError, match="0 planes"):
        conclude([])
    with pytest.raises(ValueError, match="2 planes"):
        conclude([logits(), logits()], refined_slice_logits=np.zeros((3, 6)))
    with pytest.raises(ValueError, match="epidural"):
        triage_series(planes(logits()), THRESHOLDS, {**UNIT_TEMPERATURE, "epidural": 0.0}, COMPLETE)


finite_logits = st.tuples(*[st.floats(-30, 30) for _ in HEMORRHAGE_CLASSES])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(-200, 200), finite_logits), min_size=1, max_size=12),
    random=st.randoms(use_true_random=False),
)
def test_order_of_arrival_changes_nothing(rows, random):
    scores = [
        PlaneScore(f"1.2.{number}", None, position, row, np.zeros(1, np.float16))
        for number, (position, row) in enumerate(rows)
    ]
    shuffled = list(scores)
    random.shuffle(shuffled)

    first = triage_series(tuple(scores), THRESHOLDS, UNIT_TEMPERATURE, COMPLETE)
    second = triage_series(tuple(shuffled), THRESHOLDS, UNIT_TEMPERATURE, COMPLETE)

    assert first == second


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(finite_logits, min_size=1, max_size=10), gaps=st.booleans(), study=st.none() | finite_logits)
def test_what_is_said_never_contradicts_itself(rows, gaps, study):
    finding = conclude(rows, INCOMPLETE if gaps else COMPLETE, study_logits=study)

    assert all(0.0 <= value <= 1.0 for value in finding.probabilities.values())
    assert (finding.presence["any"] is Presence.PRESENT) == (finding.triage is Triage.POSITIVE)
    if finding.triage is Triage.NEGATIVE:
        assert Presence.PRESENT not in finding.presence.values()
    if gaps:
        assert finding.triage is not Triage.NEGATIVE
        assert Presence.ABSENT not in finding.presence.values()
