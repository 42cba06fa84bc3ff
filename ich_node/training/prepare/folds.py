"""Folds by group, never by slice, alike in sources and classes as far as the groups allow."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ich_node.errors import TrainingError
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.prepared import SliceRow

_SUBTYPES: Final = range(1, len(HEMORRHAGE_CLASSES))


def assign_folds(rows: Sequence[SliceRow], groups: Sequence[str], folds: int, seed: int) -> list[int]:
    """Give each row a fold from 0; rows of one group get the same.

    Raises:
        TrainingError: there are fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # late: the children that make shards do not need it

    count = len(set(groups))
    if folds < 2 or count < folds:
        raise TrainingError(f"{folds} folds of {count} patients or groups cannot be made; give 2 to {count} folds")
    strata = _strata(rows, groups, folds)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    assigned = np.zeros(len(rows), np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(rows)), strata, groups)):
        assigned[held_out] = fold
    return [int(fold) for fold in assigned]


def _strata(rows: Sequence[SliceRow], groups: Sequence[str], folds: int) -> list[str]:
    """Stratify on source and rarest class; what too few groups have falls back to `any`, then to all."""
    totals = Counter(index for row in rows for index in _SUBTYPES if row.labels[index])
    steps: tuple[Callable[[SliceRow], str], ...] = (
        lambda row: f"{row.source} {_rarest(row, totals)}",
        lambda row: f"{row.source} any {row.labels[0]}",
        lambda row: f"any {row.labels[0]}",
        lambda _: "all",
    )
    strata = [""] * len(rows)
    for step in steps:
        candidates = [known or step(row) for known, row in zip(strata, rows, strict=True)]
        in_groups = Counter(name for name, _ in set(zip(candidates, groups, strict=True)))
        strata = [name if in_groups[name] >= folds else "" for name in candidates]
    largest = Counter(strata).most_common(1)[0][0]
    return [name or largest for name in strata]


def _rarest(row: SliceRow, totals: Counter[int]) -> int:
    """The class of a slice that has the fewest positives in the whole set; 0 without hemorrhage."""
    positive = (index for index in _SUBTYPES if row.labels[index])
    return min(positive, key=lambda index: totals[index], default=0)
