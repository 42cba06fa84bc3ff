"""What somebody does by a form of a page: who, from where, with which reason, and what is said of it afterwards.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from ich_node.accounts import Role
from ich_node.web.forms import one_line, read_form
from ich_node.web.gate import FORM_FIELD, Visitor, check_form
from ich_node.web.site import Site

_LONGEST_REASON: Final = 200
_LONGEST_FIELD: Final = 64
_MOST_DIGITS: Final = 12
_SAID: Final = {
    "requeued": ("{count} series queued again.", "1 series queued again."),
    "released": ("{count} series released from quarantine; they are analysed now.",
                 "1 series released from quarantine; it is analysed now."),
    "rejected": ("{count} series rejected; they get no result.", "1 series rejected; it gets no result."),
    "resent": ("{count} deliveries will be sent again.", "1 delivery will be sent again."),
    "alerted": ("{count} alerts will be sent again.", "1 alert will be sent again."),
    "acknowledged": ("{count} alerts acknowledged.", "1 alert acknowledged."),
    "held": ("The study is under legal hold: nothing of it is deleted.",) * 2,
    "lifted": ("The legal hold is lifted: the study's days count again.",) * 2,
    "deleted": ("{count} files deleted. What was deleted, by whom and why, stays on record.",
                "1 file deleted. What was deleted, by whom and why, stays on record."),
    "model-use": ("The model is being loaded; the one before answers until it is ready.",) * 2,
    "model-silent": ("The model is being loaded; it scores in silence what the other one has answered.",) * 2,
    "no-silent-model": ("No model scores in silence any more. What was compared stays.",) * 2,
    "echoed": ("The destination was asked by C-ECHO; its answer stands beside its name.",) * 2,
    "tested": ("A self-test is asked for. How it went stands here in a minute or two.",) * 2,
    "added": ("The account is made.",) * 2,
    "role": ("The account has another role, from its next request on.",) * 2,
    "disabled": ("The account lets nobody in any more.",) * 2,
    "enabled": ("The account lets its owner in again.",) * 2,
    "reference": ("The station and kernel have a new reference; what was found of them before is settled.",) * 2,
    "out": ("Logged out at {count} browsers.", "Logged out at 1 browser."),
}  # fmt: skip


class Refused(Exception):
    """What was asked for is not done; the text says why, and what would help.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, title: str, text: str, visitor: Visitor) -> None:
        self.status, self.title, self.text, self.visitor = status, title, text, visitor
        super().__init__(title)


@dataclass(frozen=True, slots=True)
class Deed:
    """A form of ours, sent by somebody who may."""

    visitor: Visitor
    address: str
    form: dict[str, str]

    def field(self, name: str, longest: int = _LONGEST_FIELD) -> str:
        """Give a field on one line; empty where it was not sent."""
        return one_line(self.form.get(name, ""), longest)

    def number(self, name: str) -> int | None:
        """Give a field that is a number; None where it is none."""
        return number_of(self.field(name))

    def reason(self) -> str:
        """Give the reason.

        Raises:
            Refused: there is none.
        """
        reason = self.field("reason", _LONGEST_REASON)
        if not reason:
            raise self.refused(422, "A reason is needed", "Nothing was done. Go back and say why; it is recorded.")
        return reason

    def refused(self, status: int, title: str, text: str) -> Refused:
        """Make what says that nothing was done."""
        return Refused(status, title, text, self.visitor)


def acting(site: Site, role: Role) -> Callable[..., Deed]:
    """Make a dependency: a form of this session, sent by somebody who may do what a role may.

    It raises `NotLoggedIn`, and HTTPException 403 for another's form and for one who may not.
    """
    needed = site.gate.needs(role)

    def deed(
        request: Request,
        visitor: Annotated[Visitor, Depends(needed)],
        form: Annotated[dict[str, str], Depends(read_form)],
    ) -> Deed:
        check_form(request, visitor, form.get(FORM_FIELD, ""))
        return Deed(visitor, site.gate.address(request), form)

    return deed


def done(page: str, said: str, count: int = 1, **more: str) -> RedirectResponse:
    """Lead to a page that says what was done: loading it again does nothing again."""
    return RedirectResponse(f"{page}?{urlencode({**more, 'done': said, 'count': count})}", 303)


def what_was_done(done: str = "", count: str = "1") -> str:
    """Say in words what an address says was done; nothing where it says nothing that we know. A dependency."""
    many, one = _SAID.get(done, ("", ""))
    number = number_of(count)
    return one if number == 1 else many.format(count=0 if number is None else number)


def number_of(text: str) -> int | None:
    """Read a number that an address or a form holds."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def add_refusals(app: FastAPI, site: Site) -> None:
    """Let whatever is refused be answered with a page that says why."""

    def say(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused), "it is registered for these"
        page = site.pages.of_template(
            "refused.html.j2", error.visitor, place="node", title=error.title, text=error.text
        )  # fmt: skip
        return HTMLResponse(page, error.status)

    app.add_exception_handler(Refused, say)
