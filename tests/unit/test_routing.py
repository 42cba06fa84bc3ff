"""Where results go, by who sent the images."""

from pathlib import Path
from typing import Any

import pytest

from ich_node.config import Config, parse_config
from ich_node.records import Destination, StudySent, Triage
from ich_node.routing import (
    configured_destinations,
    destinations_for,
    is_old,
    pacs_named,
    pacs_to_ask,
    priority_of,
)

PACS = {"name": "pacs", "ae_title": "PACS", "host": "10.0.0.1", "port": 104}
READING = {"name": "reading-room", "ae_title": "READER", "host": "reader.local", "port": 11112}


def config(*peers: dict[str, Any]) -> Config:
    return parse_config({"peer": list(peers), "destination": [PACS, READING]}, Path("test"))


def sent(ae_title: str, address: str, *, old: bool = False, triage: Triage | None = Triage.POSITIVE) -> StudySent:
    return StudySent(ae_title, address, old, triage)


def names(destinations: list[Destination]) -> list[str]:
    return [one.name for one in destinations]


def test_results_go_to_every_destination_by_default() -> None:
    known = config({"ae_title": "CT1", "address": "10.1.0.0/16"})
    assert names(destinations_for(known, sent("CT1", "10.1.2.3"))) == ["pacs", "reading-room"]
    assert destinations_for(known, sent("CT1", "10.1.2.3")) == configured_destinations(known)


def test_a_peer_may_choose_its_destinations() -> None:
    known = config({"ae_title": "CT1", "address": "10.1.2.3", "destinations": ["reading-room"]})
    assert names(destinations_for(known, sent("CT1", "10.1.2.3"))) == ["reading-room"]


def test_a_peer_may_choose_no_destination_but_itself() -> None:
    known = config({"ae_title": "CT1", "address": "10.1.2.3", "destinations": [], "return_port": 4242})
    (back,) = destinations_for(known, sent("CT1", "10.1.2.3"))
    assert (back.ae_title, back.host, back.port) == ("CT1", "10.1.2.3", 4242)


def test_results_go_back_to_the_address_they_came_from() -> None:
    known = config({"ae_title": "CT1", "address": "10.1.0.0/16", "return_port": 104})
    first, second = (destinations_for(known, sent("CT1", address))[-1] for address in ("10.1.2.3", "10.1.2.4"))
    assert (first.host, second.host) == ("10.1.2.3", "10.1.2.4")
    assert first.name != second.name, "each is a destination of its own: one may be down"


def test_the_first_peer_that_fits_decides_and_address_and_title_must_both_fit() -> None:
    known = config(
        {"ae_title": "CT1", "address": "10.1.2.3", "destinations": ["pacs"]},
        {"ae_title": "CT1", "address": "10.1.0.0/16", "destinations": ["reading-room"]},
    )
    assert names(destinations_for(known, sent("CT1", "10.1.2.3"))) == ["pacs"]
    assert names(destinations_for(known, sent("CT1", "10.1.9.9"))) == ["reading-room"]
    assert names(destinations_for(known, sent("CT2", "10.1.2.3"))) == ["pacs", "reading-room"]


def test_what_was_adopted_after_a_crash_goes_to_every_destination() -> None:
    known = config({"ae_title": "CT1", "address": "10.1.2.3", "destinations": ["pacs"]})
    assert names(destinations_for(known, sent("RECOVERED", ""))) == ["pacs", "reading-room"]


def test_results_of_an_old_study_stay_away_from_where_they_are_not_wanted() -> None:
    peer = {"ae_title": "CT1", "address": "10.1.2.3", "return_port": 104}
    known = parse_config({"peer": [peer], "destination": [PACS, READING | {"skip_old": True}]}, Path("test"))
    assert names(destinations_for(known, sent("CT1", "10.1.2.3", old=True))) == ["pacs", "sender-CT1-10.1.2.3"]
    assert len(destinations_for(known, sent("CT1", "10.1.2.3", old=False))) == 3
    assert len(configured_destinations(known)) == 2


# ------------------------------------------------------------------------------------------ what goes first


def with_rules(*rules: dict[str, Any]) -> Config:
    return parse_config({"receiver": {"allow_any": True}, "priority": list(rules)}, Path("test"))


