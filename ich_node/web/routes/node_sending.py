"""What an operator does with results and alerts that did not arrive.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import RedirectResponse

from ich_node.accounts import Role
from ich_node.job_queue.alert_answers import find_alert
from ich_node.job_queue.alert_outbox import send_again
from ich_node.operating import resend_results
from ich_node.routing import configured_destinations
from ich_node.web.acknowledging import acknowledge_by
from ich_node.web.deeds import Deed, acting, done
from ich_node.web.site import Site


def add_sending_deeds(app: FastAPI, site: Site) -> None:
    """Add what an operator does with deliveries and alerts: resend, acknowledge."""
    acts = acting(site, Role.OPERATOR)

    @app.post("/node/deliveries/resend")
    def resend(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Send one delivery again, all that are dead, or what is for one destination."""
        delivery, name, dead = deed.number("delivery"), deed.field("destination"), deed.field("what") == "dead"
        if delivery is None and name and name not in {one.name for one in configured_destinations(site.config)}:
            raise deed.refused(404, "There is no such destination", "The configuration names none of that name.")
        if delivery is None and not dead and not (name and deed.field("confirm")):
            raise deed.refused(
                422, "Nothing was sent", "To send every current result to a destination again, name it and confirm it."
            )
        count = resend_results(
            site.config, site.database, delivery_id=delivery, destination=name or None,
            dead_only=dead,
        )  # fmt: skip
        if not count:
            raise deed.refused(
                409, "Nothing to send again",
                "No current result fits whose file is still there. In shadow mode nothing leaves the node.",
            )  # fmt: skip
        site.audit.operated(
            deed.visitor.name, deed.address, "resend", Deliveries=str(count), Dead=str(dead), To=name,
            Delivery="" if delivery is None else str(delivery),
        )  # fmt: skip
        return done("/node/deliveries", "resent", count)

    @app.post("/node/alerts/resend")
    def tell_again(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Send a dead alert again, or all that are dead."""
        identifier = deed.field("alert")
        every = deed.field("all") == "dead"
        count = send_again(site.database, None if every else identifier)
        if not count:
            raise deed.refused(409, "Nothing to send again", "No alert of that identifier is dead.")
        site.audit.operated(deed.visitor.name, deed.address, "alert-resend", Alerts=str(count), Identifier=identifier)
        return done("/node/alerts", "alerted", count, state="dead")

    @app.post("/node/alerts/acknowledge")
    def seen(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Say that an alert was seen: nobody further is told."""
        asked = find_alert(site.database, deed.field("alert"))
        if asked is None or not acknowledge_by(site, asked, deed.visitor.name, how="page", address=deed.address):
            raise deed.refused(409, "Nothing to acknowledge", "There is no such alert, or somebody has already.")
        return done("/node/alerts", "acknowledged")
