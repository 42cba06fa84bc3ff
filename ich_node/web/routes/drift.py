"""Drift: whether series of each station and kernel still look and end as they did, and another reference for them.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated, Final

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse

from ich_node.accounts import Role
from ich_node.drift import Look, look_from_json
from ich_node.job_queue.drift import take_new_reference
from ich_node.queries.drift import newest_look, set_references
from ich_node.web.deeds import Deed, acting, done, what_was_done
from ich_node.web.drift_page import drift_page, key_of
from ich_node.web.gate import Visitor
from ich_node.web.site import Site

DAYS: Final = (7, 14, 28, 56)
"""That a new reference may go back."""


def add_drift(app: FastAPI, site: Site) -> None:
    """Add ``/drift``."""
    operator, acts = site.gate.needs(Role.OPERATOR), acting(site, Role.OPERATOR)
    settings = site.config.drift

    @app.get("/drift")
    def show(
        visitor: Annotated[Visitor, Depends(operator)], said: Annotated[str, Depends(what_was_done)]
    ) -> HTMLResponse:
        """Show what the newest look found. No patient is named."""
        look = _look(site)
        page = None if look is None else drift_page(look, set_references(site.database), settings.rules)
        return HTMLResponse(
            site.pages.of_template(
                "drift.html.j2", visitor, place="node", here="drift", said=said, page=page, settings=settings, days=DAYS
            )
        )

    @app.post("/drift/reference")
    def reference(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Let the last days of a station and kernel be their reference."""
        look, key, days, reason = _look(site), deed.field("group"), deed.number("days"), deed.reason()
        groups = [one for one in look.groups if key_of(one) == key] if look else []
        if not groups or days not in DAYS:
            raise deed.refused(404, "There is no such station and kernel", "Load the page of drift again.")
        names = groups[0].station_name, groups[0].convolution_kernel
        take_new_reference(site.database, *names, days=days, by=deed.visitor.name, reason=reason)
        site.audit.operated(
            deed.visitor.name, deed.address, "drift-reference", Station=names[0], Kernel=names[1], Days=str(days),
            Reason=reason,
        )  # fmt: skip
        return done("/drift", "reference")


def _look(site: Site) -> Look | None:
    stored = newest_look(site.database)
    return None if stored is None else look_from_json(stored.looked_at, stored.tests, stored.compared)