def test_without_rules_everything_is_alike() -> None:
    assert priority_of(with_rules(), "CT1", "CT_ER1", "STAT") == 0


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({"ae_title": "CT1"}, True),
        ({"ae_title": "CT2"}, False),
        ({"station_name": "CT_ER*"}, True),
        ({"station_name": "ct_er?"}, True),
        ({"station_name": "CT_ER"}, False),
        ({"station_name": "CT_[A-Z]R1"}, False),
        ({"requested": ["HIGH", "STAT"]}, True),
        ({"requested": ["LOW"]}, False),
        ({"ae_title": "CT1", "station_name": "*ER*", "requested": ["STAT"]}, True),
        ({"ae_title": "CT1", "station_name": "*ER*", "requested": ["LOW"]}, False),
    ],
)
def test_every_key_of_a_rule_must_fit(rule: dict[str, Any], fits: bool) -> None:
    assert priority_of(with_rules(rule | {"level": 7}), "CT1", "CT_ER1", "STAT") == (7 if fits else 0)


def test_of_the_rules_that_fit_the_highest_level_counts() -> None:
    rules = [{"level": level, "ae_title": "CT1"} for level in (5, 20, -30)]
    assert priority_of(with_rules(*rules), "CT1", "", "") == 20
    assert priority_of(with_rules(rules[2], {"level": 50, "ae_title": "CT2"}), "CT1", "", "") == -30


def test_a_study_is_old_when_it_was_acquired_longer_ago_than_configured() -> None:
    known = parse_config({"receiver": {"allow_any": True}, "series": {"routine_max_age_h": 2}}, Path("test"))
    assert not is_old(known, 10_000.0, 10_000.0 + 7200)
    assert is_old(known, 10_000.0, 10_000.0 + 7201)
    assert not is_old(known, None, 10_000.0)


def test_only_a_configured_pacs_is_asked() -> None:
    query = {"ae_title": "ARCHIVE", "host": "pacs.local", "port": 104}
    known = parse_config({"receiver": {"allow_any": True}, "query": query}, Path("test"))
    asked = pacs_to_ask(known)
    assert asked is not None
    assert (asked.ae_title, asked.host, asked.port) == ("ARCHIVE", "pacs.local", 104)
    assert pacs_to_ask(with_rules()) is None


def test_a_destination_may_take_only_some_answers() -> None:
    urgent = PACS | {"triage": ["positive", "not_analysed"]}
    known = parse_config({"receiver": {"allow_any": True}, "destination": [urgent]}, Path("test"))
    taken = [one for one in (*Triage, None) if destinations_for(known, sent("CT1", "10.1.2.3", triage=one))]
    assert taken == [Triage.POSITIVE, None]


def test_in_shadow_mode_every_destination_is_held_also_who_sent() -> None:
    peer = {"ae_title": "CT1", "address": "10.1.2.3", "return_port": 104, "mode": "shadow"}
    known = parse_config({"receiver": {"allow_any": True}, "peer": [peer], "destination": [PACS]}, Path("test"))
    assert [bool(one.held) for one in destinations_for(known, sent("CT1", "10.1.2.3"))] == [True, True]
    assert [bool(one.held) for one in destinations_for(known, sent("CT2", "10.1.2.3"))] == [False]


def test_a_peer_may_be_live_where_the_node_is_in_shadow_mode() -> None:
    peer = {"ae_title": "CT1", "address": "10.1.2.3", "mode": "live"}
    known = parse_config({"node": {"mode": "shadow"}, "peer": [peer], "destination": [PACS]}, Path("test"))
    assert [bool(one.held) for one in destinations_for(known, sent("CT1", "10.1.2.3"))] == [False]
    assert [bool(one.held) for one in destinations_for(known, sent("CT2", "10.1.2.3"))] == [True]


def test_a_pacs_goes_by_its_ae_title_or_by_the_name_of_a_destination_and_is_listed_once() -> None:
    query = {"ae_title": "PACS", "host": "10.0.0.1", "port": 104}
    peers = [
        {"ae_title": "CT1", "address": "10.1.2.3", "return_port": 4242}, {"ae_title": "CT2", "address": "10.1.2.4"},
        {"ae_title": "CT3", "address": "10.1.3.0/24", "return_port": 104},
    ]  # fmt: skip
    other = READING | {"name": "other", "host": "10.0.0.9"}
    known = parse_config({"query": query, "peer": peers, "destination": [PACS, READING, other]}, Path("test"))

    def places(name: str) -> list[tuple[str, int]]:
        return sorted((one.host, one.port) for one in pacs_named(known, name))

    assert places("PACS") == places("pacs") == [("10.0.0.1", 104)]
    assert places("reading-room") == [("reader.local", 11112)]
    assert places("READER") == [("10.0.0.9", 11112), ("reader.local", 11112)]
    assert places("CT1") == [("10.1.2.3", 4242)]
    assert places("CT2") == places("CT3") == places("NOBODY") == []
