"""By a site's rules: where the results of a study go, which study goes first, and which PACS is asked."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

from ich_node.config import Config, DestinationSettings, Mode, PeerSettings, PrioritySettings
from ich_node.records import Destination

SHADOW_MODE: Final = "shadow mode: nothing leaves the node"
RETURNED_OBJECTS: Final = ("report", "summary", "key_slices", "key_objects")
"""What goes back to who sent the images."""
_SECONDS_PER_HOUR = 3600.0


def destinations_for(
    config: Config, calling_ae_title: str, remote_address: str, *, old: bool = False, outcome: str | None = None
) -> list[Destination]:
    """List the destinations of what a peer sent: all that are configured, or the peer's own choice of them.

    A peer with ``return_port`` gets its results back, at the address it sent from. Results of an old study go to no
    destination with ``skip_old``.

    Args:
        outcome: what is said of the study: positive, indeterminate, negative or not_analysed; None: of any.
    """
    peer = peer_of(config, calling_ae_title, remote_address)
    chosen = None if peer is None else peer.destinations
    wanted = [one for one in config.destination if chosen is None or one.name in chosen]
    held = SHADOW_MODE if mode_for(config, calling_ae_title, remote_address) == "shadow" else ""
    results = [_destination(one, held) for one in wanted if not (old and one.skip_old) and _takes(one, outcome)]
    if peer is not None and peer.return_port is not None:
        name = f"sender-{peer.ae_title}-{remote_address}"
        results.append(Destination(name, peer.ae_title, remote_address, peer.return_port, RETURNED_OBJECTS, held))
    return results


def mode_for(config: Config, calling_ae_title: str, remote_address: str) -> Mode:
    """Say whether results and alerts of what a peer sent leave the node."""
    peer = peer_of(config, calling_ae_title, remote_address)
    return config.node.mode if peer is None or peer.mode is None else peer.mode


def configured_destinations(config: Config) -> list[Destination]:
    """List the destinations that the configuration names."""
    return [_destination(one) for one in config.destination]


def pacs_to_ask(config: Config) -> Destination | None:
    """Return the PACS that says how many images a series has; None where nobody is asked."""
    if config.query is None:
        return None
    return Destination("query", config.query.ae_title, config.query.host, config.query.port)


def priority_of(config: Config, calling_ae_title: str, station_name: str, requested: str) -> int:
    """Return the highest level among the rules that fit; 0 where none does.

    Args:
        requested: what the order or the sender asks for: STAT, HIGH, MEDIUM, ROUTINE, LOW, or nothing.
    """
    fitting = (one.level for one in config.priority if _fits(one, calling_ae_title, station_name, requested))
    return max(fitting, default=0)


def is_old(config: Config, acquired_at: float | None, now: float) -> bool:
    """Say whether images were acquired longer ago than ``routine_max_age_h``; an unknown time counts as new."""
    return acquired_at is not None and now - acquired_at > config.series.routine_max_age_h * _SECONDS_PER_HOUR


def _fits(rule: PrioritySettings, calling_ae_title: str, station_name: str, requested: str) -> bool:
    return (
        (rule.ae_title is None or rule.ae_title == calling_ae_title)
        and (rule.station_name is None or _is_like(station_name, rule.station_name))
        and (rule.requested is None or requested in rule.requested)
    )


def _is_like(station_name: str, pattern: str) -> bool:
    return fnmatchcase(station_name.upper(), pattern.upper().replace("[", "[[]"))  # only * and ? are wild


def peer_of(config: Config, calling_ae_title: str, remote_address: str) -> PeerSettings | None:
    """Return the settings of who sent something; None where nobody knows."""
    if not remote_address:  # adopted after a crash: who sent it is not known any more
        return None
    return next((peer for peer in config.peer if peer.matches(calling_ae_title, remote_address)), None)


def _takes(settings: DestinationSettings, outcome: str | None) -> bool:
    return outcome is None or settings.triage is None or outcome in settings.triage


def _destination(settings: DestinationSettings, held: str = "") -> Destination:
    return Destination(settings.name, settings.ae_title, settings.host, settings.port, settings.objects, held)
