"""Which slices an epoch shows."""

from dataclasses import replace

import numpy as np
import pytest

from ich_node.errors import TrainingError
from ich_node.training.fit import make_settings
from ich_node.training.fit.sampling import make_sampler
from ich_node.training.prepared import SliceRow

_ALL = (1, 1, 1, 1, 1, 1)
_NONE = (0, 0, 0, 0, 0, 0)


def _row(number: int, labels: tuple[int, ...], **others: str) -> SliceRow:
    row = SliceRow(f"image-{number}", "hospital", "hu", "dicom", "0.safetensors", number, labels)
    return replace(row, **others)


ROWS = [_row(number, _ALL if number < 10 else _NONE) for number in range(100)]


def test_every_slice_comes_once_where_nothing_is_weighed() -> None:
    sampler = make_sampler(ROWS, make_settings("scratch", {}))
    assert sorted(sampler.draw_epoch(3)) == list(range(100))
    assert list(sampler.draw_epoch(3)) != list(range(100))


def test_an_epoch_is_drawn_alike_again_and_another_epoch_otherwise() -> None:
    sampler = make_sampler(ROWS, make_settings("scratch", {"positive_share": 0.3}))
    assert (sampler.draw_epoch(1) == sampler.draw_epoch(1)).all()
    assert (sampler.draw_epoch(1) != sampler.draw_epoch(2)).any()


def test_positives_are_drawn_to_their_share_and_the_logits_corrected() -> None:
    sampler = make_sampler(ROWS, make_settings("scratch", {"positive_share": 0.5, "draws": 1000}))
    drawn = sampler.draw_epoch(0)
    assert np.mean(drawn < 10) == pytest.approx(0.5, abs=0.01)
    # one in ten is positive, one in two was shown: the odds fall from 1 to 1/9
    assert sampler.logit_correction[0] == pytest.approx(-np.log(9))


def test_subtypes_are_weighed_back_to_the_data_and_not_shifted() -> None:
    """Of ten positives four show a subtype: among the draws it is commoner, among the weighed draws as in the data."""
    some = [
        replace(row, labels=(row.labels[0], *(row.labels[0] * (n < 4) for _ in range(5)))) for n, row in enumerate(ROWS)
    ]
    sampler = make_sampler(some, make_settings("scratch", {"positive_share": 0.5}))
    labels = np.array([row.labels for row in some])
    assert sampler.probability @ labels[:, 1] == pytest.approx(0.2)
    assert (sampler.probability * sampler.importance) @ labels[:, 1] == pytest.approx(0.04)
    assert sampler.probability @ sampler.importance == pytest.approx(1.0)
    assert not sampler.logit_correction[1:].any()


def test_a_network_that_learned_the_draws_answers_with_the_prevalence_of_the_data() -> None:
    sampler = make_sampler(ROWS, make_settings("scratch", {"positive_share": 0.37}))
    learned = np.log(0.37 / 0.63)
    assert 1 / (1 + np.exp(-(learned + sampler.logit_correction[0]))) == pytest.approx(0.1)


def test_slices_of_a_source_or_kind_are_drawn_at_their_rate() -> None:
    rows = [*ROWS, *(replace(one, source="other", image_id=f"o{one.image_id}") for one in ROWS)]
    drawn = make_sampler(rows, make_settings("scratch", {"rates": {"other": 4.0}, "draws": 1000})).draw_epoch(0)
    assert np.mean(drawn >= 100) == pytest.approx(0.8, abs=0.01)


def test_no_patient_gets_more_than_its_share_of_an_epoch() -> None:
    rows = [*ROWS, *(_row(number, _NONE, patient_id="one") for number in range(100, 300))]
    sampler = make_sampler(
        rows, make_settings("scratch", {"patient_share": 0.05, "draws": 2000, "positive_share": 0.4})
    )
    drawn = sampler.draw_epoch(0)
    assert np.mean(drawn >= 100) <= 0.051
    assert np.mean(drawn < 10) == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rates": {"nowhere": 2.0}}, "there are dicom, hospital"),
        ({"rates": {"hospital": 0.0}}, "nothing would be drawn"),
    ],
)
def test_what_cannot_be_drawn_says_what_to_change(changes: dict[str, object], says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        make_sampler(ROWS, make_settings("scratch", changes))


def test_a_class_without_positives_is_an_error_unless_it_is_allowed() -> None:
    rows = [replace(row, labels=(row.labels[0], 0, *row.labels[2:])) for row in ROWS]
    with pytest.raises(TrainingError, match=r"positive for epidural.*allow_empty=epidural"):
        make_sampler(rows, make_settings("scratch", {}))
    make_sampler(rows, make_settings("scratch", {"allow_empty": ("epidural",)}))
