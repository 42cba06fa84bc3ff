"""How far readers and node agree, and what readers say as a table of labels.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from ich_node.accounts import Role
from ich_node.concordance import Period, concordance_of, label_table
from ich_node.queries.feedback import spoken_answers
from ich_node.web.concordance_page import concordance_page
from ich_node.web.gate import Visitor
from ich_node.web.site import Site


def add_concordance(app: FastAPI, site: Site) -> None:
    """Add ``/concordance``."""
    reader = site.gate.needs(Role.READER)

    @app.get("/concordance")
    def show(visitor: Annotated[Visitor, Depends(reader)], by: str = Period.MONTH) -> HTMLResponse:
        """Show how far readers and node agree. No patient is named."""
        if by not in tuple(Period):
            raise HTTPException(404)
        period = Period(by)
        found = concordance_of(spoken_answers(site.database), period)
        return HTMLResponse(site.pages.concordance(visitor, concordance_page(found, period)))

    @app.get("/concordance/feedback.csv")
    def export(request: Request, visitor: Annotated[Visitor, Depends(reader)]) -> Response:
        """Give what readers say as a table that `ich-train prepare` reads."""
        table = label_table(spoken_answers(site.database))
        site.audit.labels_exported(visitor.name, table.studies, site.gate.address(request))
        headers = {"Content-Disposition": 'attachment; filename="feedback.csv"'}
        return Response(table.csv, media_type="text/csv; charset=utf-8", headers=headers)
