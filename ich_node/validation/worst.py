"""The studies of which a person wants to see why: missed with the lowest probability, false alarms with the highest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ich_node.records import Triage
from ich_node.validation.matching import Case

MOST: Final = 20
MISSED: Final = "missed"
FALSE_ALARM: Final = "false alarm"


@dataclass(frozen=True, slots=True)
class WorstCase:
    """One of them."""

    kind: str
    case: Case


def worst_cases(cases: Sequence[Case], most: int = MOST) -> tuple[WorstCase, ...]:
    """Name them: half of each kind, and more of one where there are fewer of the other."""
    missed = sorted((one for one in cases if one.hemorrhage and one.result.triage != Triage.POSITIVE), key=_probability)
    alarms = sorted((one for one in cases if not one.hemorrhage and one.result.triage == Triage.POSITIVE),
                    key=_probability, reverse=True)  # fmt: skip
    of_missed = max(most // 2, most - len(alarms))
    shown = missed[:of_missed]
    return tuple(WorstCase(MISSED, one) for one in shown) + tuple(
        WorstCase(FALSE_ALARM, one) for one in alarms[: most - len(shown)]
    )


def _probability(case: Case) -> tuple[float, str]:
    return case.result.probabilities["any"], case.label.study_instance_uid
