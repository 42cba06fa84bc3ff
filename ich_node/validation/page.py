"""A validation as one page to read, print and sign: pictures and styles are in it, nothing is fetched, nothing runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

from ich_node import __version__
from ich_node.validation import group_sections, sections, threshold_sections
from ich_node.validation.contact_sheet import contact_sheet
from ich_node.validation.markup import bullets, facts, paragraph, section
from ich_node.validation.page_style import CSS
from ich_node.validation.pictures import Picture
from ich_node.validation.validating import Validation
from ich_node.validation.wording import (
    CLASS_NAMES,
    area_in_words,
    count_in_words,
    day,
    number_in_words,
    percent,
    share_in_words,
    studies,
    threshold_in_words,
)

_TITLE: Final = "Intracranial hemorrhage on head CT: validation at this site"


def render_page(validation: Validation, pictures: Mapping[str, Picture], source: str, at: float) -> str:
    """Render the page as HTML.

    Args:
        validation: To tell.
        pictures: Of the worst cases, by Study Instance UID.
        source: Where the results come from, in words.
        at: When it was made, in seconds since 1970.
    """
    parts = (
        ("What was validated", _subject(validation, source, at)),
        ("All studies", sections.whole(validation)),
        ("What was not analysed", sections.not_analysed(validation)),
        ("By subtype", group_sections.by_subtype(validation)),
        ("By station, slice thickness, age and sex", group_sections.by_group(validation)),
        ("Operating points", threshold_sections.operating_points(validation)),
        ("Proposed thresholds", threshold_sections.proposal(validation)),
        ("Worst cases", contact_sheet(validation, pictures)),
        ("Method and limits", _limits(validation)),
        ("What is in no figure, and why", sections.left_out(validation)),
        ("Sign-off", _sign_off(validation)),
    )
    body = Markup("").join(section(number, *one) for number, one in enumerate(parts, 1))
    page = Markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>{}</title><style>{}</style></head>'
        "<body><header><h1>{}</h1>{}</header>{}{}{}</body></html>\n"
    )
    lead = paragraph(f"{_lead(validation)} Research software, not a medical device.", "lead")
    return str(page.format(_TITLE, CSS, _TITLE, lead, _warnings(validation), _tiles(validation), body))


def _lead(validation: Validation) -> str:
    model = validation.matched.model
    name = "" if model is None else f"{model[0]} {model[1]}, "
    return f"{name}{studies(len(validation.matched.analysed))} with labels, each counted once."


def _warnings(validation: Validation) -> Markup:
    found = Markup("").join(paragraph(one) for one in sections.warnings_of(validation))
    return Markup('<div class="box">{}</div>').format(found) if found else Markup("")


def _tiles(validation: Validation) -> Markup:
    any_ = validation.classes["any"]
    in_use = next(one for one in validation.operating_rows if one.name == "in use: positive")
    tiles = (
        (
            "Sensitivity",
            share_in_words(any_.positive.sensitivity),
            f"{count_in_words(any_.positive.sensitivity)} found",
        ),
        (
            "Specificity",
            share_in_words(any_.positive.specificity),
            f"{count_in_words(any_.positive.specificity)} not called positive",
        ),
        ("Area under the curve", area_in_words(any_.area), "of any hemorrhage"),
        (
            "Alerts in a shift",
            number_in_words(in_use.at.alerts_per_shift),
            f"{number_in_words(in_use.at.false_alerts_per_shift)} of them false",
        ),
        (
            "Not analysed",
            str(len(validation.matched.not_analysed)),
            f"of {studies(len(validation.matched.analysed) + len(validation.matched.not_analysed))} received",
        ),
    )
    return Markup('<div class="tiles">{}</div>').format(
        Markup("").join(_tile(name, figure, below) for name, figure, below in tiles)
    )


def _tile(name: str, figure: str, below: str) -> Markup:
    """Set the figure large, and what stands behind it in brackets small."""
    value, _, rest = figure.partition(" (")
    interval = Markup("<small>({}</small>").format(rest) if rest else Markup("")
    return Markup("<div><span>{}</span><b>{}</b>{}<em>{}</em></div>").format(name, value, interval, below)


def _subject(validation: Validation, source: str, at: float) -> Markup:
    model = validation.matched.model or ("not known", "", "")
    any_ = validation.classes["any"]
    received = validation.received
    period = "not known" if received is None else f"{day(received[0])} to {day(received[1])}"
    matched, labels, in_use = validation.matched, validation.labels, validation.thresholds_in_use["any"]
    return facts(
        (
            ("Model", Markup("{} {}<br><code>SHA-256 {}</code>").format(*model)),
            ("Node", f"ich-node {__version__}"),
            ("Results", source),
            (
                "Labels",
                Markup("{}<br><code>SHA-256 {}</code>").format(validation.labels.name, validation.labels.sha256),
            ),
            ("Studies received", period),
            (
                "Studies",
                f"{len(labels.labels)} with a label: {len(matched.analysed)} analysed, "
                f"{len(matched.not_analysed)} received and not analysed, {len(matched.left_out)} left out",
            ),
            (
                "Hemorrhage",
                f"{any_.positives} of the {len(matched.analysed)} analysed "
                f"({percent(any_.positives / len(matched.analysed))})",
            ),
            (
                "Thresholds in use",
                f"of any hemorrhage: negative below {threshold_in_words(in_use.low)}, positive from "
                f"{threshold_in_words(in_use.high)}, between them indeterminate",
            ),
            ("Made", f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"),
        )
    )


def _limits(validation: Validation) -> Markup:
    return bullets(
        (
            "A study is the unit. The answer is the node's own, as it stood when the report was made; of several "
            "series the one counts that the study's answer rests on.",
            "Intervals are of 95 %: of shares exact (Clopper and Pearson 1934), of areas under the curve after DeLong "
            "(1988) on the logit scale, of predictive values after Mercaldo (2007), as if the prevalence were known.",
            "Studies of the same patient count as independent; where there are many, intervals are too narrow.",
            "Labels are taken as the truth. What a label gets wrong is counted as an error of the node, or hides one.",
            "The figures hold for studies like these: the same scanners, protocols and patients, and the same way in "
            "which the studies were chosen. If they were picked by hand, prevalence and predictive values are not the "
            "site's.",
            f"Thresholds are proposed for a sensitivity of {percent(validation.settings.target_sensitivity)} and a "
            f"specificity of {percent(validation.settings.target_specificity)}; which targets are right is for the "
            "committee to say.",
            "After another model, scanner or protocol, validate again. ich-node drift says when images change.",
        )
    )


def _sign_off(validation: Validation) -> Markup:
    chosen = [CLASS_NAMES[name] for name, one in validation.proposals.items() if one.chosen_here]
    text = (
        f"The proposal changes the thresholds of: {', '.join(chosen)}."
        if chosen
        else "The proposal changes no threshold: no class has studies enough."
    )
    lines = Markup("").join(
        Markup("<div><span>{}</span></div>").format(one)
        for one in ("Decision", "Thresholds", "Name and function", "Date and signature")
    )
    return paragraph(text) + Markup('<div class="sign">{}</div>').format(lines)
