"""Analyse a study again.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request

from ich_node.accounts import Role
from ich_node.job_queue import requeue
from ich_node.log import EventLog
from ich_node.queries import WorklistStudy
from ich_node.web.api.known import knowing
from ich_node.web.api.models import Requeued
from ich_node.web.api.problems import described
from ich_node.web.api.programs import in_the_trail, needs
from ich_node.web.gate import Visitor
from ich_node.web.site import Site

log = EventLog("web")


def add_requeue(api: FastAPI, site: Site) -> None:
    """Add ``/studies/.../requeue``."""
    operator, known_study = needs(Role.OPERATOR), knowing(site)

    @api.post("/studies/{study}/requeue", status_code=202, responses=described(404, 409))
    def requeue_study(
        request: Request,
        program: Annotated[Visitor, Depends(operator)],
        found: Annotated[WorklistStudy, Depends(known_study)],
    ) -> Requeued:
        """Queue the series of a study to be analysed again; its next report is a new revision.

        409: its images were deleted, or all of it is quarantined or rejected.
        """
        uid = found.status.study_instance_uid
        count = requeue(site.database, uid=uid)
        if not count:
            raise HTTPException(409, "no series of it can be analysed again: send the study again")
        address = site.gate.address(request)
        site.audit.operated(in_the_trail(program), address, "requeue", [uid], Series=str(count))
        log.info("study queued again", series=count, by=program.name)
        return Requeued(series=count)
