"""What the summary page says, before it is drawn."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydicom import Dataset

from ich_node.records import TRIAGE_RANKS, KeySlicePicture, NotAnalysedReason, ReportRequest, SliceProbability, Triage
from ich_node.report import wording
from ich_node.report.result_header import SUMMARY, result_header
from ich_node.report.study_attributes import valid_element, valid_text

NOTHING: Final = "–"

_WORDS: Final = {
    Triage.POSITIVE: "SUSPECTED HEMORRHAGE",
    Triage.INDETERMINATE: "INDETERMINATE",
    Triage.NEGATIVE: "NO HEMORRHAGE FOUND",
}


@dataclass(frozen=True, slots=True)
class StepLine:
    """One step on the way to the report."""

    time: str
    name: str
    after: str
    """Since the step before."""


@dataclass(frozen=True, slots=True)
class SummaryText:
    """The words of the page; empty where there is nothing to say."""

    verdict: str
    first: tuple[str, ...]
    """What must be read before the answer: a higher answer of another series."""
    sentences: tuple[str, ...]
    """The answer in full."""
    mark: str
    """Of a model that was not trained."""
    revision: str
    replaces: bool
    patient_name: str
    patient: tuple[tuple[str, str], ...]
    """Label and value."""
    warnings: tuple[str, ...]
    remarks: tuple[str, ...]
    origin: str
    steps: tuple[StepLine, ...]
    steps_title: str


def summary_text(request: ReportRequest) -> SummaryText:
    """Say what the page says.

    Args:
        request: In the zone of the images.
    """
    finding = request.finding
    own = TRIAGE_RANKS[finding.triage]
    higher = [one for one in request.other_series if TRIAGE_RANKS[one.triage] > own]
    others = [one for one in request.other_series if TRIAGE_RANKS[one.triage] <= own]
    first = wording.other_series(finding, higher)
    whole = wording.completeness_sentences(finding)
    complete = finding.completeness.complete
    missing = [] if complete else [" ".join(whole[:2]), *whole[2:]]
    warnings = [*missing, wording.second_choice(finding), *wording.other_series(finding, others)]
    remarks = [*(whole if complete else []), wording.averaged(finding)]
    header = result_header(request, SUMMARY)
    return SummaryText(
        verdict=_verdict(request),
        first=(*first, "What follows is of this series alone.") if first else (),
        sentences=tuple(one for one in _sentences(request) if one),
        mark=wording.test_model_mark(finding) if finding.test_model else "",
        revision=_revision(request),
        replaces=bool(request.predecessors),
        patient_name=_patient_name(header),
        patient=_patient(header),
        warnings=tuple(one for one in warnings if one),
        remarks=tuple(one for one in remarks if one),
        origin=wording.origin(request),
        steps=_steps(request),
        steps_title=_steps_title(request),
    )


def slice_label(request: ReportRequest, picture: KeySlicePicture | SliceProbability) -> str:
    """Name a slice, and those of its slab."""
    headers = {str(header.SOPInstanceUID): header for header in request.study.evidence}
    for one in request.finding.slices:
        if (one.sop_instance_uid, one.frame) == (picture.sop_instance_uid, picture.frame):
            return wording.slice_name(one, headers) + wording.slab_name(one, headers)
    return f"at {picture.position_mm:.1f} mm"


def percent_or_nothing(probability: float | None) -> str:
    """Return a probability as people read it."""
    return NOTHING if probability is None else wording.percent(probability)


def _verdict(request: ReportRequest) -> str:
    finding = request.finding
    if finding.withdrawn:
        return "RESULT WITHDRAWN"
    if finding.triage is not None:
        return _WORDS[finding.triage]
    return "NO RESULT" if finding.reason is NotAnalysedReason.UNTRAINED_MODEL else "NOT ANALYSED"


def _sentences(request: ReportRequest) -> list[str]:
    finding = request.finding
    if finding.withdrawn:
        return [wording.withdrawn(finding)]
    if finding.triage is None:
        return [wording.not_analysed(finding, request.other_series)]
    return wording.answer(finding, finding.triage)


def _revision(request: ReportRequest) -> str:
    revision = request.identity.revision
    return (
        f"Revision {revision}, supersedes revision {revision - 1}" if request.predecessors else f"Revision {revision}"
    )


def _patient_name(header: Dataset) -> str:
    """Give the alphabetic group and, where there is one, the ideographic one (PS3.5 6.2.1.2)."""
    element = valid_element(header, "PatientName")
    if element is None:
        return "(no name)"
    first = element.value if element.VM == 1 else element.value[0]
    groups = str(first).split("=")
    family_first = [_components(group) for group in groups[:2]]
    alphabetic = ", ".join(part for part in family_first[0] if part)
    ideographic = " ".join(part for part in family_first[1] if part) if len(family_first) > 1 else ""
    return "  ".join(part for part in (alphabetic, ideographic) if part) or "(no name)"


def _components(group: str) -> tuple[str, str]:
    """Split a group into the family name and the rest, in the order in which it is spoken."""
    family, given, middle, prefix, suffix = (part.strip() for part in (group.split("^") + [""] * 5)[:5])
    return family, " ".join(part for part in (prefix, given, middle, suffix) if part)


def _patient(header: Dataset) -> tuple[tuple[str, str], ...]:
    sex = valid_text(header, "PatientSex")
    born = _date(valid_text(header, "PatientBirthDate"))
    study = f"{_date(valid_text(header, 'StudyDate'))} {_time(valid_text(header, 'StudyTime'))}".strip()
    return (
        ("Patient ID", valid_text(header, "PatientID") or NOTHING),
        ("Born", f"{born}   {sex}".strip()),
        ("Accession", valid_text(header, "AccessionNumber") or NOTHING),
        ("Study", study),
        ("Description", valid_text(header, "StudyDescription") or NOTHING),
    )


def _date(value: str) -> str:
    """Write a DA value as people read it in every country."""
    return f"{value[:4]}-{value[4:6]}-{value[6:8]}" if len(value) == 8 else NOTHING


def _time(value: str) -> str:
    return f"{value[:2]}:{value[2:4]}" if len(value) >= 4 and value[:4].isdigit() else ""


def _steps(request: ReportRequest) -> tuple[StepLine, ...]:
    lines, before = [], None
    for step in request.steps:
        at = step.at.astimezone(request.created_at.tzinfo)
        after = "" if before is None else f"+{_duration((at - before).total_seconds())}"
        lines.append(StepLine(f"{at:%H:%M:%S}", wording.ascii_text(step.name), after))
        before = at
    return tuple(lines)


def _steps_title(request: ReportRequest) -> str:
    created = request.created_at
    zone = f"UTC{created:%z}"[:8]
    day = f"{created:%Y-%m-%d}, {zone[:6]}:{zone[6:]}"
    if len(request.steps) < 2:
        return f"Times ({day})"
    return f"Times ({day}), {_duration(_span_s([step.at for step in request.steps]))} in all"


def _span_s(times: list[datetime]) -> float:
    return (max(times) - min(times)).total_seconds()


def _duration(seconds: float) -> str:
    if abs(seconds) < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(abs(seconds)), 60)
    sign = "-" if seconds < 0 else ""
    return f"{sign}{minutes} min {rest:02} s" if minutes < 120 else f"{sign}{minutes // 60} h {minutes % 60:02} min"
