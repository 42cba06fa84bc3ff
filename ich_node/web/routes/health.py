"""Whether the pages are served, and whether the node can do its work; for load balancers and supervisors.

Annotations are evaluated as they stand: FastAPI reads them.
"""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from ich_node.web.readiness import Readiness
from ich_node.web.site import Site


def add_health(app: FastAPI, site: Site) -> None:
    """Add ``/livez`` and ``/readyz``. Both are open, and name no more than what is well and what is not."""
    readiness = Readiness(site.config)

    @app.get("/livez")
    def alive() -> JSONResponse:
        """Say that this process serves."""
        return JSONResponse({"alive": True})

    @app.get("/readyz")
    def ready() -> JSONResponse:
        """Say of each thing that the node needs whether it is there."""
        found = readiness.look()
        is_ready = all(found.values())
        checks = {name: "ok" if is_well else "bad" for name, is_well in found.items()}
        return JSONResponse({"ready": is_ready, "checks": checks}, 200 if is_ready else 503)
