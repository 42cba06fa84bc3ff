"""The button by which an operator has the node test itself.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import RedirectResponse

from ich_node.accounts import Role
from ich_node.job_queue.self_tests import ask_self_test
from ich_node.web.deeds import Deed, acting, done
from ich_node.web.readiness import roles_alive
from ich_node.web.site import Site


def add_self_test(app: FastAPI, site: Site) -> None:
    """Add the deed; `deliver` does it, soon."""
    acts = acting(site, Role.OPERATOR)

    @app.post("/node/self-test")
    def self_test(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Ask for a self-test."""
        if not roles_alive(site.config).get("deliver", True):
            raise deed.refused(409, "Nobody would run it", "The deliver role does not run, which runs the tests.")
        _, is_new = ask_self_test(site.database, deed.visitor.name)
        if not is_new:
            raise deed.refused(409, "A test runs already", "Wait until it has ended, and try again.")
        site.audit.operated(deed.visitor.name, deed.address, "self-test")
        return done("/node", "tested")
