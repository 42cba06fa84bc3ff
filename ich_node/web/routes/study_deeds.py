"""What an operator does with one study: requeue, resend, legal hold, delete.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated, Final

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from ich_node.accounts import Role
from ich_node.job_queue import requeue
from ich_node.job_queue.deleting import Refusal, StudyDeletion
from ich_node.log import EventLog
from ich_node.operating import delete_study, hold_study, lift_study, resend_results
from ich_node.queries import WorklistStudy
from ich_node.web.deeds import Deed, acting, done
from ich_node.web.routes.known import knowing
from ich_node.web.site import Site

_WHY_NOT: Final = {
    Refusal.UNKNOWN: (404, "There is no such study", "The node does not know it."),
    Refusal.HELD: (409, "The study is under legal hold", "Nothing of it is deleted until the hold is lifted."),
    Refusal.NOTHING_LEFT: (409, "Nothing is left to delete", "Its images and results were deleted before."),
}

log = EventLog("web")


def add_study_deeds(app: FastAPI, site: Site) -> None:
    """Add ``/studies/.../requeue``, ``resend``, ``hold`` and ``lift``."""
    known_study, acts = knowing(site), acting(site, Role.OPERATOR)

    @app.post("/studies/{study}/requeue")
    def again(
        deed: Annotated[Deed, Depends(acts)], found: Annotated[WorklistStudy, Depends(known_study)]
    ) -> RedirectResponse:
        """Analyse the study again."""
        uid = _uid(found)
        count = requeue(site.database, uid=uid)
        if not count:
            raise deed.refused(
                409, "Nothing was queued again", "Its images were deleted, or its series are quarantined or rejected."
            )
        site.audit.operated(deed.visitor.name, deed.address, "requeue", [uid], Series=str(count))
        return done("/node/done", "requeued", count, study=uid)

    @app.post("/studies/{study}/resend")
    def resend(
        deed: Annotated[Deed, Depends(acts)], found: Annotated[WorklistStudy, Depends(known_study)]
    ) -> RedirectResponse:
        """Send the study's current results again."""
        uid = _uid(found)
        count = resend_results(site.config, site.database, study_instance_uid=uid)
        if not count:
            raise deed.refused(
                409, "Nothing to send again", "It has no result whose file is there, or shadow mode is on."
            )
        site.audit.operated(deed.visitor.name, deed.address, "resend", [uid], Deliveries=str(count))
        return done("/node/done", "resent", count, study=uid)

    @app.post("/studies/{study}/hold")
    def hold(
        deed: Annotated[Deed, Depends(acts)], found: Annotated[WorklistStudy, Depends(known_study)]
    ) -> RedirectResponse:
        """Keep everything of the study, whatever its days."""
        uid, why = _uid(found), deed.reason()
        if not hold_study(site.config, site.database, uid, why, deed.visitor.name):
            raise deed.refused(409, "It is held already", "Lift the hold first, to hold it for another reason.")
        site.audit.operated(deed.visitor.name, deed.address, "legal-hold-set", [uid], Reason=why)
        return done("/node/done", "held", study=uid)

    @app.post("/studies/{study}/lift")
    def lift(
        deed: Annotated[Deed, Depends(acts)], found: Annotated[WorklistStudy, Depends(known_study)]
    ) -> RedirectResponse:
        """Lift the hold."""
        uid, why = _uid(found), deed.reason()
        if not lift_study(site.config, site.database, uid, deed.visitor.name):
            raise deed.refused(409, "It is not held", "There is no hold to lift.")
        site.audit.operated(deed.visitor.name, deed.address, "legal-hold-lift", [uid], Reason=why)
        return done("/node/done", "lifted", study=uid)


def add_study_deletion(app: FastAPI, site: Site) -> None:
    """Add ``/studies/.../delete``."""
    known_study, acts = knowing(site), acting(site, Role.OPERATOR)

    @app.post("/studies/{study}/delete")
    def delete(deed: Annotated[Deed, Depends(acts)], found: Annotated[WorklistStudy, Depends(known_study)]) -> Response:
        """Delete images and results; what is open or undelivered needs a second word."""
        uid, why = _uid(found), deed.reason()
        if not deed.field("sure"):
            raise deed.refused(422, "Nothing was deleted", "Go back and tick that images and results are to go.")
        deleted = delete_study(
            site.config, site.database, site.audit.trail, uid, deed.visitor.name, why,
            address=deed.address, confirmed=bool(deed.field("confirm")),
        )  # fmt: skip
        if deleted.refusal is Refusal.UNFINISHED:
            return ask_again(deed, uid, why, deleted)
        if deleted.refusal is not None:
            raise deed.refused(*_WHY_NOT[deleted.refusal])
        log.warning("study deleted by a person", files=deleted.files, by=deed.visitor.name)
        return done("/node/done", "deleted", deleted.files, study=uid)

    def ask_again(deed: Deed, uid: str, why: str, found: StudyDeletion) -> HTMLResponse:
        page = site.pages.of_template(
            "delete_anyway.html.j2", deed.visitor, place="node", study=uid, reason=why, found=found
        )  # fmt: skip
        return HTMLResponse(page, 409)


def _uid(found: WorklistStudy) -> str:
    return found.status.study_instance_uid
