"""Reports built on the test series, and how tests find their way through them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pydicom
from pydicom import Dataset

from ich_node.records import Completeness, Gap, ReportReference, ResultObject, TriageFinding
from ich_node.report.structured_report import build_reports
from tests.ct_series import (
    headers,
    incomplete,
    indeterminate,
    make_request,
    negative,
    not_analysed,
    positive,
    untrained,
)

EVIDENCE = headers(12)

GROUP, FINDING, CERTAINTY, KEY_SLICE = "125007", "121071", "111012", "121080"
CONCLUSION, SUMMARY, TRIAGE, PARAMETERS = "121077", "111017", "triage-category", "111002"

FINDINGS = {
    "positive": positive(EVIDENCE),
    "indeterminate": indeterminate(EVIDENCE),
    "negative": negative(EVIDENCE),
    "incomplete": incomplete(EVIDENCE),
    "incomplete positive": replace(positive(EVIDENCE), completeness=Completeness((Gap(1.0, 9.0),))),
    "not analysed": not_analysed(),
    "untrained": untrained(EVIDENCE),
}


def build(finding: TriageFinding, evidence: tuple[Dataset, ...] = EVIDENCE, **changes: Any) -> Dataset:
    """Build a report and read its preferred encoding back."""
    return read(build_reports(make_request(evidence, finding, **changes))[0].part10)


def references(results: Iterable[ResultObject]) -> tuple[ReportReference, ...]:
    """Return how a later report refers to these."""
    return tuple(
        ReportReference(one.encoding, one.sop_class_uid, one.sop_instance_uid, one.series_instance_uid)
        for one in results
    )


def read(part10: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(part10))


def items(container: Dataset, code_value: str) -> list[Dataset]:
    """Return all content items with this concept, at any depth."""
    return [item for item in _walk(container) if item.ConceptNameCodeSequence[0].CodeValue == code_value]


def code(container: Dataset, code_value: str) -> str:
    (item,) = items(container, code_value)
    return str(item.ConceptCodeSequence[0].CodeValue)


def text(container: Dataset, code_value: str) -> str:
    (item,) = items(container, code_value)
    return str(item.TextValue)


def groups(report: Dataset) -> dict[str, Dataset]:
    """Return the measurement groups by the hemorrhage class they name in their tracking identifier."""
    return {text(group, "112039").removeprefix("ich-node "): group for group in items(report, GROUP)}


def class_value(group: Dataset) -> str:
    """Return the coded value of the qualitative evaluation, the last CODE item with a class as its concept."""
    (value,) = (
        item.ConceptCodeSequence[0].CodeMeaning
        for item in group.ContentSequence
        if item.ValueType == "CODE"
        and item.RelationshipType == "CONTAINS"
        and item.ConceptNameCodeSequence[0].CodeValue != FINDING
    )
    return str(value)


def _walk(container: Dataset) -> Iterator[Dataset]:
    for item in container.get("ContentSequence", ()):
        yield item
        yield from _walk(item)
