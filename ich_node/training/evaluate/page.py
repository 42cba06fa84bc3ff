"""An evaluation as one page to read and print: pictures and styles are in it, nothing is fetched from anywhere."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from ich_node.training.evaluate import charts, tables
from ich_node.training.evaluate.cases import Cases
from ich_node.training.evaluate.contact_sheet import Picture, draw_contact_sheet
from ich_node.training.evaluate.evaluation import Evaluation, WorstCase
from ich_node.training.evaluate.tables import Table
from ich_node.training.prepared import SliceRow

_WIDE: Final = 6
"""Columns from which on cells are kept on one line, in smaller type."""
_CSS: Final = """
:root { --ink: #1c2429; --soft: #5c6870; --line: #d9dfe3; --blue: #1f5f8b; --red: #b3402e; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; color: var(--ink); background: #fff;
  margin: 0 auto; max-width: 1080px; padding: 32px 28px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 40px 0 8px; padding-top: 14px; border-top: 2px solid var(--blue); }
h3 { font-size: 15px; margin: 22px 0 6px; }
p.lead { color: var(--soft); margin: 0 0 18px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); border-bottom-color: var(--soft); }
td:first-child { font-weight: 600; }
td { overflow-wrap: break-word; }
table.wide { font-size: 12px; } table.wide td:not(:first-child) { white-space: nowrap; }
.main td { font-size: 15px; padding: 7px 10px 7px 0; }
.notes { color: var(--soft); font-size: 12.5px; margin: 6px 0 0; padding-left: 18px; }
.box { border-left: 4px solid var(--red); background: #fbf1ee; padding: 10px 16px; margin: 14px 0; }
.box p { margin: 4px 0; }
.loud { font-size: 18px; font-weight: 700; color: var(--red); }
img { width: 100%; height: auto; }
figure { margin: 10px 0; break-inside: avoid; }
figcaption { color: var(--soft); font-size: 12.5px; }
nav { font-size: 13px; margin: 10px 0 0; } nav a { color: var(--blue); margin-right: 14px; }
@media print { body { max-width: none; padding: 0; font-size: 11px; } nav { display: none; }
  table, figure { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


def render_page(
    evaluation: Evaluation,
    slices: Cases,
    studies: Cases | None,
    rows: Sequence[SliceRow],
    picture: Picture | None = None,
    title: str = "Intracranial hemorrhage on head CT: evaluation",
) -> str:
    """Render the page as HTML.

    Args:
        evaluation: To tell.
        slices: That it was made from, for the curves.
        studies: Where there are any.
        rows: Of the slices, for the worst cases.
        picture: Gives the image of a row; without it the worst cases are a list.
        title: Of the page.
    """
    sections = [
        ("summary", "Summary", _summary(evaluation)),
        ("classes", "Per class", _classes(evaluation, studies or slices)),
        (
            "sources",
            "Per source and size",
            _tables(
                [tables.source_table(evaluation), tables.lesion_table(evaluation), tables.disturbance_table(evaluation)]
            ),
        ),
        ("calibration", "Calibration", _calibration(evaluation)),
        ("operating-points", "Operating points", _operating_points(evaluation)),
        ("prevalence", "Prevalence", _tables([tables.prevalence_table(evaluation)])),
        ("worst", "Worst cases", _worst_cases(evaluation, rows, picture)),
        ("conditions", "Conditions", _table(tables.conditions_table(evaluation), titled=False)),
    ]
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{escape(name)}</h2>{content}</section>' for key, name, content in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_CSS}</style></head><body><h1>{escape(title)}</h1>"
        f'<p class="lead">{escape(_lead(evaluation))}</p>{_warnings(evaluation)}<nav>{links}</nav>'
        f"{body}</body></html>\n"
    )


def _lead(evaluation: Evaluation) -> str:
    one = evaluation.conditions
    studies = f", {one.studies} studies" if one.studies else ", no whole studies"
    known = "" if one.patients_known else ", as far as patients are known"
    return (
        f"{one.slices} slices of {one.patients} patients{studies}; each scored by a network that had not seen its "
        f"patient{known}. {one.made_by}. Research software, not a medical device."
    )


def _warnings(evaluation: Evaluation) -> str:
    texts = [f"<p>{escape(text)}</p>" for text in evaluation.warnings]
    if evaluation.conditions.phantoms_only:
        texts.insert(0, f'<p class="loud">{escape(tables.PHANTOM_NOTICE)}</p>')
    return f'<div class="box">{"".join(texts)}</div>' if texts else ""


def _summary(evaluation: Evaluation) -> str:
    return _table(tables.summary_table(evaluation), style="main", titled=False)


def _classes(evaluation: Evaluation, charted: Cases) -> str:
    level = charted.level
    studies = (
        _tables(tables.level_tables(evaluation.studies, "Studies"))
        if evaluation.studies
        else "<h3>Studies</h3><p>The data hold no whole studies (series of slices whose places are known), so nothing "
        "can be said of studies.</p>"
    )
    curves = _image(charts.draw_roc_curves(charted), f"ROC curves, per {level}.") + _image(
        charts.draw_precision_recall_curves(charted),
        f"Precision and recall, per {level}; dotted: the share of positives.",
    )
    return studies + _tables(tables.level_tables(evaluation.slices, "Slices")) + curves


def _calibration(evaluation: Evaluation) -> str:
    caption = "Reliability of slice probabilities before and after temperature scaling; dotted: as it should be."
    return _table(tables.calibration_table(evaluation), titled=False) + _image(
        charts.draw_reliability(evaluation.calibration), caption
    )


def _operating_points(evaluation: Evaluation) -> str:
    caption = "The three answers for cases with and without each class; shading: share of the row."
    return _table(tables.operating_point_table(evaluation), titled=False) + _image(
        charts.draw_confusion(evaluation.confusion), caption
    )


def _worst_cases(evaluation: Evaluation, rows: Sequence[SliceRow], picture: Picture | None) -> str:
    parts = (
        ("Missed: slices with hemorrhage and the lowest probability", evaluation.missed),
        ("False alarms: slices without hemorrhage and the highest probability", evaluation.false_alarms),
    )
    return "".join(
        f"<h3>{escape(title)}</h3>{_sheet(cases, rows, picture) if cases else '<p>None.</p>'}" for title, cases in parts
    )


def _sheet(cases: Sequence[WorstCase], rows: Sequence[SliceRow], picture: Picture | None) -> str:
    if picture is not None:
        return _image(draw_contact_sheet(cases, rows, picture), "Brain window.")
    listed = tuple((one.image_id, one.source, f"{one.probability:.3f}", ", ".join(one.labels)) for one in cases)
    return _table(Table("", ("Image", "Source", "Probability", "Shows"), listed), titled=False)


def _tables(some: Iterable[Table]) -> str:
    return "".join(_table(one) for one in some)


def _table(table: Table, style: str = "", *, titled: bool = True) -> str:
    heading = f"<h3>{escape(table.title)}</h3>" if titled else ""
    header = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    head = f"<thead><tr>{header}</tr></thead>" if any(table.header) else ""
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    style = style or ("wide" if len(table.header) >= _WIDE else "")
    grid = f'<table class="{style}">{head}<tbody>{rows}</tbody></table>' if table.rows else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return heading + grid + (f'<ul class="notes">{notes}</ul>' if notes else "")


def _image(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
