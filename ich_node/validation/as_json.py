"""A validation for programs, and the thresholds that it proposes as the file that a person signs off."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import BaseModel

from ich_node import __version__
from ich_node.model.manifest import Thresholds
from ich_node.model.site_thresholds import SiteThresholds, ValidatedData, ValidatedModel
from ich_node.records import ClassThresholds
from ich_node.validation.matching import Case
from ich_node.validation.validating import Validation


def validation_as_json(validation: Validation, source: str, at: float) -> dict[str, Any]:
    """Give everything that the report says, and every study with what was said of it."""
    name, version, sha256 = validation.matched.model or ("", "", "")
    matched = validation.matched
    return {
        "format_version": 1,
        "made_at": at,
        "node": __version__,
        "results": source,
        "model": {"name": name, "version": version, "sha256": sha256},
        "labels": {
            "name": validation.labels.name,
            "sha256": validation.labels.sha256,
            "studies": len(validation.labels.labels),
            "repeats": list(validation.labels.repeats),
        },
        "settings": _plain(validation.settings),
        "prevalence": validation.prevalence,
        "observed_prevalence": validation.observed_prevalence,
        "studies_per_shift": validation.studies_per_shift,
        "received": validation.received,
        "test_model": validation.test_model,
        "incomplete": validation.incomplete,
        "other_thresholds": validation.other_thresholds,
        "classes": _plain(validation.classes),
        "found_as_any": _plain(validation.found_as_any),
        "intention_to_diagnose": _plain(validation.pessimistic),
        "groups": _plain(validation.groupings),
        "operating_points": _plain(validation.operating_rows),
        "proposals": _plain(validation.proposals),
        "analysed": [_case(one) for one in matched.analysed],
        "not_analysed": [_case(one) for one in matched.not_analysed],
        "left_out": _plain(matched.left_out),
        "unlabelled": [one.study_instance_uid for one in matched.unlabelled],
        "worst": [{"kind": one.kind, "study_instance_uid": one.case.label.study_instance_uid}
                  for one in validation.worst],
    }  # fmt: skip


def proposed_thresholds(validation: Validation, at: float) -> SiteThresholds | None:
    """Give the thresholds to be signed off; None where it is not known of which model the answers are."""
    if validation.matched.model is None:
        return None
    name, version, sha256 = validation.matched.model
    since, until = validation.received or (None, None)
    return SiteThresholds(
        model=ValidatedModel(name=name, version=version, sha256=sha256),
        thresholds={key: _thresholds(one.proposed) for key, one in validation.proposals.items()},
        site_classes=tuple(key for key, one in validation.proposals.items() if one.chosen_here),
        operating_points={key: one.point for key, one in validation.proposals.items()},
        data=ValidatedData(
            labels=validation.labels.sha256,
            studies=len(validation.matched.analysed),
            positives=validation.classes["any"].positives,
            received_from=since,
            received_until=until,
        ),
        proposed_at=at,
        proposed_by=f"ich-node {__version__}",
    )


def _thresholds(pair: ClassThresholds) -> Thresholds:
    return Thresholds(low=pair.low, high=pair.high)


def _case(case: Case) -> dict[str, Any]:
    result = case.result
    return {
        "study_instance_uid": case.label.study_instance_uid,
        "label": dict(case.label.shows),
        "triage": result.triage,
        "why_not": result.why_not,
        "probabilities": dict(result.probabilities) or None,
        "complete": result.complete,
        "station": result.station_name or None,
        "slice_thickness_mm": result.slice_thickness_mm,
        "age_years": result.age_years,
        "sex": result.sex or None,
    }


def _plain(value: Any) -> Any:
    """Give a record as JSON has it; a share with its value, which is a property of it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in dataclasses.fields(value)]
        properties = ["value"] if hasattr(value, "value") and "value" not in names else []
        return {name: _plain(getattr(value, name)) for name in [*properties, *names]}
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
