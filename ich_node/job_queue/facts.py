"""Slice facts and tissue measures as JSON and back."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ich_node.records import NotAnalysedReason, SliceFacts, TissueMeasure

_TUPLES = ("image_type", "image_position_patient", "image_orientation_patient", "pixel_spacing_mm", "repairs")


def facts_to_json(facts: tuple[SliceFacts, ...]) -> dict[str, Any] | None:
    """Give a JSON object, or None for no facts. NaN, which JSON lacks, becomes null."""
    return {"slices": [_plain(dataclasses.asdict(one)) for one in facts]} if facts else None


def facts_from_json(stored: dict[str, Any] | None) -> tuple[SliceFacts, ...]:
    """Read what :func:`facts_to_json` wrote, in this version or an earlier one."""
    return tuple(_one(values) for values in stored["slices"]) if stored else ()


def tissue_to_json(tissue: TissueMeasure | None) -> dict[str, Any] | None:
    """Give a JSON object, or None; NaN becomes null."""
    plain: dict[str, Any] | None = None if tissue is None else _plain(dataclasses.asdict(tissue))
    return plain


def tissue_from_json(stored: dict[str, Any] | None) -> TissueMeasure | None:
    """Read what :func:`tissue_to_json` wrote."""
    if stored is None:
        return None
    return TissueMeasure(**{key: math.nan if item is None else item for key, item in stored.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, NotAnalysedReason):
        return value.name
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _one(values: dict[str, Any]) -> SliceFacts:
    values = dict(values)
    for key in _TUPLES:
        values[key] = None if values[key] is None else tuple(values[key])
    values["tissue"] = tissue_from_json(values["tissue"])
    if values.get("reason") is not None:
        values["reason"] = NotAnalysedReason[values["reason"]]
    return SliceFacts(**values)
