"""An alert was seen.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Path, Request

from ich_node.accounts import Role
from ich_node.job_queue.alert_answers import find_alert
from ich_node.queries import AlertStatus, WorklistStudy, worklist_line
from ich_node.web.acknowledging import acknowledge_by
from ich_node.web.api import answers
from ich_node.web.api.known import knowing
from ich_node.web.api.models import Acknowledged, Alert
from ich_node.web.api.problems import described
from ich_node.web.api.programs import in_the_record, in_the_trail, needs, person
from ich_node.web.gate import Visitor
from ich_node.web.site import Site

_AlertName = Annotated[str, Path(description="identifier of the alert", pattern=r"^[A-Z2-7]{20}$")]


def add_acknowledgement(api: FastAPI, site: Site) -> None:
    """Add ``/studies/.../alerts/.../acknowledgement``."""
    reader, known_study = needs(Role.READER), knowing(site)

    @api.put("/studies/{study}/alerts/{alert}/acknowledgement", responses=described(400, 404, 409))
    def acknowledge_alert(
        request: Request,
        program: Annotated[Visitor, Depends(reader)],
        found: Annotated[WorklistStudy, Depends(known_study)],
        alert: _AlertName,
        said: Acknowledged | None = None,
    ) -> Alert:
        """Acknowledge an alert, and give it as it is then; what was acknowledged before stays as it is.

        409: nobody was told yet, or it was held or overtaken.
        """
        if _alert_of(found, alert) is None:
            raise HTTPException(404, "there is no such alert of this study")
        _acknowledge(request, program, alert, person(said.by) if said is not None else "")
        now = worklist_line(site.database, found.status.study_instance_uid)
        is_now = _alert_of(now or found, alert)
        if is_now is None or is_now.acknowledged_at is None:
            raise HTTPException(409, "it cannot be acknowledged: nobody was told, or it was held or overtaken")
        return answers.alert(is_now, program)

    def _acknowledge(request: Request, program: Visitor, identifier: str, by: str) -> None:
        asked = find_alert(site.database, identifier)
        if asked is not None:
            acknowledge_by(
                site, asked, in_the_record(program, by), how="API", address=site.gate.address(request),
                recorded_as=in_the_trail(program, by), by=program.name,
            )  # fmt: skip


def _alert_of(found: WorklistStudy, identifier: str) -> AlertStatus | None:
    return next((one for one in found.status.alerts if one.identifier == identifier), None)
