"""Series, deliveries and alerts that wait or need a person, and what an operator does with them.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse

from ich_node.accounts import Role
from ich_node.job_queue import reject_quarantined, release_quarantined, requeue
from ich_node.queries import list_alerts, list_deliveries, list_series
from ich_node.records import OPEN_SERIES, AlertState, DeliveryState, SeriesState
from ich_node.routing import configured_destinations
from ich_node.web.deeds import Deed, acting, done, number_of, what_was_done
from ich_node.web.gate import Visitor
from ich_node.web.routes.known import UID
from ich_node.web.site import Site

_SERIES: Final = {
    "failed": (SeriesState.FAILED,),
    "quarantined": (SeriesState.QUARANTINED,),
    "waiting": OPEN_SERIES,
}
_DELIVERIES: Final = {
    "dead": (DeliveryState.DEAD,),
    "pending": (DeliveryState.PENDING, DeliveryState.SENDING),
    "held": (DeliveryState.HELD,),
}
_ALERTS: Final = {
    "unanswered": (AlertState.UNANSWERED,),
    "dead": (AlertState.DEAD,),
    "pending": (AlertState.PENDING, AlertState.SENDING, AlertState.WAITING),
    "sent": (AlertState.SENT,),
}


def add_node_lists(app: FastAPI, site: Site) -> None:
    """Add ``/node/series``, ``/node/deliveries`` and ``/node/alerts``."""
    operator = site.gate.needs(Role.OPERATOR)

    def show(template: str, here: str, visitor: Visitor, said: str, **names: Any) -> HTMLResponse:
        return HTMLResponse(site.pages.of_template(template, visitor, place="node", here=here, said=said, **names))

    @app.get("/node/series")
    def series(
        visitor: Annotated[Visitor, Depends(operator)],
        said: Annotated[str, Depends(what_was_done)],
        state: str = "failed",
        before: str = "",
    ) -> HTMLResponse:
        """List series in some state."""
        listed = list_series(site.database, _known(_SERIES, state), number_of(before))
        return show("node_series.html.j2", "series", visitor, said, state=state, states=list(_SERIES), listed=listed)

    @app.get("/node/deliveries")
    def deliveries(
        visitor: Annotated[Visitor, Depends(operator)],
        said: Annotated[str, Depends(what_was_done)],
        state: str = "dead",
        destination: str = "",
        before: str = "",
    ) -> HTMLResponse:
        """List deliveries in some state."""
        wanted = destination[:64]
        listed = list_deliveries(site.database, _known(_DELIVERIES, state), wanted, number_of(before))
        names = [one.name for one in configured_destinations(site.config)]
        return show(
            "node_deliveries.html.j2", "deliveries", visitor, said, state=state, states=list(_DELIVERIES),
            listed=listed, destination=wanted, names=names,
        )  # fmt: skip

    @app.get("/node/alerts")
    def alerts(
        visitor: Annotated[Visitor, Depends(operator)],
        said: Annotated[str, Depends(what_was_done)],
        state: str = "unanswered",
        before: str = "",
    ) -> HTMLResponse:
        """List alerts in some state."""
        listed = list_alerts(site.database, _known(_ALERTS, state), number_of(before))
        return show("node_alerts.html.j2", "alerts", visitor, said, state=state, states=list(_ALERTS), listed=listed)


def add_series_deeds(app: FastAPI, site: Site) -> None:
    """Add what an operator does with series: requeue, release, reject."""
    acts = acting(site, Role.OPERATOR)

    @app.post("/node/series/requeue")
    def again(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Analyse a series again, or all that failed."""
        every = deed.field("all") == "failed"
        uid = None if every else _uid(deed)
        count = requeue(site.database, uid=uid, failed_only=every)
        if not count:
            raise deed.refused(409, "Nothing was queued again", "There is no such series, or its images were deleted.")
        site.audit.operated(
            deed.visitor.name, deed.address, "requeue", _named(uid), Series=str(count), Failed=str(every)
        )
        return done("/node/series", "requeued", count, state=_back(deed))

    @app.post("/node/series/release")
    def release(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Trust a quarantined series as it is."""
        uid, why = _uid(deed), deed.reason()
        count = release_quarantined(site.database, uid)
        _demand_quarantined(deed, count)
        site.audit.operated(deed.visitor.name, deed.address, "release", [uid], Series=str(count), Reason=why)
        return done("/node/series", "released", count, state=_back(deed))

    @app.post("/node/series/reject")
    def reject(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Give up a quarantined series."""
        uid, why = _uid(deed), deed.reason()
        count = reject_quarantined(site.database, uid)
        _demand_quarantined(deed, count)
        site.audit.operated(deed.visitor.name, deed.address, "reject", [uid], Series=str(count), Reason=why)
        return done("/node/series", "rejected", count, state=_back(deed))


def _demand_quarantined(deed: Deed, count: int) -> None:
    if not count:
        raise deed.refused(409, "Nothing was done", "No series of that UID is in quarantine now.")


def _uid(deed: Deed) -> str:
    uid = deed.field("uid")
    if not UID.fullmatch(uid):
        raise HTTPException(400)
    return uid


def _named(uid: str | None) -> list[str]:
    return [uid] if uid else []


def _back(deed: Deed) -> str:
    state = deed.field("state")
    return state if state in _SERIES else "failed"


def _known(states: Mapping[str, Sequence[str]], state: str) -> Sequence[str]:
    if state not in states:
        raise HTTPException(404)
    return states[state]
