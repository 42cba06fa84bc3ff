"""The application under ``/api/v1``, and the OpenAPI document that describes it."""

from __future__ import annotations

import re
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.routing import Mount

from ich_node import __version__
from ich_node.web.api.allowance import Allowance
from ich_node.web.api.door import Door
from ich_node.web.api.problems import Problem, answer_problems
from ich_node.web.api.routes import add_acknowledgement, add_feedback, add_node, add_requeue, add_results, add_studies
from ich_node.web.site import Site

PREFIX: Final = "/api/v1"
_TEXT: Final = (
    "Studies, results, feedback and alerts of one ich-node. Every request carries the token of a program: "
    "`Authorization: Bearer TOKEN`. Research software, not a medical device. No result is not a negative result."
)


def add_api(app: FastAPI, site: Site) -> None:
    """Add ``/api/v1``."""
    mount = Mount(PREFIX, make_api(site))
    # Starlette's own expression ends at a line feed: such an address would be answered by the pages
    mount.path_regex = re.compile(f"^{PREFIX}/(?P<path>.*)$", re.DOTALL)
    app.router.routes.append(mount)


def make_api(site: Site) -> FastAPI:
    """Make the application."""
    api = FastAPI(
        docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )  # fmt: skip
    add_node(api, site)
    add_studies(api, site)
    add_results(api, site)
    add_feedback(api, site)
    add_acknowledgement(api, site)
    add_requeue(api, site)
    document = _document(api)

    @api.get("/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:
        """Give the OpenAPI document."""
        return JSONResponse(document)

    answer_problems(api)
    api.add_middleware(Door, gate=site.gate, audit=site.audit, allowance=Allowance())
    return api


def _document(api: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="ich-node",
        version=__version__,
        openapi_version="3.1.0",
        description=_TEXT,
        routes=api.routes,
        servers=[{"url": PREFIX}],
    )
    document["components"]["schemas"].update(_schemas_of_problems())
    return document


def _schemas_of_problems() -> dict[str, Any]:
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    parts: dict[str, Any] = problem.pop("$defs")
    return parts | {"Problem": problem}
