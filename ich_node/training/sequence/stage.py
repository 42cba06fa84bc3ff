"""Judge a sequence head on patients that neither network nor head has seen, then train the one that ships.

The embeddings of two networks do not live in one space, so a head belongs to one network. It is judged within the
slices that each fold's network held out: these are split once more by patient, and each part is read by a head that was
trained on the others. The head that ships is trained on what its network held out; a network that was trained on
everything has only embeddings of slices it knows, as most winners of RSNA 2019 used, and that has to be asked for.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from ich_node.errors import TrainingError
from ich_node.model.network import SequenceHeadSettings
from ich_node.training.export import TrainedHead
from ich_node.training.fit.checkpoint import load_state, save_state
from ich_node.training.fit.objective import area_under_roc, class_weights, weighted_log_loss
from ich_node.training.predictions import write_predictions
from ich_node.training.prepared import PreparedSet
from ich_node.training.sequence.embeddings import EmbeddedRun, Series, embed_run
from ich_node.training.sequence.head import read_series, train_head
from ich_node.training.sequence.settings import SequenceSettings
from ich_node.triage import pool_planes

HEAD: Final = "sequence-head.safetensors"
FACTS: Final = "sequence.json"
REFINED: Final = "sequence-held-out.csv"
STUDIES: Final = "sequence-studies.csv"


@dataclass(frozen=True, slots=True)
class SequenceOutcome:
    """What a head is worth, out of fold by patient."""

    series: int
    positive_series: int
    slice_log_loss_alone: float
    """Weighted, of the slice networks alone."""
    slice_log_loss: float
    """Weighted, after the head."""
    study_auc_rule: float | None
    """Of ``any``, by the mean of the three highest smoothed slices."""
    study_auc: float | None
    """Of ``any``, by the head."""

    @property
    def better(self) -> bool:
        """It beats the rule for studies and does not worsen slices."""
        if self.study_auc is None or self.study_auc_rule is None:
            return False
        return self.study_auc > self.study_auc_rule and self.slice_log_loss <= self.slice_log_loss_alone


def train_sequence_stage(
    runs: Sequence[Path],
    ships_with: Path,
    data: Sequence[PreparedSet],
    settings: SequenceSettings,
    *,
    in_sample: bool = False,
    device: torch.device | None = None,
) -> SequenceOutcome:
    """Judge a sequence head over the folds and train the one for a network.

    ``ships_with`` gets ``sequence-head.safetensors`` and ``sequence.json``; each run of a fold gets tables of the
    refined scores of its slices and of its studies.

    Args:
        runs: One for each fold.
        ships_with: The run whose network the head is for.
        in_sample: Allow embeddings of slices that this network was trained on.

    Raises:
        TrainingError: too few series, or the network held nothing out and ``in_sample`` is not given.
    """
    device = device or torch.device("cpu")
    embedded = [embed_run(run, data, device) for run in runs]
    if any(run.fold is None for run in embedded):
        raise TrainingError("a run that held nothing out cannot judge a head; give one run for each fold")
    outcome = _judge(embedded, settings)
    target = next((run for run in embedded if run.directory == ships_with), None) or embed_run(ships_with, data, device)
    if target.fold is None and not in_sample:
        raise TrainingError(
            f"{ships_with} held nothing out: its embeddings are of slices it knows; say --in-sample, or ship a fold"
        )
    head = train_head(target, target.series, settings)
    save_state(ships_with / HEAD, head.state_dict(), {})
    facts: dict[str, Any] = {
        "settings": settings.model_dump(),
        "head": head.settings.model_dump(),
        "better": outcome.better,
        "trained_on": "slices held out" if target.fold is not None else "slices the network was trained on",
        "outcome": {name: getattr(outcome, name) for name in SequenceOutcome.__dataclass_fields__},
    }
    (ships_with / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    return outcome


def read_head(directory: Path) -> TrainedHead:
    """Read the head that was trained for a run's network.

    Raises:
        TrainingError: there is none.
    """
    state, _ = load_state(directory / HEAD)
    try:
        facts = json.loads((directory / FACTS).read_text())
        return TrainedHead(SequenceHeadSettings(**facts["head"]), state, facts["trained_on"])
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{directory / FACTS}: not understood ({error}); run `ich-train sequence` again") from None


def _judge(runs: Sequence[EmbeddedRun], settings: SequenceSettings) -> SequenceOutcome:
    series: list[Series] = []
    refined: list[Tensor] = []
    studies: list[Tensor] = []
    for run in runs:
        slices, whole = _read_out_of_fold(run, settings)
        _write_tables(run, slices, whole)
        series += run.series
        refined += slices
        studies += whole
    labels = torch.cat([one.labels for one in series])
    truth = torch.stack([one.labels.amax(dim=0) for one in series])[:, 0]
    rule = torch.tensor([pool_planes(torch.sigmoid(one.logits).double().numpy())[0] for one in series])
    weights = class_weights(2.0)
    return SequenceOutcome(
        series=len(series),
        positive_series=int(truth.sum()),
        slice_log_loss_alone=float(weighted_log_loss(torch.cat([one.logits for one in series]), labels, weights)),
        slice_log_loss=float(weighted_log_loss(torch.cat(refined), labels, weights)),
        study_auc_rule=area_under_roc(rule, truth),
        study_auc=area_under_roc(torch.stack(studies)[:, 0], truth),
    )


def _read_out_of_fold(run: EmbeddedRun, settings: SequenceSettings) -> tuple[list[Tensor], list[Tensor]]:
    """Refined logits of the slices of each series, and the logits of each study."""
    answers: dict[int, tuple[Tensor, Tensor]] = {}
    for learning, read in _parts(run.series, settings):
        head = train_head(run, [run.series[number] for number in learning], settings)
        answers |= {int(number): read_series(head, run.series[number]) for number in read}
    return [answers[number][0] for number in range(len(answers))], [
        answers[number][1] for number in range(len(answers))
    ]


def _parts(series: Sequence[Series], settings: SequenceSettings) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    groups = [one.rows[0].group for one in series]
    positive = [int(one.labels[:, 0].max()) for one in series]
    if len(set(groups)) < 2 * settings.parts:
        raise TrainingError(
            f"{len(set(groups))} patients with ordered slices are too few for a sequence head; "
            f"at least {2 * settings.parts} are needed in each fold"
        )
    split = StratifiedGroupKFold(settings.parts, shuffle=True, random_state=settings.seed)
    return list(split.split(np.zeros(len(series)), positive, groups))


def _write_tables(run: EmbeddedRun, slices: Sequence[Tensor], studies: Sequence[Tensor]) -> None:
    rows = [row for one in run.series for row in one.rows]
    write_predictions(run.directory / REFINED, rows, torch.cat(list(slices)).numpy())
    first = [one.rows[0] for one in run.series]
    write_predictions(run.directory / STUDIES, first, torch.stack(list(studies)).numpy())
