"""The figures of one class: how well it is ranked, how probable it is called, and what thresholds make of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from ich_node.training.evaluate.log_loss import SMALLEST

_NAN = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Cases of one class from the highest score to the lowest."""

    order: NDArray[np.intp]
    """(cases,): of the case at each rank."""
    scores: NDArray[np.float64]
    """(cases,), falling."""
    positive: NDArray[np.bool_]
    ends: NDArray[np.intp]
    """The last rank of each group of equal scores."""


def rank(scores: NDArray[np.float64], labels: NDArray[np.integer]) -> Ranking:
    """Rank cases by their scores (cases,)."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True)) if len(scores) else np.zeros(0, np.intp)
    return Ranking(order, falling, labels[order] > 0, ends)


def point_figures(
    scores: NDArray[np.float64], labels: NDArray[np.integer], thresholds: Mapping[str, float]
) -> dict[str, float]:
    """Give every figure of one class, NaN where it is not defined.

    Args:
        scores: (cases,), probabilities.
        labels: (cases,) of 0 and 1.
        thresholds: By the name under which sensitivity and specificity are given, such as ``low``.
    """
    positive = labels > 0
    both = bool(positive.any() and not positive.all())
    figures = {
        "auc": float(roc_auc_score(positive, scores)) if both else _NAN,
        "average_precision": float(average_precision_score(positive, scores)) if both else _NAN,
        "brier": float(brier_score_loss(positive, scores)) if len(scores) else _NAN,
        "log_loss": float(_losses(scores, positive).mean()) if len(scores) else _NAN,
    }
    for name, threshold in thresholds.items():
        figures[f"sensitivity_{name}"] = float(np.mean(scores[positive] >= threshold)) if positive.any() else _NAN
        figures[f"specificity_{name}"] = float(np.mean(scores[~positive] < threshold)) if not positive.all() else _NAN
    return figures


def resampled_figures(
    times: NDArray[np.uint8], ranking: Ranking, thresholds: Mapping[str, float]
) -> dict[str, NDArray[np.float64]]:
    """Give the same figures for weighted cases, all resamples of a block at once.

    Args:
        times: (resamples, cases): the weight of each case.
        ranking: Of the cases.
        thresholds: By name.

    Returns:
        By name, (resamples,); NaN where a resample lacks a class.
    """
    weights = times[:, ranking.order]
    positives = np.cumsum(weights * ranking.positive, axis=1, dtype=np.int64)
    negatives = np.cumsum(weights * ~ranking.positive, axis=1, dtype=np.int64)
    figures = _areas(positives[:, ranking.ends], negatives[:, ranking.ends])
    total = positives[:, -1] + negatives[:, -1]
    figures["brier"] = weights @ (ranking.scores - ranking.positive) ** 2 / total
    figures["log_loss"] = weights @ _losses(ranking.scores, ranking.positive) / total
    for name, threshold in thresholds.items():
        reached = int(np.searchsorted(-ranking.scores, -threshold, side="right"))
        figures[f"sensitivity_{name}"] = _share(_before(positives, reached), positives[:, -1])
        figures[f"specificity_{name}"] = 1 - _share(_before(negatives, reached), negatives[:, -1])
    return figures


def _areas(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Give the areas under ROC and PR curve from the cumulated weights (resamples, distinct scores), ties included."""
    here = np.diff(positives, axis=1, prepend=0)
    beside = np.diff(negatives, axis=1, prepend=0)
    all_positive, all_negative = positives[:, -1], negatives[:, -1]
    below = all_negative[:, np.newaxis] - negatives
    pairs = (here * (below + beside / 2)).sum(axis=1)
    precision = positives / np.maximum(positives + negatives, 1)
    missing = (all_positive == 0) | (all_negative == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = pairs / (all_positive.astype(float) * all_negative)
        average_precision = (here * precision).sum(axis=1) / all_positive
    return {"auc": np.where(missing, _NAN, auc), "average_precision": np.where(missing, _NAN, average_precision)}


def _losses(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    chance = np.clip(scores, SMALLEST, 1 - SMALLEST)
    losses: NDArray[np.float64] = -np.log(np.where(positive, chance, 1 - chance))
    return losses


def _before(cumulated: NDArray[np.int64], rank: int) -> NDArray[np.int64]:
    return cumulated[:, rank - 1] if rank else np.zeros(len(cumulated), np.int64)


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), _NAN)
