"""Where styles and scripts are fetched."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response

from ich_node.web.assets import assets

_FOR_GOOD: Final = "public, max-age=31536000, immutable"
_ASK_EACH_TIME: Final = "no-cache"


def add_assets(app: FastAPI) -> None:
    """Add ``/static``."""
    known = assets()

    @app.get("/static/{name}")
    def asset(request: Request, name: str, v: str = "") -> Response:
        """Give one file. After an upgrade pages and scripts fit each other: pages name the version that they need."""
        if name not in known:
            raise HTTPException(404)
        found = known[name]
        tag = f'"{found.version}"'
        headers = {"Cache-Control": _FOR_GOOD if v == found.version else _ASK_EACH_TIME, "ETag": tag}
        if request.headers.get("If-None-Match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(found.content, media_type=found.kind, headers=headers)
