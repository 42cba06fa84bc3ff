"""The parts of the report that tell figures of some studies: of a subtype, a station, an age."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ich_node.validation import charts
from ich_node.validation.figures import FEWEST, Figures
from ich_node.validation.groups import Grouping
from ich_node.validation.labels import SUBTYPES
from ich_node.validation.markup import Cell, paragraph, stacked, table
from ich_node.validation.validating import Validation
from ich_node.validation.wording import (
    CLASS_NAMES,
    area_in_words,
    share_in_words,
)


def by_subtype(validation: Validation) -> Markup:
    """Each subtype: how it is named, and whether studies that show it are found at all."""
    rows = [_class_row(validation.classes[name], validation.found_as_any[name]) for name in SUBTYPES]
    unknown = [f"{CLASS_NAMES[name]}: {validation.classes[name].unknown}" for name in SUBTYPES
               if validation.classes[name].unknown]  # fmt: skip
    note = f"Studies whose label says nothing of a subtype are not in its figures ({'; '.join(unknown)})."
    header = ("Subtype", "With", "Without", "Found as any hemorrhage", "", "Named", "Not named where absent", "AUC")
    return table(header, rows, style="wide") + (paragraph(note, "note") if unknown else Markup(""))


def by_group(validation: Validation) -> Markup:
    """The figures of each station, thickness, age and sex."""
    parts = Markup("").join(_grouping(one) for one in validation.groupings)
    few = paragraph(
        f"Of fewer than {FEWEST} studies only the count is told. Intervals of groups overlap easily, and of many "
        "groups one is the worst by chance: a difference here is a reason to look, not a proof.",
        "note",
    )
    return parts + few


def _class_row(named: Figures, found: Figures) -> Sequence[Cell]:
    any_ = found.positive.sensitivity
    return (
        CLASS_NAMES[named.name],
        str(named.positives),
        str(named.negatives),
        stacked(share_in_words(any_)),
        charts.interval_bar(any_),
        stacked(share_in_words(named.positive.sensitivity)),
        stacked(share_in_words(named.positive.specificity)),
        stacked(area_in_words(named.area)),
    )


def _grouping(grouping: Grouping) -> Markup:
    header = (grouping.name, "With", "Without", "Not analysed", "Sensitivity", "", "Specificity", "", "AUC")
    rows = [
        (
            one.name,
            str(one.figures.positives),
            str(one.figures.negatives),
            str(one.not_analysed),
            stacked(share_in_words(one.figures.positive.sensitivity)),
            charts.interval_bar(one.figures.positive.sensitivity),
            stacked(share_in_words(one.figures.positive.specificity)),
            charts.interval_bar(one.figures.positive.specificity),
            stacked(area_in_words(one.figures.area)),
        )
        for one in grouping.groups
    ]
    return table(header, rows, style="wide group")
