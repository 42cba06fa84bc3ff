"""Whether somebody is still logged in, for the pages that are open.

Annotations are evaluated as they stand: FastAPI reads them.
"""

from fastapi import Depends, FastAPI
from fastapi.responses import Response

from ich_node.accounts import Role
from ich_node.web.site import Site


def add_session(app: FastAPI, site: Site) -> None:
    """Add ``/session``."""

    @app.get("/session", dependencies=[Depends(site.gate.needs(Role.VIEWER))])
    def still_there() -> Response:
        """Say nothing to who is logged in; to nobody else, for whom it is 401 or the login."""
        return Response(status_code=204)
