"""The study that an address names, and the record that somebody saw whose it is.

Annotations are evaluated as they stand: FastAPI reads them.
"""

from collections.abc import Callable
from typing import Annotated

from fastapi import HTTPException, Path, Request

from ich_node.job_queue.feedback import feedback_of
from ich_node.queries import WorklistStudy, worklist_line
from ich_node.web.api.programs import in_the_trail
from ich_node.web.gate import Visitor
from ich_node.web.lines import Line, line_of
from ich_node.web.site import Site
from ich_node.web.study_page import StudyPage, study_page

StudyUid = Annotated[
    str, Path(description="Study Instance UID", max_length=64, pattern=r"^[0-9][0-9.]*$", examples=["1.2.840.1"])
]


def knowing(site: Site) -> Callable[[str], WorklistStudy]:
    """Make a dependency: the study of an address. It raises HTTPException 404 where the node does not know it."""

    def known_study(study: StudyUid) -> WorklistStudy:
        found = worklist_line(site.database, study, in_full=True)
        if found is None:
            raise HTTPException(404, "the node knows no such study")
        return found

    return known_study


def shown(site: Site, found: WorklistStudy, program: Visitor) -> tuple[Line, StudyPage]:
    """Give all that is known of a study."""
    said = feedback_of(site.database, found.status.study_instance_uid)
    return line_of(found, site, program), study_page(found.status, said, program)


def note_view(site: Site, request: Request, program: Visitor, found: WorklistStudy, what: str) -> None:
    """Record that a program saw whose study it is, where its role may."""
    if program.sees_patients:
        patient, uid = site.patients.of(found.newest_file), found.status.study_instance_uid
        site.audit.study_viewed(in_the_trail(program), patient, uid, site.gate.address(request), f"API: {what}")
