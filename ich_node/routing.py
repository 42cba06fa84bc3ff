"""By a site's rules: where the results of a study go, which study goes first, and which PACS is asked."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final

from ich_node.config import Config, DestinationSettings, Mode, PeerSettings, PrioritySettings
from ich_node.records import USUAL_OBJECTS, Destination, StudySent
from ich_node.records.self_tests import SELF_TEST_AE_TITLE

SHADOW_MODE: Final = "shadow mode: nothing leaves the node"
_ANYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to reach ourselves
_SECONDS_PER_HOUR = 3600.0
_FINGERPRINT_DIGITS: Final = 64


def destinations_for(config: Config, study: StudySent) -> list[Destination]:
    """List where the results of a study go: all destinations that are configured, or the sender's own choice of them.

    A peer with ``return_port`` gets its results back, at the address it sent from. Results of an old study go to no
    destination with ``skip_old``, and only those with its ``triage`` to one that names some. The node's own test goes
    nowhere.
    """
    if study.calling_ae_title == SELF_TEST_AE_TITLE:
        return []
    peer = peer_of(config, study.calling_ae_title, study.remote_address)
    chosen = None if peer is None else peer.destinations
    wanted = [one for one in config.destination if chosen is None or one.name in chosen]
    held = SHADOW_MODE if mode_for(config, peer) == "shadow" else ""
    results = [_destination(config, one, held) for one in wanted if _takes(one, study)]
    if peer is not None and peer.return_port is not None:
        name = _return_name(peer, study.remote_address)
        place = peer.ae_title, study.remote_address, peer.return_port
        results.append(secured(config, Destination(name, *place, objects=USUAL_OBJECTS, held=held)))
    return results


def mode_for(config: Config, peer: PeerSettings | None) -> Mode:
    """Say what of a peer's studies leaves the node: results and alerts, results alone (``objects``), or nothing."""
    return config.node.mode if peer is None or peer.mode is None else peer.mode


def configured_destinations(config: Config) -> list[Destination]:
    """List the destinations that the configuration names."""
    return [_destination(config, one) for one in config.destination]


def secured(config: Config, destination: Destination) -> Destination:
    """Add to a destination whether it is reached by TLS: the outbox does not know, and the site may have changed it.

    One that the configuration does not name any more is reached by TLS wherever the node has a certificate: what was
    meant to be encrypted is never sent in clear.
    """
    settings = next((one for one in config.destination if one.name == destination.name), None)
    if settings is not None:
        wanted, name = settings.tls, settings.tls_name or ""
    elif (peer := _peer_of_return(config, destination)) is not None:
        wanted, name = peer.return_tls, _dns_name(peer)
    else:
        wanted, name = True, ""
    return replace(destination, tls=config.tls.files if wanted else None, tls_name=name)


def _peer_of_return(config: Config, destination: Destination) -> PeerSettings | None:
    for one in config.peer:
        is_return = destination.name == _return_name(one, destination.host) and one.return_port == destination.port
        if is_return and one.matches(destination.ae_title, destination.host):
            return one
    return None


def _return_name(peer: PeerSettings, address: str) -> str:
    return f"sender-{peer.ae_title}-{address}"


def _dns_name(peer: PeerSettings) -> str:
    """Give the host name to which a peer's certificate was issued, where the site says one."""
    bound = peer.certificate or ""
    return "" if ":" in bound or (len(bound) == _FINGERPRINT_DIGITS and "." not in bound) else bound


def pacs_to_ask(config: Config) -> Destination | None:
    """Return the PACS that says how many images a series has; None where nobody is asked."""
    if config.query is None:
        return None
    query = config.query
    files = config.tls.files if query.tls else None
    return Destination("query", query.ae_title, query.host, query.port, tls=files, tls_name=query.tls_name or "")


def pacs_named(config: Config, name: str) -> list[Destination]:
    """List the PACS that go by an AE title, or by the name of a destination: the same one once.

    ``[query]``, every ``[[destination]]``, and every ``[[peer]]`` of one address with ``return_port``.
    """
    asked = pacs_to_ask(config)
    returns = [one for one in config.peer if one.return_port is not None and "/" not in one.address]
    known = [
        *([asked] if asked is not None else []),
        *configured_destinations(config),
        *(_way_back(config, one) for one in returns),
    ]
    fitting = [one for one in known if name in (one.name, one.ae_title)]
    return list({(one.ae_title, one.host, one.port): one for one in reversed(fitting)}.values())


def _way_back(config: Config, peer: PeerSettings) -> Destination:
    assert peer.return_port is not None, "asked before"
    place = peer.ae_title, peer.address, peer.return_port
    return secured(config, Destination(_return_name(peer, peer.address), *place))


def own_host(bind: str) -> str:
    """Say where a process of this machine reaches what listens on an address or on all of them."""
    return _ANYWHERE.get(bind, bind)


def calls_by_tls(config: Config) -> bool:
    """Say whether the node itself opens connections by TLS."""
    return (
        any(one.tls for one in config.destination)
        or any(one.return_tls for one in config.peer)
        or (config.query is not None and config.query.tls)
    )


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


def _destination(config: Config, settings: DestinationSettings, held: str = "") -> Destination:
    place = settings.name, settings.ae_title, settings.host, settings.port
    return secured(config, Destination(*place, settings.objects, held))
