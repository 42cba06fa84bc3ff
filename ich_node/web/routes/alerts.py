"""The page of one alert, for who has its link.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated, Final

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse

from ich_node.job_queue.alert_answers import AskedAlert, find_alert
from ich_node.web.acknowledging import acknowledge_by
from ich_node.web.forms import one_line, read_short_form
from ich_node.web.site import Site

_LONGEST_NAME: Final = 64
_NAMELESS: Final = "somebody with the link"


def add_alerts(app: FastAPI, site: Site) -> None:
    """Add ``/alerts``."""

    def asked_alert(request: Request, identifier: str, token: str = "") -> AskedAlert:
        """Give the alert that a link is for. All that is no true link is answered alike."""
        asked = find_alert(site.database, identifier) if site.links.fits(identifier, token) else None
        if asked is None:
            site.audit.refused(site.gate.address(request))
            raise HTTPException(404)
        return asked

    @app.api_route("/alerts/{identifier}", methods=["GET", "HEAD"])
    def show(request: Request, asked: Annotated[AskedAlert, Depends(asked_alert)]) -> HTMLResponse:
        """Say what the alert says. Changes nothing: scanners of mail and previews of chats follow links."""
        site.audit.alert_viewed(asked, site.gate.address(request))
        return HTMLResponse(site.pages.alert(asked))

    @app.post("/alerts/{identifier}")
    def answer(
        request: Request,
        asked: Annotated[AskedAlert, Depends(asked_alert)],
        form: Annotated[dict[str, str], Depends(read_short_form)],
    ) -> HTMLResponse:
        """Acknowledge the alert, unless somebody has, and show how it stands now."""
        name = one_line(form.get("name", ""), _LONGEST_NAME)
        address = site.gate.address(request)
        done = acknowledge_by(site, asked, name or _NAMELESS, how="link", address=address, by=name)
        page = site.pages.alert(find_alert(site.database, asked.alert.identifier) or asked, just_done=done)
        return HTMLResponse(page)
