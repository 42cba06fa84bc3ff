"""The pages as HTML. They are whole in themselves: no script, and nothing is fetched from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

from ich_node.alert import RESEARCH_USE, findings_of, headline_of
from ich_node.job_queue.alert_answers import AskedAlert
from ich_node.records import AlertKind, AlertState


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


class Pages:
    """The pages of one node."""

    def __init__(self, ae_title: str) -> None:
        self._environment = Environment(loader=FunctionLoader(_packaged), undefined=StrictUndefined, autoescape=True)
        self._environment.globals.update(node=ae_title, style=_STYLE, notice=RESEARCH_USE)

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

    def _message(self, title: str, text: str) -> str:
        return self._page("message.html.j2", title=title, text=text)

    def _page(self, template: str, **names: Any) -> str:
        return self._environment.get_template(template).render(names)


def _time(seconds: float | None) -> str:
    """Say a time as the clock on the node's wall does, with its zone; nothing where there is none."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"
