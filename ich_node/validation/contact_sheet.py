"""The worst cases as a sheet of small pictures: no name, only the end of the UID."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from markupsafe import Markup

from ich_node.validation.markup import paragraph, picture
from ich_node.validation.pictures import NOT_KEPT, Picture
from ich_node.validation.validating import Validation
from ich_node.validation.wording import CLASS_NAMES, uid_tail
from ich_node.validation.worst import FALSE_ALARM, WorstCase

_NO_PICTURE: Final = Picture(why_not=NOT_KEPT)


def contact_sheet(validation: Validation, pictures: Mapping[str, Picture]) -> Markup:
    """Show the worst cases side by side, each with what it is; none where the node made no mistake."""
    if not validation.worst:
        return paragraph("None: every study with hemorrhage was called positive, and none without.")
    text = (
        "Studies with hemorrhage that were not called positive, the lowest probability first; then studies without "
        "that were, the highest first. Of each the slice that speaks most for hemorrhage, in the "
        "brain window (0 to 80 HU)."
    )
    sheet = Markup("").join(
        _figure(one, pictures.get(one.case.label.study_instance_uid, _NO_PICTURE)) for one in validation.worst
    )
    return paragraph(text) + Markup('<div class="sheet">{}</div>').format(sheet)


def _figure(one: WorstCase, shown: Picture) -> Markup:
    result, label = one.case.result, one.case.label
    image = picture(shown.png, "slice in the brain window") if shown.png else _empty(shown.why_not)
    kinds = [CLASS_NAMES[name] for name, there in label.shows.items() if there and name != "any"]
    shows = ", ".join(kinds) or ("hemorrhage" if label.hemorrhage else "no hemorrhage")
    said = f"{result.triage}{'' if result.complete else ', incomplete'}"
    return Markup(
        '<figure class="{}">{}<figcaption><b>{}</b> p = {:.3f}<br>label: {}<br>node: {}<br>'
        '<span class="soft">{}{}</span></figcaption></figure>'
    ).format(
        "alarm" if one.kind == FALSE_ALARM else "missed",
        image,
        one.kind,
        result.probabilities["any"],
        shows,
        said,
        uid_tail(label.study_instance_uid),
        Markup("<br>{}").format(shown.place) if shown.place else "",
    )


def _empty(why: str) -> Markup:
    return Markup('<div class="empty">{}</div>').format(why)
