import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ich_node.errors import TrainingError
from ich_node.records import HEMORRHAGE_CLASSES, ClassThresholds, Completeness, PlaneScore
from ich_node.training.evaluate import (
    Evaluation,
    EvaluationSettings,
    RefinedScores,
    evaluate,
    read_evaluation,
    write_evaluation,
)
from ich_node.training.evaluate.scored import score_cases
from ich_node.training.evaluate.settings import EvaluationSettings as Settings
from ich_node.training.predictions import Predictions
from ich_node.training.prepared import SliceRow
from ich_node.triage import triage_series
from tests.unit.scored_slices import draw_predictions

QUICK = EvaluationSettings(resamples=100)


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    return draw_predictions(sources=2)


@pytest.fixture(scope="module")
def evaluation(predictions: Predictions) -> Evaluation:
    return evaluate(predictions, QUICK, runs=("fold0",))


def picture(row: SliceRow) -> NDArray[np.uint8]:
    return np.full((32, 32), 20 * row.index, np.uint8)


def test_a_study_scores_as_the_node_would_score_it(predictions: Predictions) -> None:
    scored, _ = score_cases(predictions)
    assert scored.studies is not None
    temperature = dict.fromkeys(HEMORRHAGE_CLASSES, 1.0)
    own, _ = score_cases(predictions, temperature)
    assert own.studies is not None
    number = own.studies.names.index("s004")
    chosen = [
        (row, logits) for row, logits in zip(predictions.rows, predictions.logits, strict=True) if row.study == "s004"
    ]
    planes = tuple(
        PlaneScore(row.image_id, None, row.position_mm or 0.0, tuple(map(float, logits)), np.zeros(1, np.float16))
        for row, logits in reversed(chosen)
    )
    thresholds = dict.fromkeys(HEMORRHAGE_CLASSES, ClassThresholds(0.2, 0.8))
    finding = triage_series(planes, thresholds, temperature, Completeness())
    expected = [finding.probabilities[name] for name in HEMORRHAGE_CLASSES]
    assert own.studies.probabilities[number] == pytest.approx(expected, abs=1e-12)


def test_a_study_shows_what_any_of_its_slices_shows(predictions: Predictions) -> None:
    scored, _ = score_cases(predictions)
    assert scored.studies is not None
    assert len(scored.studies) == 60
    assert scored.studies.labels[:, 0].sum() == 30
    assert scored.studies.patients.tolist() == list(range(60))


def test_slices_of_unknown_patients_are_measured_apart_from_those_of_known_ones(predictions: Predictions) -> None:
    """Of the second source every third patient is not known."""
    rows = tuple(
        replace(row, patient_id="") if row.source == "source1" and int(row.fold) % 3 == 0 else row
        for row in predictions.rows
    )
    mixed = evaluate(Predictions(rows, predictions.logits), EvaluationSettings(resamples=20))
    unknown = "source1, patients unknown (optimistic)"
    assert set(mixed.sources) == {"source0", "source1, patients known", unknown}
    assert mixed.sources[unknown].slices.cases == sum(not row.patient_id for row in rows)
    assert sum(source.slices.cases for source in mixed.sources.values()) == len(rows)
    assert mixed.conditions.sources == {"source0": 300, "source1": 300}


def test_there_are_figures_with_intervals_at_both_levels_and_of_every_source(evaluation: Evaluation) -> None:
    assert evaluation.studies is not None
    assert set(evaluation.sources) == {"source0", "source1"}
    for level in (evaluation.slices, evaluation.studies, evaluation.sources["source1"].slices):
        auc = level.classes["any"].figures["auc"]
        assert auc.value is not None
        assert auc.low is not None
        assert auc.high is not None
        assert auc.low <= auc.value <= auc.high
    assert evaluation.slices.cases == 600
    assert evaluation.studies.cases == 60
    assert (evaluation.slices.weighted_log_loss.value or 1) < evaluation.slices.weighted_log_loss_of_priors
    assert evaluation.conditions.runs == ("fold0",)


