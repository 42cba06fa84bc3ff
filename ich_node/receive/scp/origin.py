"""Who sent an event."""

from __future__ import annotations

from pynetdicom.events import Event

from ich_node.audit import Peer


def peer_of(event: Event) -> Peer:
    """Give the application entity at the other end."""
    requestor = event.assoc.requestor
    return Peer(requestor.ae_title.strip(), requestor.address)


def origin_of(event: Event) -> dict[str, str]:
    """Say it in fields of the log."""
    peer = peer_of(event)
    return {"calling_ae_title": peer.ae_title, "address": peer.address, "association": event.assoc.name}
