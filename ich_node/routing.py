"""By a site's rules: where the results of a study go, which study goes first, and which PACS is asked."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

from ich_node.config import Config, DestinationSettings, Mode, PeerSettings, PrioritySettings
from ich_node.records import USUAL_OBJECTS, Destination, StudySent

SHADOW_MODE: Final = "shadow mode: nothing leaves the node"
_SECONDS_PER_HOUR = 3600.0


def destinations_for(config: Config, study: StudySent) -> list[Destination]:
    """List where the results of a study go: all destinations that are configured, or the sender's own choice of them.

    A peer with ``return_port`` gets its results back, at the address it sent from. Results of an old study go to no
    destination with ``skip_old``, and only those with its ``triage`` to one that names some.
    """
    peer = peer_of(config, study.calling_ae_title, study.remote_address)
    chosen = None if peer is None else peer.destinations
    wanted = [one for one in config.destination if chosen is None or one.name in chosen]
    held = SHADOW_MODE if mode_for(config, peer) == "shadow" else ""
    results = [_destination(one, held) for one in wanted if _takes(one, study)]
    if peer is not None and peer.return_port is not None:
        name = f"sender-{peer.ae_title}-{study.remote_address}"
        place = peer.ae_title, study.remote_address, peer.return_port
        results.append(Destination(name, *place, objects=USUAL_OBJECTS, held=held))
    return results


def mode_for(config: Config, peer: PeerSettings | None) -> Mode:
    """Say what of a peer's studies leaves the node: results and alerts, results alone (``objects``), or nothing."""
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
        and (rule.station_name is None or is_like(station_name, rule.station_name))
        and (rule.requested is None or requested in rule.requested)
    )


def is_like(station_name: str, pattern: str) -> bool:
    return fnmatchcase(station_name.upper(), pattern.upper().replace("[", "[[]"))  # only * and ? are wild


def peer_of(config: Config, calling_ae_title: str, remote_address: str) -> PeerSettings | None:
    """Return the settings of who sent something; None where nobody knows."""
    if not remote_address:  # adopted after a crash: who sent it is not known any more
        return None
    return next((peer for peer in config.peer if peer.matches(calling_ae_title, remote_address)), None)


def _takes(settings: DestinationSettings, study: StudySent) -> bool:
    outcome = "not_analysed" if study.triage is None else study.triage
    return not (study.old and settings.skip_old) and (settings.triage is None or outcome in settings.triage)


def _destination(settings: DestinationSettings, held: str = "") -> Destination:
    return Destination(settings.name, settings.ae_title, settings.host, settings.port, settings.objects, held)
