"""Findings as JSON and back: what status shows, and what a later report of the study shows again."""

from __future__ import annotations

import dataclasses
from typing import Any

from ich_node.records import (
    ClassThresholds,
    Completeness,
    Gap,
    NotAnalysedReason,
    PlaneMember,
    Presence,
    SliceProbability,
    Triage,
    TriageFinding,
)

_FLAGS = ("test_model", "derived", "bone_kernel")


def finding_to_json(finding: TriageFinding) -> dict[str, Any]:
    """Give everything that a finding says."""
    completeness = finding.completeness
    flags = {name: getattr(finding, name) for name in _FLAGS}
    return flags | {
        "triage": finding.triage,
        "probabilities": finding.probabilities,
        "presence": finding.presence,
        "thresholds": {name: dataclasses.asdict(pair) for name, pair in finding.thresholds.items()},
        "gaps_mm": [[gap.from_mm, gap.to_mm] for gap in completeness.gaps],
        "unreadable": completeness.unreadable,
        "extent_mm": completeness.extent_mm,
        "short": completeness.short,
        "cut_below": completeness.cut_below,
        "cut_above": completeness.cut_above,
        "missing_by_count": completeness.missing_by_count,
        "slices": [dataclasses.asdict(one) for one in finding.slices],
        "key_slices": {
            name: [[one.sop_instance_uid, one.frame] for one in slices] for name, slices in finding.key_slices.items()
        },
        "reason": None if finding.reason is None else finding.reason.name,
        "reason_detail": finding.reason_detail,
    }


def finding_from_json(stored: dict[str, Any]) -> TriageFinding:
    """Read what :func:`finding_to_json` wrote."""
    slices = tuple(_slice(values) for values in stored["slices"])
    by_key = {(one.sop_instance_uid, one.frame): one for one in slices}
    key_slices = {
        name: tuple(by_key[uid, frame] for uid, frame in keys) for name, keys in stored.get("key_slices", {}).items()
    }
    return TriageFinding(
        triage=Triage(stored["triage"]) if stored.get("triage") else None,
        presence={name: Presence(value) for name, value in stored["presence"].items()},
        probabilities=stored["probabilities"],
        thresholds={name: ClassThresholds(**pair) for name, pair in stored["thresholds"].items()},
        slices=slices,
        key_slices=key_slices,
        completeness=_completeness(stored),
        reason=NotAnalysedReason[stored["reason"]] if stored.get("reason") else None,
        reason_detail=stored.get("reason_detail", ""),
        **{name: stored.get(name, False) for name in _FLAGS},
    )


def _slice(values: dict[str, Any]) -> SliceProbability:
    members = tuple(PlaneMember(**one) for one in values.get("members", ()))
    return SliceProbability(**values | {"members": members})


def _completeness(stored: dict[str, Any]) -> Completeness:
    extent = stored.get("extent_mm")
    return Completeness(
        gaps=tuple(Gap(*ends) for ends in stored["gaps_mm"]),
        unreadable=stored["unreadable"],
        extent_mm=None if extent is None else (extent[0], extent[1]),
        short=stored.get("short", False),
        cut_below=stored.get("cut_below", False),
        cut_above=stored.get("cut_above", False),
        missing_by_count=stored.get("missing_by_count", 0),
    )
