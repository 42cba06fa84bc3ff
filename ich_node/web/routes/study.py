"""The page of a study: its images, what was said of it, and what a reader says.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse

from ich_node.accounts import Role
from ich_node.job_queue.feedback import feedback_of
from ich_node.queries import WorklistStudy
from ich_node.stored_files import stored_files
from ich_node.viewable import viewable_series
from ich_node.web.gate import Visitor
from ich_node.web.lines import Line, line_of
from ich_node.web.routes.images import slices_json
from ich_node.web.routes.known import knowing
from ich_node.web.site import Site
from ich_node.web.slices import shown_first
from ich_node.web.study_page import StudyPage, study_page


def add_study(app: FastAPI, site: Site) -> None:
    """Add ``/studies``."""
    viewer, reader = site.gate.needs(Role.VIEWER), site.gate.needs(Role.READER)

    known_study = knowing(site)

    def shown(found: WorklistStudy, visitor: Visitor) -> tuple[Line, StudyPage]:
        said = feedback_of(site.database, found.status.study_instance_uid)
        return line_of(found, site, visitor), study_page(found.status, said, visitor)

    def note_view(request: Request, visitor: Visitor, line: Line, what: str) -> None:
        if visitor.sees_patients:
            uid = line.study.status.study_instance_uid
            site.audit.study_viewed(visitor.name, line.patient, uid, site.gate.address(request), what)

    @app.get("/studies/{study}")
    def show(
        request: Request,
        visitor: Annotated[Visitor, Depends(viewer)],
        found: Annotated[WorklistStudy, Depends(known_study)],
    ) -> HTMLResponse:
        """Show a study."""
        line, page = shown(found, visitor)
        note_view(request, visitor, line, "study")
        series = viewable_series(site.database, found.status.study_instance_uid) if visitor.sees_patients else ()
        site.slices.read_ahead(shown_first(series))
        return HTMLResponse(site.pages.study(visitor, line, page, slices_json(series)))

    @app.get("/studies/{study}/facts")
    def facts(
        request: Request,
        visitor: Annotated[Visitor, Depends(viewer)],
        found: Annotated[WorklistStudy, Depends(known_study)],
    ) -> HTMLResponse:
        """Show what is known of it alone, for the page that is open."""
        line, page = shown(found, visitor)
        if visitor.sees_patients:
            uid = line.study.status.study_instance_uid
            site.audit.study_seen_again(visitor.name, lambda: line.patient, uid, site.gate.address(request), "study")
        return HTMLResponse(site.pages.study_facts(visitor, line, page))

    @app.get("/studies/{study}/objects/{name}")
    def take(
        request: Request,
        visitor: Annotated[Visitor, Depends(reader)],
        found: Annotated[WorklistStudy, Depends(known_study)],
        name: str,
    ) -> FileResponse:
        """Give an object that the node made of the study."""
        line, page = shown(found, visitor)
        known = name in {one.name for one in page.files}
        path = stored_files(site.config).path(f"results/{name}") if known else None
        if path is None or not path.exists():
            raise HTTPException(404)
        note_view(request, visitor, line, f"object {name}")
        return FileResponse(path, media_type="application/dicom", filename=name)
