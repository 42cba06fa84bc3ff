"""Where the results of a study go."""

from __future__ import annotations

from ich_node.config import Config, DestinationSettings, PeerSettings
from ich_node.records import Destination


def destinations_for(config: Config, calling_ae_title: str, remote_address: str) -> list[Destination]:
    """List the destinations of what a peer sent: all that are configured, or the peer's own choice of them.

    A peer with ``return_port`` gets its results back, at the address it sent from.
    """
    peer = _peer(config, calling_ae_title, remote_address)
    chosen = None if peer is None else peer.destinations
    results = [_destination(one) for one in config.destination if chosen is None or one.name in chosen]
    if peer is not None and peer.return_port is not None:
        name = f"sender-{peer.ae_title}-{remote_address}"
        results.append(Destination(name, peer.ae_title, remote_address, peer.return_port))
    return results


def configured_destinations(config: Config) -> list[Destination]:
    """List the destinations that the configuration names."""
    return [_destination(one) for one in config.destination]


def _peer(config: Config, calling_ae_title: str, remote_address: str) -> PeerSettings | None:
    if not remote_address:  # adopted after a crash: who sent it is not known any more
        return None
    return next((peer for peer in config.peer if peer.matches(calling_ae_title, remote_address)), None)


def _destination(settings: DestinationSettings) -> Destination:
    return Destination(settings.name, settings.ae_title, settings.host, settings.port)