def test_classes_with_few_positive_patients_are_marked(evaluation: Evaluation) -> None:
    assert evaluation.slices.classes["epidural"].few_cases
    assert not evaluation.slices.classes["any"].few_cases


def test_the_same_seed_gives_the_same_evaluation(predictions: Predictions, evaluation: Evaluation) -> None:
    assert evaluate(predictions, QUICK, runs=("fold0",)) == evaluation


def test_too_few_positive_studies_are_said_everywhere(evaluation: Evaluation) -> None:
    point = evaluation.operating_points["any"]
    assert (point.level, point.positives, point.meets_bound) == ("study", 30, False)
    assert (point.sensitivity or 0) >= 0.95
    assert (point.sensitivity_low or 1) < 0.95
    assert evaluation.cross_fitted["any"].sensitivity_low is not None


def test_fewer_than_half_of_the_negatives_negative_is_a_warning_that_names_the_class() -> None:
    weak = evaluate(draw_predictions(separation=0.5), QUICK)
    (warning,) = [text for text in weak.warnings if text.startswith("any:")]
    assert "of 30 negative studies come out negative" in warning


def test_good_scores_give_no_warning_of_that_kind() -> None:
    good = evaluate(draw_predictions(separation=12.0), QUICK)
    assert not [text for text in good.warnings if "come out negative" in text]


def test_ppv_and_npv_follow_from_the_prevalence(evaluation: Evaluation) -> None:
    assert evaluation.studies is not None
    figures = evaluation.studies.classes["any"].figures
    sensitivity, specificity = figures["sensitivity_high"].value or 0, figures["specificity_high"].value or 0
    (row,) = [one for one in evaluation.prevalences if one.prevalence == 0.1 and one.answer == "positive"]
    alerts = 0.1 * sensitivity + 0.9 * (1 - specificity)
    assert row.alerts_per_100.value == pytest.approx(100 * alerts)
    assert row.ppv.value == pytest.approx(0.1 * sensitivity / alerts)
    assert row.npv.value == pytest.approx(0.9 * specificity / (1 - alerts))


def test_every_case_gets_one_of_three_answers(evaluation: Evaluation) -> None:
    counts = evaluation.confusion["any"]
    assert sum(counts.positive) == sum(counts.negative) == 30


def test_larger_hemorrhages_are_counted_by_themselves(evaluation: Evaluation) -> None:
    sizes = [size for size in evaluation.lesion_sizes if size.level == "slice"]
    assert sum(size.positives for size in sizes) == evaluation.slices.classes["any"].positives
    assert [size.from_mm2 for size in sizes] == sorted(size.from_mm2 for size in sizes)


def test_the_worst_cases_are_the_most_wrong(evaluation: Evaluation) -> None:
    probabilities = [one.probability for one in evaluation.missed]
    assert probabilities == sorted(probabilities)
    assert all("any" in one.labels for one in evaluation.missed)
    assert all(not one.labels for one in evaluation.false_alarms)


def test_slices_alone_are_judged_as_slices_and_that_is_said(tmp_path: Path) -> None:
    predictions = draw_predictions(patients=30, studies=False)
    evaluation = evaluate(predictions, QUICK)
    assert evaluation.studies is None
    assert evaluation.operating_points["any"].level == "slice"
    files = write_evaluation(tmp_path, evaluation, predictions)
    assert "no whole studies" in files.html.read_text()


def test_a_class_that_no_study_shows_is_judged_by_slices_or_not_at_all(predictions: Predictions) -> None:
    rows = tuple(replace(row, labels=(*row.labels[:1], 0, *row.labels[2:])) for row in predictions.rows)
    evaluation = evaluate(Predictions(rows, predictions.logits), QUICK)
    pair = evaluation.thresholds["epidural"]
    assert (pair.low, pair.high) == (0.0, 1.0)
    assert evaluation.operating_points["epidural"].sensitivity is None
    assert any(text.startswith("epidural: no positive case") for text in evaluation.warnings)


