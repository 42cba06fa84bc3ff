"""Where results go, by who sent the images."""

from pathlib import Path
from typing import Any

from ich_node.config import Config, parse_config
from ich_node.records import Destination
from ich_node.routing import configured_destinations, destinations_for

PACS = {"name": "pacs", "ae_title": "PACS", "host": "10.0.0.1", "port": 104}
READING = {"name": "reading-room", "ae_title": "READER", "host": "reader.local", "port": 11112}


def config(*peers: dict[str, Any]) -> Config:
    return parse_config({"peer": list(peers), "destination": [PACS, READING]}, Path("test"))


def names(destinations: list[Destination]) -> list[str]:
    return [one.name for one in destinations]


def test_results_go_to_every_destination_by_default() -> None:
    known = config({"ae_title": "CT1", "address": "10.1.0.0/16"})
    assert names(destinations_for(known, "CT1", "10.1.2.3")) == ["pacs", "reading-room"]
    assert destinations_for(known, "CT1", "10.1.2.3") == configured_destinations(known)


def test_a_peer_may_choose_its_destinations() -> None:
    known = config({"ae_title": "CT1", "address": "10.1.2.3", "destinations": ["reading-room"]})
    assert names(destinations_for(known, "CT1", "10.1.2.3")) == ["reading-room"]


def test_a_peer_may_choose_no_destination_but_itself() -> None:
    known = config({"ae_title": "CT1", "address": "10.1.2.3", "destinations": [], "return_port": 4242})
    (back,) = destinations_for(known, "CT1", "10.1.2.3")
    assert (back.ae_title, back.host, back.port) == ("CT1", "10.1.2.3", 4242)


def test_results_go_back_to_the_address_they_came_from() -> None:
    known = config({"ae_title": "CT1", "address": "10.1.0.0/16", "return_port": 104})
    first, second = (destinations_for(known, "CT1", address)[-1] for address in ("10.1.2.3", "10.1.2.4"))
    assert (first.host, second.host) == ("10.1.2.3", "10.1.2.4")
    assert first.name != second.name, "each is a destination of its own: one may be down"


def test_the_first_peer_that_fits_decides_and_address_and_title_must_both_fit() -> None:
    known = config(
        {"ae_title": "CT1", "address": "10.1.2.3", "destinations": ["pacs"]},
        {"ae_title": "CT1", "address": "10.1.0.0/16", "destinations": ["reading-room"]},
    )
    assert names(destinations_for(known, "CT1", "10.1.2.3")) == ["pacs"]
    assert names(destinations_for(known, "CT1", "10.1.9.9")) == ["reading-room"]
    assert names(destinations_for(known, "CT2", "10.1.2.3")) == ["pacs", "reading-room"]


def test_what_was_adopted_after_a_crash_goes_to_every_destination() -> None:
    known = config({"ae_title": "CT1", "address": "10.1.2.3", "destinations": ["pacs"]})
    assert names(destinations_for(known, "RECOVERED", "")) == ["pacs", "reading-room"]
