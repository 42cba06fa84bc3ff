"""Labels of slices, as tables state them, checked: 0 or 1, and `any` is what the subtypes say together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ich_node.errors import TrainingError
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.prepare.lot import Labels

ANY: Final = HEMORRHAGE_CLASSES[0]
SUBTYPES: Final = HEMORRHAGE_CLASSES[1:]
_NAMED: Final = 20
"""Of many faults so many are named."""


def read_labels(record: Mapping[str, str]) -> Labels:
    """Read the six labels of a table's row; where the column `any` is absent or empty, it is the OR of the subtypes.

    Raises:
        ValueError: says in words what is wrong with the row.
    """
    subtypes = [_label(record, name) for name in SUBTYPES]
    stated = _label(record, ANY) if record.get(ANY, "").strip() else max(subtypes)
    if stated != max(subtypes):
        raise ValueError(f"any is {stated}, but the subtypes say {max(subtypes)}")
    return (stated, *subtypes)


def check_columns(columns: Sequence[str], wanted: Iterable[str], table: object) -> None:
    """Make sure that a table has the columns it needs.

    Raises:
        TrainingError: names those that are missing.
    """
    if missing := [name for name in wanted if name not in columns]:
        raise TrainingError(f"{table}: columns missing: {', '.join(missing)}; add them, or give another table")


def refuse(table: object, what: str, faults: Sequence[str], advice: str) -> None:
    """Do nothing without faults.

    Raises:
        TrainingError: names the faults, the first twenty of many, and what to do.
    """
    if faults:
        more = f", and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise TrainingError(f"{table}: {what}: {'; '.join(faults[:_NAMED])}{more}. {advice}")


def _label(record: Mapping[str, str], name: str) -> int:
    text = (record.get(name) or "").strip()
    if text not in ("0", "1", "0.0", "1.0"):
        raise ValueError(f"{name} is {text!r}, neither 0 nor 1")
    return int(float(text))
