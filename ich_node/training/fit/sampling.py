"""Which slices an epoch shows, and what that does to the logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ich_node.errors import TrainingError
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.fit.settings import FitSettings
from ich_node.training.prepared import SliceRow

_ROUNDS: int = 50
"""Share of positives and cap by patient pull at each other; they settle in a few rounds."""


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """Draws slices with known probabilities; the same seed and epoch give the same draws."""

    probability: NDArray[np.float64]
    """(slices,), sums to 1."""
    importance: NDArray[np.float64]
    """(slices,): how much rarer each is drawn than the data have it; the mean over the draws is 1."""
    logit_correction: NDArray[np.float64]
    """(6,): to be added to logits that were trained on these draws, so that they fit the data as they are. Draws are by
    ``any``, whose odds they shift by one number. A subtype's odds they shift by another number on every slice, so the
    subtypes' part of the loss is weighed by ``importance`` instead, and their correction is 0."""
    draws: int
    """Slices in an epoch."""
    seed: int

    def draw_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Draw the slices of one epoch, in random order: (draws,).

        Systematic sampling: a slice with expected number n comes floor(n) or ceil(n) times, so that with equal
        probabilities and as many draws as slices each comes exactly once.
        """
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.probability))
        places = (rng.random() + np.arange(self.draws)) / self.draws
        drawn = order[np.searchsorted(np.cumsum(self.probability[order]), places * (1 - 1e-12), side="right")]
        return rng.permutation(drawn)


def make_sampler(rows: Sequence[SliceRow], settings: FitSettings) -> Sampler:
    """Weigh the slices of a run as its settings ask.

    Raises:
        TrainingError: a class is empty, a rate names nothing, or the share of positives cannot be had.
    """
    if not rows:
        raise TrainingError("no slice is left to train on; choose another fold, or prepare more data")
    labels = np.array([row.labels for row in rows], np.float64)
    _demand_positives(labels, settings.allow_empty)
    base = _rates(rows, settings.rates)
    base /= base.sum()
    patients = _patients(rows) if settings.patient_share else None
    natural = _settle(base, labels[:, 0] > 0, None, patients, settings.patient_share)
    drawn = _settle(base, labels[:, 0] > 0, settings.positive_share, patients, settings.patient_share)
    correction = np.zeros(len(HEMORRHAGE_CLASSES))
    correction[0] = (_log_odds(natural @ labels) - _log_odds(drawn @ labels))[0]
    importance = np.divide(natural, drawn, out=np.zeros_like(drawn), where=drawn > 0)
    return Sampler(drawn, importance, correction, settings.draws or len(rows), settings.seed)


def step_seed(seed: int, step: int) -> int:
    """A seed for everything random in one step, the same on every machine."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def seed_step(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """Seed dropout and the like for a step; return a generator for what all processes must draw alike."""
    torch.manual_seed(step_seed(seed, step) + rank)
    return torch.Generator().manual_seed(step_seed(seed, step))


def _demand_positives(labels: NDArray[np.float64], allow_empty: Sequence[str]) -> None:
    empty = [
        name
        for name, positives in zip(HEMORRHAGE_CLASSES, labels.sum(axis=0), strict=True)
        if positives == 0 and name not in allow_empty
    ]
    if empty:
        raise TrainingError(
            f"no slice to train on is positive for {', '.join(empty)}: the network would learn never to say it; "
            f"add data, choose another fold, or say --set allow_empty={','.join(empty)}"
        )


def _rates(rows: Sequence[SliceRow], rates: Mapping[str, float]) -> NDArray[np.float64]:
    known = {row.source for row in rows} | {row.kind for row in rows}
    if strangers := set(rates) - known:
        raise TrainingError(
            f"a rate is given for {', '.join(sorted(strangers))}, which is no source and no kind of these data; "
            f"there are {', '.join(sorted(known))}"
        )
    weights = np.array([rates.get(row.source, 1.0) * rates.get(row.kind, 1.0) for row in rows])
    if not weights.any():
        raise TrainingError("all rates are 0: nothing would be drawn")
    return weights


def _patients(rows: Sequence[SliceRow]) -> NDArray[np.int64]:
    """Number of each row's patient, -1 where it is unknown: a single image needs no cap."""
    numbers: dict[tuple[str, str], int] = {}
    return np.array(
        [numbers.setdefault((row.source, row.patient_id), len(numbers)) if row.patient_id else -1 for row in rows]
    )


def _settle(
    base: NDArray[np.float64],
    positive: NDArray[np.bool_],
    positive_share: float | None,
    patients: NDArray[np.int64] | None,
    patient_share: float | None,
) -> NDArray[np.float64]:
    """Bring weights to the share of positives, under the cap by patient; the result sums to 1."""
    weights = base.copy()
    if positive_share is not None and not 0 < weights @ positive < 1:
        raise TrainingError("positive_share needs positive and negative slices to draw from; leave it out")
    for _ in range(_ROUNDS if patients is not None else 1):
        if positive_share is not None:
            share = weights @ positive
            weights = weights * np.where(positive, positive_share / share, (1 - positive_share) / (1 - share))
        if patients is not None and patient_share is not None:
            weights = _cap(weights, patients, patient_share)
    settled: NDArray[np.float64] = weights / weights.sum()
    return settled


def _cap(weights: NDArray[np.float64], patients: NDArray[np.int64], share: float) -> NDArray[np.float64]:
    known = patients >= 0
    totals = np.bincount(patients[known], weights[known]) if known.any() else np.zeros(1)
    if known.all() and len(totals) * share < 1:
        raise TrainingError(f"{len(totals)} patients cannot share an epoch at {share:g} each; raise patient_share")
    factor = np.minimum(1.0, share * weights.sum() / np.maximum(totals, 1e-300))
    capped = weights * np.where(known, factor[np.maximum(patients, 0)], 1.0)
    settled: NDArray[np.float64] = capped / capped.sum()
    return settled


def _log_odds(prevalence: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(prevalence, 1e-9, 1 - 1e-9)
    odds: NDArray[np.float64] = np.log(inside) - np.log1p(-inside)
    return odds
