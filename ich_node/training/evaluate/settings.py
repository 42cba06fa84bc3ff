"""How to evaluate."""

from dataclasses import dataclass
from typing import Final

_MOST_DRAWN: Final = 200_000_000
"""Cases over all resamples; about ten minutes of one core."""
_FEWEST_RESAMPLES: Final = 200


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How to evaluate: targets of the thresholds, resamples of the bootstrap, prevalences to print."""

    target_sensitivity: float = 0.95
    """That the lower 95 % bound of study sensitivity is to reach at the low threshold."""
    target_specificity: float = 0.95
    """Of a sure positive."""
    resamples: int = 1000
    seed: int = 0
    prevalences: tuple[float, ...] = (0.02, 0.05, 0.10, 0.20, 0.40)
    """Shares of positive studies among all that a site sees."""
    few_patients: int = 20
    """Classes with fewer positive patients are marked."""
    worst_cases: int = 12
    """Of each kind to show."""

    def resamples_of(self, cases: int) -> int:
        """Give the resamples for so many cases: all that are wanted up to 200,000 cases, 267 for 750,000."""
        return min(self.resamples, max(_FEWEST_RESAMPLES, _MOST_DRAWN // max(1, cases)))
