"""The parts of the report that tell of all studies: answered, not analysed, left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from ich_node.validation import charts
from ich_node.validation.figures import FEWEST, Rates
from ich_node.validation.markup import Cell, bullets, heading, paragraph, stacked, table
from ich_node.validation.predictive import at_prevalence
from ich_node.validation.validating import Validation
from ich_node.validation.wording import (
    area_in_words,
    count_in_words,
    percent,
    share_in_words,
    studies,
    value_in_words,
)


def whole(validation: Validation) -> Markup:
    """All studies together: what was answered, and how the probabilities lie."""
    figures, cases = validation.classes["any"], validation.matched.analysed
    any_ = validation.proposals["any"].in_use
    told = table(
        ("", "Sensitivity", "found", "Specificity", "cleared", "PPV", "NPV"),
        [
            _rates_row(validation, "positive", figures.positive),
            _rates_row(validation, "positive or indeterminate", figures.not_negative),
        ],
        style="main",
    )
    area = paragraph(
        Markup("Area under the ROC curve: <strong>{}</strong> (95 % interval after DeLong).").format(
            area_in_words(figures.area)
        )
    )
    drawn = Markup(
        '<div class="charts"><figure>{}<figcaption>ROC curve of any hemorrhage. Round: the thresholds in use; square: '
        "those proposed.</figcaption></figure><figure>{}<figcaption>Probabilities of studies with hemorrhage (up, {}) "
        "and without (down, {}), each drawn to its own highest bar; dashed: the thresholds in use.</figcaption>"
        "</figure></div>"
    ).format(
        charts.roc_chart(cases, validation.operating_rows),
        charts.score_chart(cases, any_.low, any_.high),
        figures.positives,
        figures.negatives,
    )
    note = paragraph(
        f"PPV and NPV at a prevalence of {percent(validation.prevalence)}. Studies with fewer slices than a whole head "
        f"are never called negative: {studies(validation.incomplete)} here.",
        "note",
    )
    return told + note + area + drawn


def not_analysed(validation: Validation) -> Markup:
    """What got no answer, and the figures where each such study counts as an error."""
    rest = validation.matched.not_analysed
    whys: dict[str, list[bool]] = {}
    for one in rest:
        whys.setdefault(one.result.why_not, []).append(one.hemorrhage)
    rows = [(why, str(len(some)), str(sum(some))) for why, some in sorted(whys.items(), key=lambda one: -len(one[1]))]
    told = (
        table(("Why", "Studies", "of them with hemorrhage"), rows) if rows else paragraph("Every study was analysed.")
    )
    compared = table(
        ("", "Sensitivity", "found", "Specificity", "cleared"),
        [
            _pair("studies that were analysed", validation.classes["any"].positive),
            _pair("all that were received", validation.pessimistic.positive),
            _pair("positive or indeterminate: analysed", validation.classes["any"].not_negative),
            _pair("positive or indeterminate: all received", validation.pessimistic.not_negative),
        ],
    )
    text = (
        "No result is not a negative result: the node says so where people look. Still, a reader got no help. In the "
        "lower table a study that was not analysed counts as missed where it shows hemorrhage, and as a false alarm "
        "where it shows none (intention to diagnose)."
    )
    return told + paragraph(text) + compared


def left_out(validation: Validation) -> Markup:
    """Every label and every result that is in no figure."""
    matched = validation.matched
    parts = []
    if matched.left_out:
        rows = [(one.study_instance_uid, "yes" if one.hemorrhage else "no", one.why) for one in matched.left_out]
        parts += [heading(f"{studies(len(matched.left_out))} with a label, in no figure"),
                  table(("Study Instance UID", "Hemorrhage", "Why"), rows, style="small")]  # fmt: skip
    if matched.not_analysed:
        rows = [(one.label.study_instance_uid, "yes" if one.hemorrhage else "no", one.result.why_not)
                for one in matched.not_analysed]  # fmt: skip
        parts += [heading(f"{studies(len(rows))} with a label that the node did not analyse"),
                  table(("Study Instance UID", "Hemorrhage", "Why"), rows, style="small")]  # fmt: skip
    if validation.labels.repeats:
        parts += [heading("Lines of the table that repeat another, counted once"), bullets(validation.labels.repeats)]
    if matched.unlabelled:
        parts += [heading(f"{studies(len(matched.unlabelled))} with a result and without a label"),
                  _uids([one.study_instance_uid for one in matched.unlabelled])]  # fmt: skip
    return Markup("").join(parts) or paragraph("Nothing: every label has its study, and every study its label.")


def _uids(uids: Sequence[str]) -> Markup:
    shown = uids[:200]
    more = f" and {len(uids) - len(shown)} more, which validation.json lists" if len(uids) > len(shown) else ""
    return paragraph(", ".join(shown) + more, "uids")


def _rates_row(validation: Validation, name: str, rates: Rates) -> Sequence[Cell]:
    at = at_prevalence(rates, validation.prevalence, None)
    return (*_pair(name, rates), stacked(value_in_words(at.ppv)), stacked(value_in_words(at.npv)))


def _pair(name: str, rates: Rates) -> Sequence[Cell]:
    return (
        name,
        stacked(share_in_words(rates.sensitivity)),
        count_in_words(rates.sensitivity),
        stacked(share_in_words(rates.specificity)),
        count_in_words(rates.specificity),
    )


def warnings_of(validation: Validation) -> Iterator[str]:
    """Say what a committee must know before anything else."""
    if validation.test_model:
        yield "TEST MODEL: the model is not trained. These figures say nothing of any use of the node."
    unknown = sum(one.why.startswith("not among") for one in validation.matched.left_out)
    if unknown:
        yield f"Not among the results: {studies(unknown)} of the table of labels (section 10)."
    others = len(validation.matched.left_out) - unknown
    if others:
        yield f"Left out: {studies(others)} that cannot be counted (section 10)."
    if validation.other_thresholds:
        yield (
            f"Answered with other thresholds than the last one: {studies(validation.other_thresholds)}. What was "
            "answered counts as it was."
        )
    any_ = validation.classes["any"]
    if min(any_.positives, any_.negatives) < FEWEST:
        yield f"Too few studies: {any_.positives} with hemorrhage and {any_.negatives} without can carry no figure."
