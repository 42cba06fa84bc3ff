"""The weighted log loss of the RSNA Intracranial Hemorrhage Detection challenge of 2019.

The mean over slices and over six labels, of which ``any`` counts twice: (2, 1, 1, 1, 1, 1) / 7. As the challenge says,
a probability is first brought to between 1e-15 and 1 - 1e-15. Lower is better; the class priors of its training set
give 0.2328.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.records import HEMORRHAGE_CLASSES

CLASS_WEIGHTS: Final = np.array([2.0 if name == "any" else 1.0 for name in HEMORRHAGE_CLASSES])
"""(6,), with the sum 7."""

SMALLEST: Final = 1e-15


def label_losses(labels: NDArray[np.integer], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the log loss of each label of each case: (cases, 6) to (cases, 6)."""
    clipped = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    losses: NDArray[np.float64] = -np.log(np.where(labels > 0, clipped, 1 - clipped))
    return losses


def case_losses(labels: NDArray[np.integer], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the weighted loss of each case: (cases, 6) to (cases,)."""
    losses: NDArray[np.float64] = label_losses(labels, probabilities) @ CLASS_WEIGHTS / CLASS_WEIGHTS.sum()
    return losses


def weighted_log_loss(labels: NDArray[np.integer], probabilities: NDArray[np.float64]) -> float:
    """Give the challenge's score of (cases, 6) probabilities."""
    return float(case_losses(labels, probabilities).mean())


def loss_of_priors(priors: NDArray[np.float64]) -> float:
    """Give the score of who answers every case with the frequencies (6,) of the classes."""
    both = np.clip(priors, SMALLEST, 1 - SMALLEST)
    entropies = -(both * np.log(both) + (1 - both) * np.log(1 - both))
    return float(entropies @ CLASS_WEIGHTS / CLASS_WEIGHTS.sum())
