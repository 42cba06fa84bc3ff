"""A proportion with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

Z: Final = 1.959963984540054
"""Of the normal distribution: 95 % lie within it on both sides."""


def logistic(value: float) -> float:
    """Bring a value of the logit scale back to a share."""
    return 0.5 * (1.0 + math.tanh(0.5 * value))


@dataclass(frozen=True, slots=True)
class Proportion:
    """So many of so many."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """The proportion; None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The Wilson score interval at 95 %; None of nothing.

        E. B. Wilson, Probable inference, the law of succession, and statistical inference, J. Am. Stat. Assoc. 22
        (1927) 209-212; recommended for small numbers by Brown, Cai and DasGupta, Stat. Sci. 16 (2001) 101-133.
        """
        if not self.of:
            return None
        share, spread = self.count / self.of, Z * Z / self.of
        center = share + spread / 2
        half = Z * math.sqrt(share * (1 - share) / self.of + spread / (4 * self.of))
        low, high = (center - half) / (1 + spread), (center + half) / (1 + spread)
        return (0.0 if self.count == 0 else low), (1.0 if self.count == self.of else high)
