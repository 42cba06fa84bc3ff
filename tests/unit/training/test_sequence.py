"""The head that reads a series in its order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ich_node.errors import TrainingError
from ich_node.model.network import SequenceHead, SequenceHeadSettings
from ich_node.training.fit import fit, make_settings
from ich_node.training.fit.checkpoint import load_state
from ich_node.training.predictions import read_predictions
from ich_node.training.prepared import PreparedSet, SliceRow
from ich_node.training.sequence import SequenceSettings, stage, train_sequence_stage
from ich_node.training.sequence.embeddings import EmbeddedRun, Series
from ich_node.training.sequence.head import read_series, train_head
from tests.unit.training.prepared_sets import make_prepared

EMBEDDING = 16


def _head(layers: int = 2) -> SequenceHead:
    torch.manual_seed(0)
    return SequenceHead(SequenceHeadSettings(embedding_size=EMBEDDING, hidden_size=8, layers=layers)).eval()


def _series(lengths: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, EMBEDDING, generator=generator), torch.arange(n) * 5.0 + torch.rand(n, generator=generator))
        for n in lengths
    ]


@pytest.mark.parametrize("filling", [0.0, 1e3])
@pytest.mark.parametrize("lengths", [[7], [7, 3, 12], [1, 2, 30, 4, 9]])
def test_a_series_is_scored_alike_with_and_without_padding_at_any_batch_size(
    lengths: list[int], filling: float
) -> None:
    head, series = _head(), _series(lengths)
    longest = max(lengths) + 3
    embeddings = torch.full((len(lengths), longest, EMBEDDING), filling)
    positions = torch.full((len(lengths), longest), filling)
    for number, (one, at) in enumerate(series):
        embeddings[number, : len(one)], positions[number, : len(one)] = one, at
    with torch.inference_mode():
        together, studies = head.forward_batch(embeddings, positions, lengths)
        for number, (one, at) in enumerate(series):
            alone, study = head(one, at)
            assert torch.allclose(together[number, : len(one)], alone, atol=1e-5)
            assert torch.allclose(studies[number], study, atol=1e-5)
            assert not together[number, len(one) :].any()


def test_the_order_of_the_slices_matters() -> None:
    head = _head()
    ((embeddings, positions),) = _series([9])
    shuffled = embeddings[torch.randperm(9, generator=torch.Generator().manual_seed(3))]
    with torch.inference_mode():
        assert not torch.allclose(head(embeddings, positions)[1], head(shuffled, positions)[1], atol=1e-3)


def _row(number: int, patient: str, labels: tuple[int, ...], position: float) -> SliceRow:
    row = SliceRow(f"{patient}-{number}", "s", "hu", "dicom", "0", number, labels, patient, patient, position)
    return replace(row, group=patient)


def _noisy_run(patients: int, directory: Path, seed: int) -> EmbeddedRun:
    """Series whose slices each say little, and whose bleeding runs over five neighbours: what a sequence can gain."""
    rng = np.random.default_rng(seed)
    series = []
    for patient in range(patients):
        bleeds = np.zeros(20, np.int64)
        if patient % 2:
            start = rng.integers(2, 12)
            bleeds[start : start + 5] = 1
        embeddings = rng.normal(size=(20, EMBEDDING))
        embeddings[:, 0] += 1.5 * bleeds
        rows = tuple(_row(i, f"p{seed}-{patient}", (int(b),) * 6, 5.0 * i) for i, b in enumerate(bleeds))
        tensor = torch.from_numpy(embeddings).float()
        weight = torch.zeros(6, EMBEDDING)
        weight[:, 0] = 1.5
        series.append(Series(rows, tensor, tensor @ weight.T - 2.5))
    return EmbeddedRun(directory, seed, weight, torch.full((6,), -2.5), tuple(series))


def test_an_untaught_head_says_what_the_slice_network_says(tmp_path: Path) -> None:
    run = _noisy_run(10, tmp_path, 0)
    head = train_head(run, run.series, SequenceSettings(epochs=1, learning_rate=1e-9))
    said = torch.cat([read_series(head, one)[0] for one in run.series])
    alone = torch.cat([one.logits for one in run.series])
    assert float(torch.corrcoef(torch.stack([said[:, 0], alone[:, 0]]))[0, 1]) > 0.9


@pytest.mark.slow
def test_a_head_gains_where_neighbours_tell_more_than_a_slice_alone(tmp_path: Path) -> None:
    outcome = stage._judge([_noisy_run(150, tmp_path, 0)], SequenceSettings(epochs=25))
    assert outcome.series == 150
    assert outcome.slice_log_loss < 0.9 * outcome.slice_log_loss_alone
    refined = read_predictions([tmp_path / stage.REFINED])
    assert len(refined.rows) == 150 * 20
    assert len(read_predictions([tmp_path / stage.STUDIES]).rows) == 150


def test_no_part_shares_a_patient_with_the_others(tmp_path: Path) -> None:
    run = _noisy_run(30, tmp_path, 0)
    for learning, read in stage._parts(run.series, SequenceSettings()):
        patients = [{run.series[number].rows[0].group for number in part} for part in (learning, read)]
        assert not patients[0] & patients[1]


def test_a_head_is_trained_judged_and_kept_beside_its_network(tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data", heads=24)
    small = {"backbone": "test_resnet", "size_px": 32, "batch": 16, "draws": 16, "epochs": 1, "precision": "f32"}
    for fold in (0, 1):
        fit(make_settings("scratch", {**small, "fold": fold}), [data], tmp_path / f"run-{fold}", "cpu")
    runs = [tmp_path / "run-0", tmp_path / "run-1"]
    outcome = train_sequence_stage(runs, runs[0], [data], SequenceSettings(epochs=2, hidden_size=8))
    assert outcome.series == 24
    state, _ = load_state(runs[0] / "sequence-head.safetensors")
    assert state["project.weight"].shape[0] == 8
    cached = (runs[0] / "embeddings.safetensors").stat().st_mtime_ns
    train_sequence_stage(runs, runs[0], [data], SequenceSettings(epochs=1, hidden_size=8))
    assert (runs[0] / "embeddings.safetensors").stat().st_mtime_ns == cached


def test_too_few_patients_for_a_head_is_an_error(phantoms: PreparedSet, tmp_path: Path) -> None:
    run = _noisy_run(4, tmp_path, 0)
    with pytest.raises(TrainingError, match=r"4 patients.*at least 6"):
        stage._parts(run.series, SequenceSettings())
