"""What a site decides of eligibility, and of how long things are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NO_CONTRAST_VALUES: Final = (
    "NONE", "NO", "N", "W/O", "WO", "WITHOUT", "N/A", "NA", "NOT GIVEN", "NO CONTRAST", "WITHOUT CONTRAST",
    "W/O CONTRAST", "NON CONTRAST", "NON-CONTRAST", "NONCONTRAST", "UNENHANCED", "NATIVE", "NATIV", "PLAIN", "C-", "-",
    "0", "OHNE", "SANS", "SIN", "SENZA", "SEM", "ZONDER",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EligibilityRules:
    """What a site decides of which series are analysed."""

    minimum_age_years: int = 18
    """Younger patients get no result; an unknown age counts as adult."""
    pixel_gate: bool = True
    """Decline a series whose Hounsfield values cannot be those of a brain."""
    no_contrast_values: tuple[str, ...] = NO_CONTRAST_VALUES
    """Values of ContrastBolusAgent that mean that none was given, whatever their case."""


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """How long files are kept, and a destination may take to commit to what it was sent."""

    images_days: float
    not_head_days: float
    results_days: float
    commitment_wait_h: float
