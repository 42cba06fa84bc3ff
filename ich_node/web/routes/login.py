"""Logging in and out.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated, Final

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from ich_node.accounts import LONGEST_PASSWORD, Login, begin_session, end_session, forget_old_sessions, log_in
from ich_node.log import EventLog
from ich_node.web.forms import one_line, read_form, read_short_form
from ich_node.web.gate import COOKIE, FORM_FIELD, check_form, is_ours
from ich_node.web.site import Site

_LONGEST_NAME: Final = 64
_AT_ONCE: Final = 4
"""Passwords that are looked at: each takes 64 MiB for a moment."""

log = EventLog("web")


def add_login(app: FastAPI, site: Site) -> None:
    """Add ``/login`` and ``/logout``."""
    looking = CapacityLimiter(_AT_ONCE)

    async def tried(request: Request, form: Annotated[dict[str, str], Depends(read_short_form)]) -> tuple[str, Login]:
        """Look at name and password. Who waits for that holds none of the threads that answer for pages."""
        if not is_ours(request):
            raise HTTPException(403)
        name, password = one_line(form.get("name", ""), _LONGEST_NAME), form.get("password", "")[:LONGEST_PASSWORD]
        return name, await to_thread.run_sync(log_in, site.database, name, password, limiter=looking)

    @app.get("/login")
    def show(request: Request) -> Response:
        """Ask for name and password."""
        if site.gate.visitor(request) is not None:
            return RedirectResponse("/", 303)
        return HTMLResponse(site.pages.login())

    @app.post("/login")
    def enter(request: Request, at_the_door: Annotated[tuple[str, Login], Depends(tried)]) -> Response:
        """Log in. What is wrong is not told, but for how long an account is locked."""
        name, login = at_the_door
        address = site.gate.address(request)
        if login.account is None:
            site.audit.login_refused(name, address, login.why)
            log.warning("login refused", address=address, why=login.why)
            return HTMLResponse(site.pages.login(failed=True, locked_s=login.locked_s), 401)
        forget_old_sessions(site.database, site.gate.rules)
        session = begin_session(site.database, login.account)
        site.audit.logged_in(session.account, address)
        log.info("logged in", by=session.account, account_role=session.role, address=address)
        response = RedirectResponse("/", 303)
        site.gate.keep(request, response, session)
        return response

    @app.post("/logout")
    def leave(request: Request, form: Annotated[dict[str, str], Depends(read_form)]) -> Response:
        """Log out at this browser."""
        response = RedirectResponse("/login", 303)
        if (visitor := site.gate.visitor(request)) is not None:
            check_form(request, visitor, form.get(FORM_FIELD, ""))
            end_session(site.database, request.cookies.get(COOKIE, ""))
            site.audit.logged_out(visitor.name, site.gate.address(request))
        site.gate.forget(response)
        return response
