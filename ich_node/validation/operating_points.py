"""What each threshold of ``any`` would do at the site: those in use, those proposed, and some in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ich_node.validation.figures import Rates
from ich_node.validation.matching import Case
from ich_node.validation.predictive import AtPrevalence, at_prevalence
from ich_node.validation.proposal import ClassProposal, rates_at

_SENSITIVITIES: Final = (0.80, 0.85, 0.90, 0.95, 0.98, 1.0)


@dataclass(frozen=True, slots=True)
class OperatingRow:
    """What would follow if everything were called positive from one threshold on."""

    name: str
    threshold: float
    rates: Rates
    at: AtPrevalence


def operating_rows(
    cases: Sequence[Case], proposals: Mapping[str, ClassProposal], prevalence: float, studies_per_shift: float | None
) -> tuple[OperatingRow, ...]:
    """Tell the thresholds of ``any`` that matter, and those at which certain shares of the positives are found."""
    return tuple(
        OperatingRow(name, threshold, rates, at_prevalence(rates, prevalence, studies_per_shift))
        for name, threshold in _thresholds(cases, proposals["any"])
        for rates in (rates_at(cases, threshold),)
    )


def _thresholds(cases: Sequence[Case], any_: ClassProposal) -> Iterator[tuple[str, float]]:
    yield "in use: positive", any_.in_use.high
    yield "in use: not negative", any_.in_use.low
    if any_.chosen_here:
        yield "proposed: positive", any_.proposed.high
        yield "proposed: not negative", any_.proposed.low
    positive = np.sort([one.result.probabilities["any"] for one in cases if one.hemorrhage])[::-1]
    for wanted in _SENSITIVITIES if len(positive) else ():
        last = int(np.ceil(wanted * len(positive) - 1e-9)) - 1
        yield f"finds {100 * wanted:.0f} %", float(positive[last])
