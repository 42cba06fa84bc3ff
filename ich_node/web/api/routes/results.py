"""What was found, and the DICOM objects that say so.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, HTTPException, Path, Request
from fastapi.responses import FileResponse

from ich_node.accounts import Role
from ich_node.queries import WorklistStudy
from ich_node.stored_files import stored_files
from ich_node.web.api import answers
from ich_node.web.api.known import knowing, note_view, shown
from ich_node.web.api.models import StudyResults
from ich_node.web.api.problems import described
from ich_node.web.api.programs import needs
from ich_node.web.gate import Visitor
from ich_node.web.site import Site

_DICOM: Final = "application/dicom"
_ObjectName = Annotated[
    str, Path(description="as the results name it", max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]


def add_results(api: FastAPI, site: Site) -> None:
    """Add ``/studies/.../results`` and ``/studies/.../objects``."""
    viewer, reader, known_study = needs(Role.VIEWER), needs(Role.READER), knowing(site)

    @api.get("/studies/{study}/results", responses=described(404))
    def show_results(
        program: Annotated[Visitor, Depends(viewer)], found: Annotated[WorklistStudy, Depends(known_study)]
    ) -> StudyResults:
        """Give the findings of a study, series by series: classes, thresholds, model, and each slice."""
        return answers.results(*shown(site, found, program), program)

    object_given: dict[int | str, dict[str, Any]] = {
        200: {"description": "The object.", "content": {_DICOM: {"schema": {"type": "string", "format": "binary"}}}}
    }

    @api.get("/studies/{study}/objects/{name}", response_class=FileResponse, responses=object_given | described(404))
    def take_object(
        request: Request,
        program: Annotated[Visitor, Depends(reader)],
        found: Annotated[WorklistStudy, Depends(known_study)],
        name: _ObjectName,
    ) -> FileResponse:
        """Give an object that the node made of the study, as a DICOM file."""
        _line, page = shown(site, found, program)
        known = name in {one.name for one in page.files}
        path = stored_files(site.config).path(f"results/{name}") if known else None
        if path is None or not path.is_file():
            raise HTTPException(404, "the study has no such object, or it was deleted after its days")
        note_view(site, request, program, found, f"object {name}")
        return FileResponse(path, media_type=_DICOM, filename=name)
