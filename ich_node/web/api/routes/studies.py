"""Studies: some of them, and one with everything.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, Request

from ich_node.accounts import Role
from ich_node.queries import WorklistQuery, WorklistStudy, worklist
from ich_node.web.api import answers
from ich_node.web.api.known import knowing, note_view, shown
from ich_node.web.api.models import StudiesAsked, StudyDetail, StudyList
from ich_node.web.api.problems import described
from ich_node.web.api.programs import in_the_trail, needs
from ich_node.web.forms import one_line
from ich_node.web.gate import Visitor
from ich_node.web.lines import lines_of
from ich_node.web.site import Site


def add_studies(api: FastAPI, site: Site) -> None:
    """Add ``/studies``."""
    viewer, known_study = needs(Role.VIEWER), knowing(site)

    @api.get("/studies", responses=described(404))
    def list_studies(
        request: Request,
        program: Annotated[Visitor, Depends(viewer)],
        asked: Annotated[StudiesAsked, Query()],
    ) -> StudyList:
        """List studies, as the worklist does. 404: no page of this order ended at `after`."""
        query = WorklistQuery(asked.order, asked.show, one_line(asked.search, len(asked.search)), asked.after)
        try:
            page = worklist(site.database, query, asked.limit)
        except ValueError as error:
            raise HTTPException(404, str(error)) from None
        lines = lines_of(page.studies, site, program)
        if program.sees_patients:
            patients = [(one.patient, one.study.status.study_instance_uid) for one in lines]
            site.audit.patients_listed(in_the_trail(program), patients, site.gate.address(request))
        return StudyList(studies=[answers.study(one, program) for one in lines], next_after=page.next_after or None)

    @api.get("/studies/{study}", responses=described(404))
    def show_study(
        request: Request,
        program: Annotated[Visitor, Depends(viewer)],
        found: Annotated[WorklistStudy, Depends(known_study)],
    ) -> StudyDetail:
        """Give all that is known of a study but for its slices, which the results have."""
        answer = answers.detail(*shown(site, found, program), program)
        note_view(site, request, program, found, "study")
        return answer
