"""The pages as HTML. Nothing is fetched from elsewhere; the page of an alert is whole in itself, without a script."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from ich_node.alert import RESEARCH_USE, findings_of, headline_of
from ich_node.job_queue.alert_answers import AskedAlert
from ich_node.queries import Order, Shown, Waiting, WorklistQuery
from ich_node.records import AlertKind, AlertState
from ich_node.web.assets import asset_url
from ich_node.web.concordance_page import ConcordancePage
from ich_node.web.gate import Visitor
from ich_node.web.lines import Line
from ich_node.web.study_page import StudyPage


def _packaged(name: str) -> str:
    return resources.files(__name__.rpartition(".")[0]).joinpath("templates", name).read_text("utf-8")


_STYLE: Final = _packaged("style.css")
STYLE_HASH: Final = f"sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}"
"""What a Content-Security-Policy calls the one style that the pages have."""

_KINDS: Final = {
    AlertKind.PRELIMINARY: "Preliminary, before the series was complete",
    AlertKind.CORRECTION: "Correction of what was told before",
    AlertKind.WITHDRAWN: "Withdrawal of what was told before",
}
_STATES: Final = {
    AlertState.WAITING: "Not sent yet",
    AlertState.SUPERSEDED: "No longer open",
    AlertState.HELD: "Held: shadow mode",
}
"""Of an alert that nobody has acknowledged and nobody can."""
_FILTERS: Final = {
    Shown.ALL: "All",
    Shown.POSITIVE: "Positive",
    Shown.INDETERMINATE: "Indeterminate",
    Shown.NEGATIVE: "Negative",
    Shown.UNACKNOWLEDGED: "Not acknowledged",
    Shown.IN_PROGRESS: "In progress",
    Shown.NOT_ANALYSED: "Not analysed",
    Shown.NEEDS_A_PERSON: "Needs a person",
}
"""What the choices of the worklist are called."""


class Pages:
    """The pages of one node."""

    def __init__(self, ae_title: str) -> None:
        self._environment = Environment(loader=FunctionLoader(_packaged), undefined=StrictUndefined, autoescape=True)
        self._environment.globals.update(node=ae_title, style=_STYLE, notice=RESEARCH_USE, place="", asset=asset_url)
        self._environment.filters.update(
            moment=_moment,
            percent=_percent,
            date=_date,
            class_name=_class_name,
            size=_size,
            share=_share,
            number=_number,
        )

    def alert(self, asked: AskedAlert, *, just_done: bool = False) -> str:
        """Say what an alert says, without any patient data, and how it stands; ask for an answer where it is open.

        Args:
            just_done: whoever looks has acknowledged it now.
        """
        return self._page(
            "alert.html.j2",
            identifier=asked.alert.identifier,
            outcome=asked.alert.outcome,
            headline=headline_of(asked.alert),
            kind=_KINDS.get(asked.alert.kind, ""),
            findings=findings_of(asked.alert),
            told_at=_time(asked.sent_at or asked.alert.created_at),
            changed=asked.changed,
            answerable=asked.answerable,
            acknowledged_by=asked.acknowledged_by,
            acknowledged_at=_time(asked.acknowledged_at),
            state=_STATES.get(asked.state, "Nobody has acknowledged it yet"),
            just_done=just_done,
        )

    def login(self, *, failed: bool = False, locked_s: float = 0.0) -> str:
        """Ask for name and password.

        Args:
            failed: they were wrong, or the account may not be used.
            locked_s: so long no password is looked at.
        """
        return self._page("login.html.j2", failed=failed, locked_min=math.ceil(locked_s / 60))

    def worklist(self, visitor: Visitor, asked: WorklistQuery, table: str, waiting: Waiting) -> str:
        """Show the worklist."""
        return self._page(
            "worklist.html.j2", place="worklist", visitor=visitor, asked=asked, table=table, waiting=waiting,
            orders=list(Order), filters=_FILTERS,
        )  # fmt: skip

    def worklist_table(self, lines: Sequence[Line], asked: WorklistQuery, next_after: str, visitor: Visitor) -> str:
        """Show the table of the worklist alone."""
        following = urlencode({"order": asked.order, "show": asked.shown, "search": asked.search, "after": next_after})
        return self._page(
            "worklist_table.html.j2", lines=lines, visitor=visitor, following=f"/?{following}" if next_after else "",
        )  # fmt: skip

    def study(self, visitor: Visitor, line: Line, study: StudyPage, slices: dict[str, Any]) -> str:
        """Show one study.

        Args:
            slices: which slices it has, for the viewer; who may see none gets none.
        """
        return self._page("study.html.j2", visitor=visitor, line=line, study=study, slices=slices)

    def study_facts(self, visitor: Visitor, line: Line, study: StudyPage) -> str:
        """Show what is known of a study alone, without its images."""
        return self._page("study_facts.html.j2", visitor=visitor, line=line, study=study)

    def concordance(self, visitor: Visitor, page: ConcordancePage) -> str:
        """Show how far readers and node agree."""
        return self._page("concordance.html.j2", place="concordance", visitor=visitor, page=page)

    def not_allowed(self) -> str:
        """Say that the role of who asks does not do this."""
        return self._message(
            "This is not for your role",
            "Your account may not see or do this. If it should, ask whoever looks after the node.",
        )

    def nothing_here(self) -> str:
        """Say the same for a link with a fault, one of another node, and one whose alert is gone."""
        return self._message(
            "There is nothing here",
            "The link is not whole, or it is not one of this node. Open it again from the message that you got, "
            "or look the study up in the PACS.",
        )

    def try_again(self) -> str:
        """Say that nothing was noted."""
        return self._message(
            "Please try again",
            "The node is busy and could not do this now. Nothing was acknowledged. Go back and try again in a few "
            "seconds; act on the alert meanwhile as you would without this page.",
        )

    def not_understood(self) -> str:
        """Say that a request was none of a browser with our form."""
        return self._message("This could not be understood", "Nothing was acknowledged. Open the link again.")

    def at_fault(self) -> str:
        """Say that the node did what nobody foresaw."""
        return self._message("The node has a fault", "Its log says more. Nothing may have been noted: look again.")

    def of_template(self, template: str, visitor: Visitor, **names: Any) -> str:
        """Show a page of some template to somebody who is logged in."""
        return self._page(template, visitor=visitor, **names)

    def _message(self, title: str, text: str) -> str:
        return self._page("message.html.j2", title=title, text=text)

    def _page(self, template: str, **names: Any) -> str:
        return self._environment.get_template(template).render(names)


def _time(seconds: float | None) -> str:
    """Say a time as the clock on the node's wall does, with its zone; nothing where there is none."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _moment(seconds: float) -> str:
    """Write a time for machines (ISO 8601); a script of the page writes it as the browser's language does."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _number(value: float, digits: int = 0) -> Markup:
    """Write a number for machines; a script of the page writes it as the browser's language does."""
    text = f"{value:.{digits}f}"
    return Markup('<data data-number="{}" value="{}">{}</data>').format(digits, text, text)


def _size(size_bytes: int) -> Markup:
    """Write how many bytes."""
    mib = size_bytes / 1024 / 1024
    value, digits, unit = (mib / 1024, 1, "GiB") if mib >= 1024 else (mib, 0 if mib >= 10 else 1, "MiB")
    return Markup("{} {}").format(_number(value, digits), unit)


def _share(probability: float) -> Markup:
    """Write a probability in percent, as the browser's language does; see `_percent`."""
    return Markup("{} %").format(_number(float(_percent(probability)), 1))


def _percent(probability: float) -> str:
    """Write a probability; it is never rounded to certainty."""
    return f"{min(max(100 * probability, 0.1), 99.9):.1f}"


def _date(text: str) -> str:
    """Write a date of DICOM for machines (YYYYMMDD)."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if text else ""


def _class_name(name: str) -> str:
    """Write the name of a class of hemorrhage."""
    return name.replace("_", " ")
