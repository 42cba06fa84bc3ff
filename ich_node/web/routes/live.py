"""The stream of changes that keeps pages up to date (server-sent events).

Annotations are evaluated as they stand: FastAPI reads them.
"""

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import Response, StreamingResponse

from ich_node.accounts import Role
from ich_node.web.site import Site


def add_live(app: FastAPI, site: Site) -> None:
    """Add ``/live``."""

    @app.get("/live", dependencies=[Depends(site.gate.needs(Role.VIEWER))])
    async def live(request: Request) -> Response:
        """Tell what has changed, as it changes (server-sent events). No page of it says who a patient is."""
        if site.live.is_full:
            raise HTTPException(503, headers={"Retry-After": "30"})
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(
            site.live.events(request.is_disconnected), media_type="text/event-stream", headers=headers
        )
