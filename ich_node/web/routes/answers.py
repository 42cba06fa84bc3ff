"""What a reader answers: that an alert was seen, and whether the finding is right.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from ich_node.accounts import Role
from ich_node.job_queue.alert_answers import find_alert
from ich_node.job_queue.feedback import LONGEST_NOTE, MOST_SLICES_SAID, give_feedback
from ich_node.queries import WorklistStudy
from ich_node.records import SliceKey
from ich_node.web.acknowledging import acknowledge_by
from ich_node.web.forms import one_line, read_json
from ich_node.web.gate import FORM_HEADER, Visitor, check_form
from ich_node.web.routes.known import UID, knowing
from ich_node.web.site import Site


def add_answers(app: FastAPI, site: Site) -> None:
    """Add ``/studies/.../acknowledge`` and ``/studies/.../feedback``."""
    known_study, reader = knowing(site), site.gate.needs(Role.READER)

    @app.post("/studies/{study}/acknowledge")
    def seen(
        request: Request,
        visitor: Annotated[Visitor, Depends(reader)],
        found: Annotated[WorklistStudy, Depends(known_study)],
        asked: Annotated[dict[str, Any], Depends(read_json)],
    ) -> JSONResponse:
        """Acknowledge an alert of the study."""
        check_form(request, visitor, request.headers.get(FORM_HEADER, ""))
        identifier = str(asked.get("alert", ""))[:64]
        alert = find_alert(site.database, identifier)
        uid = found.status.study_instance_uid
        if alert is None or alert.alert.study_instance_uid != uid:
            raise HTTPException(404, "there is no such alert of this study")
        done = acknowledge_by(site, alert, visitor.name, how="page", address=site.gate.address(request))
        return JSONResponse({"acknowledged": done})

    @app.post("/studies/{study}/feedback")
    def feedback(
        request: Request,
        visitor: Annotated[Visitor, Depends(reader)],
        found: Annotated[WorklistStudy, Depends(known_study)],
        said: Annotated[dict[str, Any], Depends(read_json)],
    ) -> JSONResponse:
        """Note what a reader says of the finding."""
        check_form(request, visitor, request.headers.get(FORM_HEADER, ""))
        uid = found.status.study_instance_uid
        agrees = said.get("agrees") is True
        classes = [str(one) for one in _list(said.get("classes"))]
        if not agrees and not classes and said.get("none") is not True:
            raise HTTPException(422, "say what you see: no hemorrhage, or which")
        revision = said.get("revision")
        if type(revision) is not int:
            raise HTTPException(422, "say of which revision")
        try:
            given = give_feedback(
                site.database, uid, visitor.name, agrees=agrees, revision=revision, classes=classes,
                slices=_keys(said.get("slices")), note=one_line(str(said.get("note", "")), LONGEST_NOTE),
            )  # fmt: skip
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        if given is None:
            raise HTTPException(409, "the answer is another one by now: look again")
        patient = site.patients.of(found.newest_file)
        site.audit.feedback_given(visitor.name, patient, uid, site.gate.address(request), agrees)
        return JSONResponse({"given_at": given.given_at})


def _list(value: Any) -> list[Any]:
    return value[:MOST_SLICES_SAID] if isinstance(value, list) else []


def _keys(value: Any) -> list[SliceKey]:
    """Read which slices are meant; what is none is left out."""
    pairs = [one for one in _list(value) if isinstance(one, list) and len(one) == 2]
    return [
        (uid, frame)
        for uid, frame in pairs
        if isinstance(uid, str) and UID.fullmatch(uid) and (frame is None or type(frame) is int)
    ]
