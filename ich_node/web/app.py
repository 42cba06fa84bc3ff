"""The application: which address shows which page, and what every answer says to the browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from ich_node.errors import TransientError
from ich_node.log import EventLog
from ich_node.web.api import add_api
from ich_node.web.gate import NotLoggedIn
from ich_node.web.pages import STYLE_HASH
from ich_node.web.routes import (
    add_alerts,
    add_answers,
    add_assets,
    add_concordance,
    add_health,
    add_heatmaps,
    add_images,
    add_live,
    add_login,
    add_metrics,
    add_operation,
    add_session,
    add_study,
    add_worklist,
)
from ich_node.web.site import Site

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": f"default-src 'none'; style-src 'self' '{STYLE_HASH}'; script-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}
_ALERTS: Final = "/alerts/"
"""The link of an alert is the right to answer: nobody learns where somebody came from."""
_HSTS: Final = "max-age=31536000"

log = EventLog("web")


def make_app(site: Site) -> FastAPI:
    """Make the application."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_assets(app)
    add_alerts(app, site)
    add_login(app, site)
    add_session(app, site)
    add_worklist(app, site)
    add_live(app, site)
    add_study(app, site)
    add_images(app, site)
    add_answers(app, site)
    add_health(app, site)
    add_metrics(app, site)
    add_api(app, site)
    add_heatmaps(app, site)
    add_concordance(app, site)
    add_operation(app, site)
    app.middleware("http")(_adding_headers(site))
    app.add_exception_handler(NotLoggedIn, _lead_to_login)
    app.add_exception_handler(TransientError, _say_try_again(site))
    app.add_exception_handler(AnyHTTPException, _say_why_not(site))
    app.add_exception_handler(Exception, _say_that_it_is_ours(site))
    return app


def _adding_headers(site: Site) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    async def add(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        return _with_headers(site, request, await go_on(request))

    return add


def _with_headers(site: Site, request: Request, response: Response) -> Response:
    if request.url.path.startswith(_ALERTS):
        response.headers["Referrer-Policy"] = "no-referrer"
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if site.gate.is_encrypted(request):
        response.headers["Strict-Transport-Security"] = _HSTS
    return response


def _lead_to_login(request: Request, _error: Exception) -> Response:
    if _wants_a_page(request):
        return RedirectResponse("/login", 303)
    return JSONResponse({"detail": "nobody is logged in"}, 401)


def _say_try_again(site: Site) -> Callable[[Request, Exception], Response]:
    """Answer 503 where the database stays locked or the disk is full: nothing was noted."""

    def say(request: Request, error: Exception) -> Response:
        log.error("the page could not be answered", error, method=request.method)
        headers = {"Retry-After": "5"}
        if _wants_a_page(request):
            return HTMLResponse(site.pages.try_again(), 503, headers)
        return JSONResponse({"detail": "the node is busy; nothing was noted; try again"}, 503, headers)

    return say


def _say_that_it_is_ours(site: Site) -> Callable[[Request, Exception], Response]:
    """Answer 500; the log names the exception and its place. What answers it lies outside what adds headers."""

    def say(request: Request, error: Exception) -> Response:
        log.error("fault of a page", error, method=request.method)
        if _wants_a_page(request):
            return _with_headers(site, request, HTMLResponse(site.pages.at_fault(), 500))
        said = {"detail": "the node has a fault; its log says more"}
        return _with_headers(site, request, JSONResponse(said, 500))

    return say


def _say_why_not(site: Site) -> Callable[[Request, Exception], Response]:
    def say(request: Request, error: Exception) -> Response:
        assert isinstance(error, AnyHTTPException), "it is registered for these"
        if not _wants_a_page(request):
            return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        page = {404: site.pages.nothing_here, 403: site.pages.not_allowed}.get(
            error.status_code, site.pages.not_understood
        )
        return HTMLResponse(page(), error.status_code, error.headers)

    return say


def _wants_a_page(request: Request) -> bool:
    """Say whether a person waits for a page, and no script or program for data."""
    return "application/json" not in request.headers.get("Accept", "") and "X-Form-Token" not in request.headers
