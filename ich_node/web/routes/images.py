"""Images for the viewer.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from ich_node.accounts import Role
from ich_node.queries import WorklistStudy
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.viewable import ViewableSeries, ViewableSlice
from ich_node.web.gate import Visitor
from ich_node.web.routes.known import UID, knowing
from ich_node.web.site import Site
from ich_node.web.slices import SliceGone, SliceLists


def add_images(app: FastAPI, site: Site) -> None:
    """Add ``/studies/.../slices``."""
    known_study, reader = knowing(site), site.gate.needs(Role.READER)
    lists = SliceLists(site.database)

    def note_view(request: Request, visitor: Visitor, uid: str, file: str | None) -> None:
        address = site.gate.address(request)
        site.audit.study_seen_again(visitor.name, lambda: site.patients.of(file), uid, address, "images")

    @app.get("/studies/{study}/slices")
    def slices(
        request: Request,
        visitor: Annotated[Visitor, Depends(reader)],
        found: Annotated[WorklistStudy, Depends(known_study)],
    ) -> JSONResponse:
        """List the slices that can be looked at."""
        note_view(request, visitor, found.status.study_instance_uid, found.newest_file)
        return JSONResponse(slices_json(lists.read(found.status.study_instance_uid)))

    @app.get("/studies/{study}/slices/{uid}")
    def pixels(
        request: Request,
        visitor: Annotated[Visitor, Depends(reader)],
        study: str,
        uid: str,
        frame: int | None = None,
    ) -> Response:
        """Give the Hounsfield units of a slice: int16, little endian, (rows, columns)."""
        wanted = lists.find(study, uid, frame) if UID.fullmatch(study) else None
        if wanted is None:
            raise HTTPException(404, "there is no such slice, or its file was deleted after its days")
        try:
            content = site.slices.pixels(wanted.file, wanted.frame)
        except SliceGone as gone:
            raise HTTPException(410, str(gone)) from None
        note_view(request, visitor, study, wanted.file)
        return Response(content, media_type="application/octet-stream")


def slices_json(series: Sequence[ViewableSeries]) -> dict[str, Any]:
    """Say which slices there are, as the viewer reads it."""
    return {"classes": HEMORRHAGE_CLASSES, "series": [_series_json(one) for one in series]}


def _series_json(series: ViewableSeries) -> dict[str, Any]:
    return {
        "uid": series.series_instance_uid,
        "number": series.number,
        "kernel": series.kernel,
        "thickness_mm": series.thickness_mm,
        "is_basis": series.is_basis,
        "thresholds": series.thresholds,
        "slices": [_slice_json(one) for one in series.slices],
    }


def _slice_json(one: ViewableSlice) -> dict[str, Any]:
    return {
        "uid": one.sop_instance_uid,
        "frame": one.frame,
        "rows": one.rows,
        "columns": one.columns,
        "spacing_mm": one.spacing_mm,
        "position_mm": one.position_mm,
        "probabilities": one.probabilities,
        "is_key": one.is_key,
    }
