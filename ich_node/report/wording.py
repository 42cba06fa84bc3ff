"""The sentences of a report, as a radiologist reads them.

Everything written here is ASCII, since it must be encodable in whatever character set the images declare.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from typing import Final

from pydicom import Dataset

from ich_node import __version__
from ich_node.records import (
    HEMORRHAGE_CLASSES,
    TRIAGE_RANKS,
    Completeness,
    Gap,
    NotAnalysedReason,
    OtherSeriesFinding,
    PlaneMember,
    Presence,
    ReportRequest,
    SliceKey,
    SliceProbability,
    Step,
    Triage,
    TriageFinding,
)
from ich_node.report.study_attributes import valid_text

SUBTYPES: Final = HEMORRHAGE_CLASSES[1:]
TEST_MODEL: Final = "TEST MODEL"
DISCLAIMER: Final = "Research software, not a medical device. Not for diagnosis. Unverified."
NO_RESULT: Final = "There is no result for this study; this is not a negative result."
_LONG_STRING: Final = 64  # characters of VR LO, PS3.5 6.2

_HEADLINES: Final = {
    Triage.POSITIVE: "Suspected intracranial hemorrhage.",
    Triage.INDETERMINATE: "Indeterminate for intracranial hemorrhage: neither suspected nor negative.",
    Triage.NEGATIVE: "The software found no intracranial hemorrhage. This does not exclude hemorrhage.",
}
_MODES: Final = {
    "live": " Mode live.",
    "objects": " Mode objects: nobody is alerted.",
    "shadow": " Mode shadow: nothing leaves the node.",
}
_OUTCOMES: Final = {
    Triage.POSITIVE: "was positive for the software",
    Triage.INDETERMINATE: "was indeterminate for the software",
    Triage.NEGATIVE: "was negative for the software",
    None: "gave no finding",
}


def conclusion(request: ReportRequest) -> str:
    """Say the whole result in one paragraph."""
    finding = request.finding
    sentences = [withdrawn(finding)] if finding.withdrawn else _outcome(request)
    sentences += [origin(request), _revision(request), DISCLAIMER]
    if finding.test_model:
        sentences.insert(0, test_model_mark(finding))
    return ascii_text(" ".join(sentence for sentence in sentences if sentence))


def withdrawn(finding: TriageFinding) -> str:
    """Say that the result that was given does not hold, and why."""
    because = f": {_reason_text(finding)}" if finding.reason else ""
    return f"WITHDRAWN: the earlier report of this software on this study does not hold{because}. {NO_RESULT}"


def not_analysed(finding: TriageFinding, others: Sequence[OtherSeriesFinding] = ()) -> str:
    """Say that there is no result and why."""
    reason = _reason(finding) or "Not analysed."
    if any(other.triage for other in others):
        return f"{reason} There is no result for this series; this is not a negative result."
    return f"{reason} {NO_RESULT}"


def other_series(finding: TriageFinding, others: Iterable[OtherSeriesFinding]) -> list[str]:
    """Say what other series of the study led to, the highest answer first."""
    ordered = sorted(others, key=lambda other: -TRIAGE_RANKS[other.triage])
    return [_other_series(other, finding.triage) for other in ordered]


def completeness(finding: TriageFinding) -> str:
    """Say which slices are missing, every gap in full."""
    return " ".join(completeness_sentences(finding))


def completeness_sentences(finding: TriageFinding) -> list[str]:
    """Say it in sentences of which each can stand alone."""
    missing, ends = _missing(finding.completeness), _ends(finding.completeness)
    if missing:
        return ["The series is incomplete.", *missing, *ends]
    if ends:
        return ["The series may not show the whole head.", *ends]
    return [f"The series has no gap ({_count(len(_slice_keys(finding)), 'slice')})."] if finding.slices else []


def completion_flag_description(finding: TriageFinding) -> str:
    """Say in at most 64 characters (LO) what the document lacks; empty where it is complete."""
    if finding.withdrawn:
        return _shortened(ascii_text(f"Withdrawn: {_reason_text(finding)}" if finding.reason else "Withdrawn"))
    if finding.triage is None:
        reason = _reason(finding) or "Not analysed"
        return _shortened(ascii_text(reason).rstrip("."))
    if finding.completeness.complete:
        return ""
    return _compact_completeness(finding.completeness)


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
    if finding.reason is NotAnalysedReason.UNTRAINED_MODEL:
        reason = _reason_text(finding)
        return f"{reason[0].upper()}{reason[1:]}."
    return f"Not analysed: {_reason_text(finding)}."


def _reason_text(finding: TriageFinding) -> str:
    assert finding.reason is not None
    detail = f" ({finding.reason_detail})" if finding.reason_detail else ""
    return f"{finding.reason.text}{detail}"


def _outcome(request: ReportRequest) -> list[str]:
    finding = request.finding
    own, others = TRIAGE_RANKS[finding.triage], request.other_series
    higher = other_series(finding, (other for other in others if TRIAGE_RANKS[other.triage] > own))
    lower = other_series(finding, (other for other in others if TRIAGE_RANKS[other.triage] <= own))
    if finding.triage is None:
        result = [not_analysed(finding, others)]
    else:
        result = [*answer(finding, finding.triage), *_key_slices(request)]
    # who reads no further than the first sentence must see that the study has a higher answer than this series
    first = [*higher, "What follows is of this series alone."] if higher else []
    return [*first, *result, completeness(finding), averaged(finding), second_choice(finding), *lower]


def _other_series(other: OtherSeriesFinding, own: Triage | None) -> str:
    number = "" if other.series_number is None else f" (series {other.series_number})"
    sentence = f"Another series of this study{number} {_OUTCOMES[other.triage]}"
    if other.triage is None:
        return f"{sentence}; this is not a negative result."
    if TRIAGE_RANKS[other.triage] < TRIAGE_RANKS[own]:
        return f"{sentence}; the study keeps the higher answer, which is this one."
    if TRIAGE_RANKS[other.triage] > TRIAGE_RANKS[own]:
        return f"{sentence}; the study keeps that higher answer."
    return f"{sentence}."


def test_model_mark(finding: TriageFinding) -> str:
    """Say that a result means nothing."""
    result = "the earlier result came" if finding.withdrawn else "this result comes"
    return f"{TEST_MODEL}: {result} from a model that was not trained and means nothing."


def answer(finding: TriageFinding, triage: Triage) -> list[str]:
    """Say the answer, its probability and the subtypes."""
    sentences = [_HEADLINES[triage], _probability(finding)]
    if triage is Triage.NEGATIVE:
        return sentences
    if triage is Triage.INDETERMINATE and _would_be_negative(finding):
        sentences.append("It is below the lower threshold, but an incomplete series is never called negative.")
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
    names = ", ".join(slice_name(one, headers) + slab_name(one, headers) for one in slices)
    what = (
        "instance number, and those of its slab" if any(len(one.members) > 1 for one in slices) else "instance number"
    )
    return [f"Slices to look at first ({what}): {names}."]


def slice_name(one: SliceProbability | PlaneMember, headers: Mapping[str, Dataset]) -> str:
    """Name a slice by its Instance Number, or its position where it has none."""
    name = _instance_number(one, headers) or f"at {one.position_mm:.1f} mm"
    return name if one.frame is None else f"{name} frame {one.frame}"


def slab_name(one: SliceProbability, headers: Mapping[str, Dataset]) -> str:
    """Name the slices of a slab, such as `` (61 to 65)``, lowest number first."""
    if len(one.members) < 2:
        return ""
    frames = sorted(member.frame for member in one.members if member.frame is not None)
    if frames and len({member.sop_instance_uid for member in one.members}) == 1:
        return f" ({frames[0]} to {frames[-1]})"
    numbers = [_instance_number(member, headers) for member in one.members]
    if all(number.lstrip("-").isdigit() for number in numbers):
        ordered = sorted(int(number) for number in numbers)
        return f" ({ordered[0]} to {ordered[-1]})"
    positions = [member.position_mm for member in one.members]
    return f" ({min(positions):.1f} to {max(positions):.1f} mm)"


def _instance_number(one: SliceProbability | PlaneMember, headers: Mapping[str, Dataset]) -> str:
    header = headers.get(one.sop_instance_uid)
    return "" if header is None else valid_text(header, "InstanceNumber")


def origin(request: ReportRequest) -> str:
    """Name model, software and the mode of the node."""
    software, mode = f"ich-node {__version__}", _MODES.get(request.mode, "")
    if request.model is None:
        return f"Software {software}.{mode}"
    untrained = "" if request.model.trained else " (untrained)"
    return f"Model {request.model.name} {request.model.version}{untrained}, software {software}.{mode}"


def _revision(request: ReportRequest) -> str:
    revision = request.identity.revision
    return f"Revision {revision}: replaces revision {revision - 1} of this report." if revision > 1 else ""


def second_choice(finding: TriageFinding) -> str:
    """Say what is not ideal about the series that was analysed."""
    if finding.triage is None:
        return ""
    sentences = []
    if finding.derived:
        sentences.append(
            "Analysed from a derived series (reformatted, averaged or lossy-compressed): the study has no original one."
        )
    if finding.bone_kernel:
        sentences.append("Analysed from a bone reconstruction: the study has no soft-tissue one.")
    return " ".join(sentences)


def averaged(finding: TriageFinding) -> str:
    """Say that thin slices were averaged; empty where they were not."""
    slabs = sum(len(one.members) > 1 for one in finding.slices)
    if finding.triage is None or not slabs:
        return ""
    return f"Thin slices were averaged to slabs of 5 mm for the analysis ({_count(slabs, 'slab')})."


def _slice_keys(finding: TriageFinding) -> set[SliceKey]:
    return {key for one in finding.slices for key in _keys_of(one)}


def _keys_of(one: SliceProbability) -> Iterable[SliceKey]:
    return [member.key for member in one.members] or [(one.sop_instance_uid, one.frame)]


def _missing(known: Completeness) -> list[str]:
    """Say what did not come or could not be read."""
    sentences = []
    if known.gaps:
        stretches = ", ".join(f"{gap.from_mm:.1f} to {gap.to_mm:.1f} mm" for gap in known.gaps)
        sentences.append(f"Slices are missing along the slice normal at {stretches}.")
    if known.unreadable:
        sentences.append(f"{_count(known.unreadable, 'slice')} could not be read.")
    if known.missing_by_count:
        more = _count(known.missing_by_count, "more image")
        sentences.append(f"The PACS holds {more} of this series than came.")
    return sentences


def _ends(known: Completeness) -> list[str]:
    """Say where the head seems to go on beyond the series."""
    sentences = []
    if known.short:
        sentences.append("The series covers less than the height of a head.")
    if known.cut_below:
        sentences.append("The lowest slice still shows much brain: the series seems to begin inside the head.")
    if known.cut_above:
        sentences.append("The highest slice still shows much brain: the series seems to end inside the head.")
    return sentences


def _compact_completeness(known: Completeness) -> str:
    """Name as many gaps as fit, such as ``cut above; gaps at mm: -12..3, 40..52 (+3 more)``, else their number."""
    parts = list(_compact_parts(known))
    if not known.gaps:
        return _shortened("; ".join(parts))
    prefix = "; ".join([*parts, "gaps at mm: "])
    named = [_compact_gap(gap) for gap in known.gaps]
    for count in range(len(named), 0, -1):
        rest = f" (+{len(named) - count} more)" if count < len(named) else ""
        text = prefix + ", ".join(named[:count]) + rest
        if len(text) <= _LONG_STRING:
            return text
    return _shortened("; ".join([*parts, _count(len(named), "gap")]))


def _compact_parts(known: Completeness) -> Iterator[str]:
    if known.unreadable:
        yield f"{known.unreadable} unreadable"
    if known.missing_by_count:
        yield f"{known.missing_by_count} missing"
    if known.cut_below and known.cut_above:
        yield "cut both ends"
    elif known.cut_below or known.cut_above:
        yield "cut below" if known.cut_below else "cut above"
    if known.short:
        yield "too short"


def _compact_gap(gap: Gap) -> str:
    return f"{gap.from_mm:.0f}..{gap.to_mm:.0f}"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONG_STRING else text[: _LONG_STRING - 3] + "..."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
