"""The sentences of a report, as a radiologist reads them.

Everything written here is ASCII, since it must be encodable in whatever character set the images declare.
"""

from collections.abc import Iterable, Mapping
from datetime import tzinfo
from typing import Final

from pydicom import Dataset

from ich_node import __version__
from ich_node.records import (
    HEMORRHAGE_CLASSES,
    Completeness,
    Gap,
    Presence,
    ReportRequest,
    SliceProbability,
    Step,
    Triage,
    TriageFinding,
)
from ich_node.report.study_attributes import valid_text

SUBTYPES: Final = HEMORRHAGE_CLASSES[1:]
TEST_MODEL: Final = "TEST MODEL"
DISCLAIMER: Final = "Research software, not a medical device. Not for diagnosis. Unverified."
_LONG_STRING: Final = 64  # characters of VR LO, PS3.5 6.2

_HEADLINES: Final = {
    Triage.POSITIVE: "Suspected intracranial hemorrhage.",
    Triage.INDETERMINATE: "Indeterminate for intracranial hemorrhage: neither suspected nor negative.",
    Triage.NEGATIVE: "The software found no intracranial hemorrhage. This does not exclude hemorrhage.",
}


def conclusion(request: ReportRequest) -> str:
    """Say the whole result in one paragraph."""
    finding = request.finding
    if finding.triage is None:
        sentences = [not_analysed(finding)]
    else:
        sentences = [*_result(finding, finding.triage), *_key_slices(request)]
    sentences += [completeness(finding), _origin(request), _revision(request), DISCLAIMER]
    if finding.test_model:
        sentences.insert(0, f"{TEST_MODEL}: this result comes from a model that was not trained and means nothing.")
    return ascii_text(" ".join(sentence for sentence in sentences if sentence))


def not_analysed(finding: TriageFinding) -> str:
    """Say that there is no result and why."""
    reason = _reason(finding) or "Not analysed."
    return f"{reason} There is no result for this study; this is not a negative result."


def completeness(finding: TriageFinding) -> str:
    """Say which slices are missing, every gap in full."""
    parts = []
    if finding.completeness.gaps:
        stretches = ", ".join(f"{gap.from_mm:.1f} to {gap.to_mm:.1f} mm" for gap in finding.completeness.gaps)
        parts.append(f"Slices are missing along the slice normal at {stretches}.")
    if finding.completeness.unreadable:
        parts.append(f"{_count(finding.completeness.unreadable, 'slice')} could not be read.")
    if parts:
        return "The series is incomplete. " + " ".join(parts)
    return f"The series has no gap ({_count(len(finding.slices), 'slice')})." if finding.slices else ""


def completion_flag_description(finding: TriageFinding) -> str:
    """Say in at most 64 characters (LO) what the document lacks; empty where it is complete."""
    if finding.triage is None:
        reason = _reason(finding) or "Not analysed"
        return _shortened(ascii_text(reason).rstrip("."))
    if finding.completeness.complete:
        return ""
    return _compact_gaps(finding.completeness)


def step_text(step: Step, zone: tzinfo | None) -> str:
    """Say when one step happened, to the millisecond, in the time zone of the report."""
    return ascii_text(f"{step.name}: {step.at.astimezone(zone).isoformat(sep=' ', timespec='milliseconds')}")


def percent(probability: float) -> str:
    """Return a probability as people read it, such as ``97.0 %``."""
    return f"{100 * probability:.1f} %"


def ascii_text(text: str) -> str:
    """Replace what not every character set can hold."""
    return text.encode("ascii", "replace").decode("ascii")


def _reason(finding: TriageFinding) -> str:
    if finding.reason is None:
        return ""
    detail = f" ({finding.reason_detail})" if finding.reason_detail else ""
    if finding.reason.name == "UNTRAINED_MODEL":
        return f"Untrained model, no finding{detail}."
    return f"Not analysed: {finding.reason.text}{detail}."


