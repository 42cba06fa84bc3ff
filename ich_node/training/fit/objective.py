"""What is made small in training, and the two figures that a run logs of the slices held out.

The full evaluation is in ``training.evaluate``; a machine that only trains has no scikit-learn.
"""

import torch
from torch import Tensor
from torch.nn import functional

from ich_node.records import HEMORRHAGE_CLASSES


def class_weights(any_weight: float) -> Tensor:
    """Of the six classes, as the RSNA challenge weighs them where ``any`` counts 2; they sum to 1."""
    weights = torch.ones(len(HEMORRHAGE_CLASSES))
    weights[HEMORRHAGE_CLASSES.index("any")] = any_weight
    return weights / weights.sum()


def weighted_log_loss(logits: Tensor, labels: Tensor, weights: Tensor, importance: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of (slices, 6), weighted by class; plain: focal loss or smoothing would ruin it.

    ``importance`` (slices,) weighs the subtypes of slices that were drawn oftener or rarer than the data have them.
    """
    each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none") * weights
    if importance is None:
        return each.sum(dim=1).mean()
    return (each[:, 0] + importance * each[:, 1:].sum(dim=1)).mean()


def area_under_roc(scores: Tensor, labels: Tensor) -> float | None:
    """The chance that a positive slice scores above a negative one, ties half (Hanley and McNeil 1982)."""
    positives, negatives = scores[labels > 0.5].double(), scores[labels <= 0.5].double().sort().values
    if not len(positives) or not len(negatives):
        return None
    below = torch.searchsorted(negatives, positives) + torch.searchsorted(negatives, positives, right=True)
    return float(below.double().mean() / (2 * len(negatives)))
