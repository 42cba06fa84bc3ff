"""How the node is.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated

from fastapi import Depends, FastAPI

from ich_node import __version__
from ich_node.accounts import Role
from ich_node.queries import node_status
from ich_node.records import AlertState, DeliveryState, SeriesState
from ich_node.web.api.models import NodeState
from ich_node.web.api.problems import described
from ich_node.web.api.programs import needs
from ich_node.web.gate import Visitor
from ich_node.web.site import Site


def add_node(api: FastAPI, site: Site) -> None:
    """Add ``/status``."""

    @api.get("/status", responses=described())
    def status(_program: Annotated[Visitor, Depends(needs(Role.VIEWER))]) -> NodeState:
        """Say how the node is: what waits, what failed, and what its watchdog found."""
        now = node_status(site.database, limit=0)
        return NodeState(
            ae_title=site.config.node.ae_title,
            version=__version__,
            mode=site.config.node.mode,
            series={SeriesState(name): count for name, count in now.series.items()},
            deliveries={DeliveryState(name): count for name, count in now.deliveries.items()},
            alerts={AlertState(name): count for name, count in now.alerts.items()},
            oldest_open_s=now.oldest_open_s,
            paused_destinations=sorted(now.paused_destinations),
            conditions=now.conditions,
            legal_holds=now.legal_holds,
        )
