"""What readers say of a study's answer.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, Request

from ich_node.accounts import Role
from ich_node.job_queue.feedback import LONGEST_NOTE, feedback_of, give_feedback
from ich_node.queries import WorklistStudy
from ich_node.web.api import answers
from ich_node.web.api.known import knowing, note_view
from ich_node.web.api.models import Feedback, FeedbackAsked, FeedbackGiven, FeedbackList
from ich_node.web.api.problems import described
from ich_node.web.api.programs import in_the_record, in_the_trail, needs, person
from ich_node.web.forms import one_line
from ich_node.web.gate import Visitor
from ich_node.web.site import Site


def add_feedback(api: FastAPI, site: Site) -> None:
    """Add ``/studies/.../feedback``."""
    reader, known_study = needs(Role.READER), knowing(site)

    @api.get("/studies/{study}/feedback", responses=described(404))
    def list_feedback(
        request: Request,
        program: Annotated[Visitor, Depends(reader)],
        found: Annotated[WorklistStudy, Depends(known_study)],
        asked: Annotated[FeedbackAsked, Query()],
    ) -> FeedbackList:
        """List what readers said of a study, the oldest first."""
        said, end = feedback_of(site.database, found.status.study_instance_uid), asked.after + asked.limit
        note_view(site, request, program, found, "feedback")
        return FeedbackList(
            feedback=[answers.feedback(one) for one in said[asked.after : end]],
            next_after=end if end < len(said) else None,
        )

    @api.post("/studies/{study}/feedback", status_code=201, responses=described(400, 404, 409))
    def add_to_feedback(
        request: Request,
        program: Annotated[Visitor, Depends(reader)],
        found: Annotated[WorklistStudy, Depends(known_study)],
        said: FeedbackGiven,
    ) -> Feedback:
        """Note what a reader says of the study as it is now; said twice, it is noted twice.

        409: the study has no result to speak of, or not that revision any more.
        """
        status, by = found.status, person(said.by)
        given = give_feedback(
            site.database, status.study_instance_uid, in_the_record(program, by),
            agrees=said.agrees,
            revision=said.revision,
            classes=said.classes,
            slices=[(one.sop_instance_uid, one.frame) for one in said.slices],
            note=one_line(said.note, LONGEST_NOTE),
        )  # fmt: skip
        if given is None:
            raise HTTPException(409, "there is no result to speak of now, or not that revision any more")
        patient, address = site.patients.of(found.newest_file), site.gate.address(request)
        uid, trail = status.study_instance_uid, in_the_trail(program, by)
        site.audit.feedback_given(trail, patient, uid, address, said.agrees)
        return answers.feedback(given)
