"""The application: which address shows which page, and what every answer says to the browser.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from ich_node.alert_links import AlertLinks
from ich_node.database import Database
from ich_node.errors import TransientError
from ich_node.job_queue.alert_answers import AskedAlert, acknowledge, find_alert
from ich_node.log import EventLog
from ich_node.web.audit import PageAudit
from ich_node.web.pages import STYLE_HASH, Pages

_LONGEST_FORM: Final = 4096
"""Bytes."""
_LONGEST_NAME: Final = 64
_NAMELESS: Final = "somebody with the link"
_HEADERS: Final = {
    # The link itself is the right to answer: it goes into no cache, no Referer header and no other page's frame.
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": f"default-src 'none'; style-src '{STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}

log = EventLog("web")


def make_app(ae_title: str, database: Database, links: AlertLinks, auditing: PageAudit) -> FastAPI:
    """Make the application.

    Args:
        ae_title: what the pages call the node.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pages = Pages(ae_title)

    def asked_alert(request: Request, identifier: str, token: str = "") -> AskedAlert:
        """Give the alert that a link is for. All that is no true link is answered alike."""
        asked = find_alert(database, identifier) if links.fits(identifier, token) else None
        if asked is None:
            auditing.refused(request)
            raise HTTPException(404)
        return asked

    @app.api_route("/alerts/{identifier}", methods=["GET", "HEAD"])
    def show(request: Request, asked: Annotated[AskedAlert, Depends(asked_alert)]) -> HTMLResponse:
        """Say what the alert says. Changes nothing: scanners of mail and previews of chats follow links."""
        auditing.viewed(request, asked)
        return HTMLResponse(pages.alert(asked))

    @app.post("/alerts/{identifier}")
    def answer(
        request: Request,
        asked: Annotated[AskedAlert, Depends(asked_alert)],
        name: Annotated[str, Depends(_read_name)],
    ) -> HTMLResponse:
        """Acknowledge the alert, unless somebody has, and show how it stands now."""
        identifier = asked.alert.identifier
        done = bool(asked.answerable and acknowledge(database, identifier, name or _NAMELESS))
        if done:
            auditing.acknowledged(request, asked, name or _NAMELESS)
            log.info("alert acknowledged", alert=identifier, study=asked.alert.study_id, how="link", by=name)
        return HTMLResponse(pages.alert(find_alert(database, identifier) or asked, just_done=done))

    app.middleware("http")(_add_headers)
    app.add_exception_handler(TransientError, _say_try_again(pages))
    app.add_exception_handler(AnyHTTPException, _say_why_not(pages))
    return app


async def _read_name(request: Request) -> str:
    """Read the field of the form: at most 64 characters that can be seen, or nothing."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_FORM:
            raise HTTPException(413)
    try:
        names = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10).get("name", [""])
    except ValueError:
        raise HTTPException(400) from None
    words = "".join(one if one.isprintable() else " " for one in names[0]).split()
    return " ".join(words)[:_LONGEST_NAME]


async def _add_headers(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await go_on(request)
    response.headers.update(_HEADERS)
    return response


def _say_try_again(pages: Pages) -> Callable[[Request, Exception], Response]:
    """Answer 503 where the database stays locked or the disk is full: nothing was noted."""

    def say(request: Request, error: Exception) -> Response:
        log.error("the page could not be answered", error, method=request.method)
        return HTMLResponse(pages.try_again(), 503, {"Retry-After": "5"})

    return say


def _say_why_not(pages: Pages) -> Callable[[Request, Exception], Response]:
    def say(_request: Request, error: Exception) -> Response:
        assert isinstance(error, AnyHTTPException), "it is registered for these"
        page = pages.nothing_here() if error.status_code == 404 else pages.not_understood()
        return HTMLResponse(page, error.status_code, error.headers)

    return say
