"""The parts of the report that tell what thresholds do, and which are proposed."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ich_node.intervals.exact import positives_needed
from ich_node.records import ClassThresholds
from ich_node.validation.markup import Cell, paragraph, stacked, table
from ich_node.validation.operating_points import OperatingRow
from ich_node.validation.proposal import ClassProposal
from ich_node.validation.validating import Validation
from ich_node.validation.wording import (
    CLASS_NAMES,
    NONE,
    number_in_words,
    percent,
    share_in_words,
    threshold_in_words,
    value_in_words,
)


def operating_points(validation: Validation) -> Markup:
    """What thresholds of any hemorrhage would do at the site's prevalence."""
    per_shift = validation.studies_per_shift
    hours = validation.settings.shift_hours
    alerts = f"Alerts in {hours:g} h"
    header = ("Positive from", "Threshold", "Sensitivity", "Specificity", "PPV", "NPV", alerts, "of them false")
    rows = [_operating_row(one) for one in validation.operating_rows]
    rate = (
        f"{per_shift:.1f} head CT in a shift of {hours:g} h"
        if per_shift is not None
        else "it is not known how many head CT come in a shift (--studies-per-shift)"
    )
    given = "as given" if validation.settings.prevalence is not None else "of the labelled studies"
    note = (
        f"At a prevalence of {percent(validation.prevalence)} ({given}) and {rate}. If the labelled studies were "
        "chosen because they show hemorrhage, that prevalence is not the site's: validate with --prevalence. The rows "
        "“finds …” were chosen on these very studies, and will find somewhat less on others."
    )
    return table(header, rows, style="wide") + paragraph(note, "note")


def proposal(validation: Validation) -> Markup:
    """Thresholds of each class, chosen on the site's studies where these suffice."""
    target = validation.settings.target_sensitivity
    rows = [_proposed_row(name, one) for name, one in validation.proposals.items()]
    header = (
        "Class", stacked("In use (low / high)"), stacked("Proposed (low / high)"), "", "Sensitivity at low",
        "Its lower bound", "Specificity at low", "at high",
    )  # fmt: skip
    rule = (
        f"Below low is negative, from high on positive, between them indeterminate. Low is the highest threshold at "
        f"which the lower end of the exact 95 % interval of sensitivity reaches {percent(target)}, for which a class "
        f"needs at least {positives_needed(target)} studies that show it; high is the lowest from low on with a "
        f"specificity of {percent(validation.settings.target_specificity)}. A class with fewer keeps its thresholds: "
        "new ones would follow the few studies that there are."
    )
    optimistic = (
        "Thresholds that were chosen here are measured here on the same studies, so the figures beside them are "
        "somewhat too good. Nothing changes until somebody signs off thresholds.proposed.json with "
        "ich-node thresholds sign-off and restarts the worker."
    )
    return paragraph(rule) + table(header, rows, style="wide") + paragraph(optimistic, "note")


def _operating_row(row: OperatingRow) -> Sequence[Cell]:
    return (
        row.name,
        threshold_in_words(row.threshold),
        stacked(share_in_words(row.rates.sensitivity)),
        stacked(share_in_words(row.rates.specificity)),
        stacked(value_in_words(row.at.ppv)),
        stacked(value_in_words(row.at.npv)),
        number_in_words(row.at.alerts_per_shift),
        number_in_words(row.at.false_alerts_per_shift),
    )


def _proposed_row(name: str, one: ClassProposal) -> Sequence[Cell]:
    point = one.point
    lower = NONE if point.sensitivity_low is None else percent(point.sensitivity_low)
    return (
        CLASS_NAMES[name],
        _pair(one.in_use),
        _pair(one.proposed),
        stacked(_source(one)),
        NONE if point.sensitivity is None else percent(point.sensitivity),
        stacked(f"{lower} ({'met' if point.meets_bound else 'NOT met'})"),
        NONE if point.specificity is None else percent(point.specificity),
        NONE if point.specificity_at_high is None else percent(point.specificity_at_high),
    )


def _source(one: ClassProposal) -> str:
    if one.chosen_here:
        return "chosen here"
    if one.point.positives < one.needed:
        return f"as in use ({one.point.positives} of {one.needed} needed)"
    return "as in use (too few without)"


def _pair(pair: ClassThresholds) -> str:
    return f"{threshold_in_words(pair.low)} / {threshold_in_words(pair.high)}"
