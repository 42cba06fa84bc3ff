"""The worklist.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse

from ich_node.accounts import Role
from ich_node.queries import LONGEST_SEARCH, Order, Shown, WorklistQuery, what_waits
from ich_node.web.forms import one_line
from ich_node.web.gate import Visitor
from ich_node.web.site import Site
from ich_node.web.tables import WorklistTables


def add_worklist(app: FastAPI, site: Site) -> None:
    """Add ``/``, and its table alone."""
    viewer = site.gate.needs(Role.VIEWER)

    def query(order: str = "", show: str = "", search: str = "", after: str = "") -> WorklistQuery:
        """Read what somebody asks to see."""
        try:
            return WorklistQuery(
                Order(order or Order.NEWEST), Shown(show or Shown.ALL), one_line(search, LONGEST_SEARCH), after[:32]
            )
        except ValueError:
            raise HTTPException(404) from None

    tables = WorklistTables(site)

    @app.get("/")
    def show(
        request: Request,
        visitor: Annotated[Visitor, Depends(viewer)],
        asked: Annotated[WorklistQuery, Depends(query)],
    ) -> HTMLResponse:
        """Show the worklist."""
        rows = tables.html(asked, visitor, site.gate.address(request))
        return HTMLResponse(site.pages.worklist(visitor, asked, rows, what_waits(site.database)))

    @app.get("/worklist")
    def rows(
        request: Request,
        visitor: Annotated[Visitor, Depends(viewer)],
        asked: Annotated[WorklistQuery, Depends(query)],
    ) -> HTMLResponse:
        """Show its table alone, for the page that is open."""
        return HTMLResponse(tables.html(asked, visitor, site.gate.address(request)))
