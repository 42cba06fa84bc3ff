"""The configuration as it is in force, and the audit trail, for administrators.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse

from ich_node.accounts import Role
from ich_node.audit.events import TRIGGERS
from ich_node.audit.reading import as_words, newest_messages
from ich_node.audit.stored import FOLDER
from ich_node.web.configuration import sections_in_force
from ich_node.web.forms import one_line
from ich_node.web.gate import Visitor
from ich_node.web.site import Site

_SHOWN: Final = 100
_MOST_READ: Final = 5000
"""So many records are looked through for one page."""


def add_node_records(app: FastAPI, site: Site) -> None:
    """Add ``/node/configuration`` and ``/node/audit``."""
    administrator = site.gate.needs(Role.ADMINISTRATOR)
    kinds = list(dict.fromkeys(event.meaning for event, _, _ in TRIGGERS))

    @app.get("/node/configuration")
    def configuration(request: Request, visitor: Annotated[Visitor, Depends(administrator)]) -> HTMLResponse:
        """Show the configuration; secrets are files, and only their names stand in it."""
        site.audit.operated(visitor.name, site.gate.address(request), "show-configuration")
        sections = sections_in_force(site.config)
        page = site.pages.of_template(
            "node_configuration.html.j2", visitor, place="node", here="configuration", sections=sections
        )  # fmt: skip
        return HTMLResponse(page)

    @app.get("/node/audit")
    def audit(
        request: Request,
        visitor: Annotated[Visitor, Depends(administrator)],
        kind: str = "",
        search: str = "",
        before: str = "",
    ) -> HTMLResponse:
        """Show the newest records, of one kind or with some text in them. That is itself recorded."""
        kind, search = kind if kind in kinds else "", one_line(search, 64)
        asked = ", ".join(filter(None, ("page", kind, f"with {search}" if search else "")))
        site.audit.trail_read(visitor.name, site.gate.address(request), asked)
        records, more = _read(site, kind, search, before[:40])
        page = site.pages.of_template(
            "node_audit.html.j2", visitor, place="node", here="audit", kinds=kinds, kind=kind, search=search,
            records=records, more=more, enabled=site.config.audit.enabled,
        )  # fmt: skip
        return HTMLResponse(page)


def _read(site: Site, kind: str, search: str, before: str) -> tuple[list[dict[str, Any]], str]:
    """Give the newest records that fit, and from where to go on; empty at the end of the trail."""
    found: list[dict[str, Any]] = []
    messages = newest_messages(site.config.state_directory / FOLDER, before)
    for number, message in enumerate(messages, 1):
        said = as_words(message)
        if said["event"].startswith(kind) and search.casefold() in str(said).casefold():
            found.append(said)
        if len(found) == _SHOWN or number == _MOST_READ:
            return found, said["time"]
    return found, ""