def test_a_sequence_head_speaks_for_slices_and_studies(predictions: Predictions) -> None:
    sure = {(row.source, row.study): np.full(6, 9.0) for row in predictions.rows}
    scored, _ = score_cases(
        predictions, dict.fromkeys(HEMORRHAGE_CLASSES, 1.0), RefinedScores(predictions.logits, sure)
    )
    assert scored.studies is not None
    assert (scored.studies.probabilities > 0.99).all()
    with pytest.raises(TrainingError, match="60 studies have no score"):
        score_cases(predictions, refined=RefinedScores(predictions.logits, {}))


def test_phantoms_beside_patients_do_not_count(predictions: Predictions) -> None:
    drawn = draw_predictions(patients=4, kind="phantom", seed=9)
    rows = tuple(replace(row, source="phantom") for row in drawn.rows)
    both = Predictions(predictions.rows + rows, np.concatenate([predictions.logits, drawn.logits]))
    evaluation = evaluate(both, QUICK)
    assert evaluation.slices.cases == 600
    assert evaluation.conditions.phantoms_left_out == 40
    assert not evaluation.conditions.phantoms_only


def test_phantoms_alone_are_called_a_software_test(tmp_path: Path) -> None:
    predictions = draw_predictions(patients=30, kind="phantom")
    evaluation = evaluate(predictions, QUICK)
    assert evaluation.conditions.phantoms_only
    page = write_evaluation(tmp_path, evaluation, predictions).html.read_text()
    assert "Synthetic phantoms: software test only" in page


def test_nothing_scored_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no scored slice"):
        evaluate(Predictions((), np.zeros((0, 6))), QUICK)


def test_the_page_needs_nothing_from_elsewhere(
    tmp_path: Path, predictions: Predictions, evaluation: Evaluation
) -> None:
    page = write_evaluation(tmp_path, evaluation, predictions, picture=picture).html.read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert not re.search(r"https?://|@import|url\(", page)
    assert page.count('src="data:image/png;base64,') == 6
    assert "NOT met: 30 positive studies" in page


def test_without_pictures_the_worst_cases_are_a_list(
    tmp_path: Path, predictions: Predictions, evaluation: Evaluation
) -> None:
    page = write_evaluation(tmp_path, evaluation, predictions).html.read_text()
    assert evaluation.missed[0].image_id in page
    assert page.count('src="data:image/png;base64,') == 4


def test_the_json_reopens_as_it_was(tmp_path: Path, predictions: Predictions, evaluation: Evaluation) -> None:
    files = write_evaluation(tmp_path, evaluation, predictions)
    assert read_evaluation(files.json) == evaluation
    with pytest.raises(TrainingError, match="run `ich-train evaluate` first"):
        read_evaluation(tmp_path / "none.json")
    files.json.write_text("{}")
    with pytest.raises(TrainingError, match="evaluate anew"):
        read_evaluation(files.json)


def test_very_many_cases_are_resampled_less_often() -> None:
    settings = Settings()
    assert settings.resamples_of(200_000) == 1000
    assert settings.resamples_of(750_000) == 266


def test_a_share_of_one_gets_the_exact_interval_of_its_patients() -> None:
    found = evaluate(draw_predictions(separation=12.0), QUICK).slices.classes["any"].figures["sensitivity_low"]
    assert found.value == 1.0
    assert found.low == pytest.approx(0.025 ** (1 / 30))
    assert found.high == 1.0


def test_a_log_loss_no_better_than_the_priors_is_a_warning() -> None:
    loose = evaluate(draw_predictions(separation=0.0), QUICK)
    assert any("no better than that of class priors" in text for text in loose.warnings)