def _result(finding: TriageFinding, triage: Triage) -> list[str]:
    sentences = [_HEADLINES[triage], _probability(finding)]
    if triage is Triage.NEGATIVE:
        return sentences
    if triage is Triage.INDETERMINATE and _would_be_negative(finding):
        sentences.append("It is below the lower threshold, but a series with missing slices is never called negative.")
    return [*sentences, _subtypes(finding, triage)]


def _would_be_negative(finding: TriageFinding) -> bool:
    below = finding.probabilities.get("any", 1.0) < finding.thresholds["any"].low if finding.thresholds else False
    return below and not finding.completeness.complete


def _probability(finding: TriageFinding) -> str:
    if "any" not in finding.probabilities:
        return ""
    text = f"Probability {percent(finding.probabilities['any'])}"
    thresholds = finding.thresholds.get("any")
    if thresholds is None:
        return f"{text}."
    return f"{text} (suspected from {percent(thresholds.high)}, no finding below {percent(thresholds.low)})."


def _subtypes(finding: TriageFinding, triage: Triage) -> str:
    suspected = _named(finding, Presence.PRESENT)
    unclear = _named(finding, Presence.INDETERMINATE)
    sentences = []
    if suspected:
        sentences.append(f"Suspected subtypes: {suspected}.")
    elif triage is Triage.POSITIVE:
        sentences.append("No subtype reaches its threshold.")
    if unclear:
        sentences.append(f"Indeterminate subtypes: {unclear}.")
    return " ".join(sentences)


def _named(finding: TriageFinding, presence: Presence) -> str:
    names = [name for name in SUBTYPES if finding.presence.get(name) is presence]
    return ", ".join(
        f"{name} {percent(finding.probabilities[name])}" if name in finding.probabilities else name for name in names
    )


def _key_slices(request: ReportRequest) -> list[str]:
    slices = request.finding.key_slices.get("any", ())
    if request.finding.triage is Triage.NEGATIVE or not slices:
        return []
    headers = {str(header.SOPInstanceUID): header for header in request.study.evidence}
    return [f"Slices to look at first (instance number): {', '.join(_slice_names(slices, headers))}."]


def _slice_names(slices: Iterable[SliceProbability], headers: Mapping[str, Dataset]) -> list[str]:
    return [_slice_name(one, headers.get(one.sop_instance_uid)) for one in slices]


def _slice_name(one: SliceProbability, header: Dataset | None) -> str:
    instance_number = valid_text(header, "InstanceNumber") if header is not None else ""
    name = instance_number or f"at {one.position_mm:.1f} mm"
    return name if one.frame is None else f"{name} frame {one.frame}"


def _origin(request: ReportRequest) -> str:
    software = f"ich-node {__version__}"
    if request.model is None:
        return f"Software {software}."
    untrained = "" if request.model.trained else " (untrained)"
    return f"Model {request.model.name} {request.model.version}{untrained}, software {software}."


def _revision(request: ReportRequest) -> str:
    revision = request.identity.revision
    return f"Revision {revision}, replaces earlier reports of this software on this study." if revision > 1 else ""


def _compact_gaps(missing: Completeness) -> str:
    """Name as many gaps as fit, such as ``gaps at mm: -12..3, 40..52 (+3 more)``."""
    parts = [f"{missing.unreadable} unreadable"] if missing.unreadable else []
    prefix = "; ".join([*parts, "gaps at mm: "]) if missing.gaps else "; ".join(parts)
    named = [_compact_gap(gap) for gap in missing.gaps]
    for count in range(len(named), 0, -1):
        rest = f" (+{len(named) - count} more)" if count < len(named) else ""
        text = prefix + ", ".join(named[:count]) + rest
        if len(text) <= _LONG_STRING:
            return text
    return _shortened(prefix)


def _compact_gap(gap: Gap) -> str:
    return f"{gap.from_mm:.0f}..{gap.to_mm:.0f}"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONG_STRING else text[: _LONG_STRING - 3] + "..."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
