"""Where a score comes from: the activation maps of a study's key slices.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray

from ich_node.accounts import Role
from ich_node.queries.reports import current_report_file
from ich_node.records import SliceKey
from ich_node.saved_maps import maps_beside, read_maps
from ich_node.stored_files import stored_files
from ich_node.web.routes.known import UID
from ich_node.web.site import Site


def add_heatmaps(app: FastAPI, site: Site) -> None:
    """Add ``/studies/.../heatmaps``."""
    readers = [Depends(site.gate.needs(Role.READER))]

    def maps(study: str) -> dict[SliceKey, NDArray[np.uint8]]:
        """Read the maps of the report that holds now; none where the site wants none shown."""
        allowed = site.config.viewer.heatmaps and UID.fullmatch(study)
        report = current_report_file(site.database, study) if allowed else None
        return {} if report is None else read_maps(stored_files(site.config).path(str(maps_beside(Path(report)))))

    known_maps = Annotated[dict[SliceKey, NDArray[np.uint8]], Depends(maps)]

    @app.get("/studies/{study}/heatmaps", dependencies=readers)
    def heatmaps(found: known_maps) -> JSONResponse:
        """List the slices that have a map."""
        return JSONResponse({"slices": [{"uid": uid, "frame": frame} for uid, frame in found]})

    @app.get("/studies/{study}/heatmaps/{uid}", dependencies=readers)
    def heatmap(found: known_maps, uid: str, frame: int | None = None) -> Response:
        """Give the map of a slice: uint8, (rows, columns), 255 where most of all speaks for hemorrhage."""
        shares = found.get((uid, frame))
        if shares is None:
            raise HTTPException(404, "this slice has no map, or it was deleted after its days")
        rows, columns = shares.shape
        headers = {"X-Rows": str(rows), "X-Columns": str(columns)}  # another revision has another map: never kept
        return Response(shares.tobytes(), media_type="application/octet-stream", headers=headers)
