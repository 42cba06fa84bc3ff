"""The operator's first page: how the node is, and whether its destinations answer.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

import platform
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from ich_node import __version__
from ich_node.accounts import Role
from ich_node.database.tables import SCHEMA
from ich_node.examination import Finding, examine_destination, examine_node, examine_peers
from ich_node.job_queue.retention import what_stays
from ich_node.log import EventLog
from ich_node.queries import newest_self_tests, node_operation
from ich_node.role_lock import role_is_held
from ich_node.routing import configured_destinations
from ich_node.web.deeds import Deed, acting, done, what_was_done
from ich_node.web.disk_use import look_at_disk
from ich_node.web.gate import Visitor
from ich_node.web.site import Site

log = EventLog("web")


@dataclass(frozen=True, slots=True)
class Echo:
    """What a destination answered when somebody asked it by C-ECHO."""

    at: float
    finding: Finding


@dataclass(frozen=True, slots=True)
class RoleSeen:
    """A role of the node: whether a process has it, and when it last did something."""

    name: str
    running: bool
    heard_at: float | None


def add_node(app: FastAPI, site: Site) -> None:
    """Add ``/node``, and what looks more closely."""
    operator, acts = site.gate.needs(Role.OPERATOR), acting(site, Role.OPERATOR)
    echoes, looking = dict[str, Echo](), threading.Lock()
    places = {one.name: one for one in configured_destinations(site.config)}

    def page(visitor: Visitor, said: str = "", findings: Sequence[Finding] = ()) -> HTMLResponse:
        operation = node_operation(site.database, tuple(places))
        here = site.config.host_directory
        names = (*site.config.node.roles, "web")
        roles = [RoleSeen(one, role_is_held(here, one), operation.heard.get(one)) for one in names]
        stays = what_stays(site.database, site.config.retention_rules)
        return HTMLResponse(
            site.pages.of_template(
                "node.html.j2", visitor, place="node", here="node", said=said, findings=findings, operation=operation,
                places=places, echoes=echoes, disk=look_at_disk(site.config, site.sizes), roles=roles, stays=stays,
                config=site.config, self_tests=newest_self_tests(site.database),
                version=__version__, schema=SCHEMA, python=platform.python_version(),
            )
        )  # fmt: skip

    @app.get("/node")
    def show(
        visitor: Annotated[Visitor, Depends(operator)], said: Annotated[str, Depends(what_was_done)]
    ) -> HTMLResponse:
        """Show how the node is."""
        return page(visitor, said)

    @app.get("/node/done")
    def what_is_done(
        request: Request,
        visitor: Annotated[Visitor, Depends(operator)],
        said: Annotated[str, Depends(what_was_done)],
    ) -> HTMLResponse:
        """Say what was done to a study."""
        if not said:
            raise HTTPException(404)
        study = request.query_params.get("study", "")[:64]
        return HTMLResponse(site.pages.of_template("done.html.j2", visitor, place="node", said=said, study=study))

    @app.post("/node/echo")
    def echo(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Ask a destination by C-ECHO."""
        name = deed.field("destination")
        if name not in places:
            raise deed.refused(404, "There is no such destination", "The configuration names none of that name.")
        finding = examine_destination(site.config, places[name])
        echoes[name] = Echo(time.time(), finding)
        site.audit.operated(deed.visitor.name, deed.address, "echo", To=name, Answers="yes" if finding.well else "no")
        return done("/node", "echoed")

    @app.post("/node/examine")
    def examine(deed: Annotated[Deed, Depends(acts)]) -> HTMLResponse:
        """Look at all that the node depends on, as ``ich-node doctor`` does, but for the model."""
        if not looking.acquire(blocking=False):
            raise deed.refused(409, "Somebody looks already", "Wait until the other look has ended, and try again.")
        try:
            findings = [*examine_node(site.config), *examine_peers(site.config)]
        finally:
            looking.release()
        site.audit.operated(deed.visitor.name, deed.address, "doctor", Bad=str(sum(not one.well for one in findings)))
        return page(deed.visitor, findings=findings)
