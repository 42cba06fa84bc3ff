"""Which presentation contexts are accepted, and from whom."""

from __future__ import annotations

import pytest
from pynetdicom.presentation import build_context, negotiate_as_acceptor

from ich_node.config import PeerSettings
from ich_node.receive.negotiation import (
    TRANSFER_SYNTAXES,
    Accept,
    Negotiation,
    is_storage,
    known_storage_classes,
)
from ich_node.records.self_tests import SELF_TEST_AE_TITLE

CT, ENHANCED_CT, MR = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "2.1", "4"))
PRIVATE, VERIFICATION = "1.3.6.1.4.1.9999.1", "1.2.840.10008.1.1"
IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2"))


def accepted(uid: str, *syntaxes: str, accept: Accept = "all") -> str | None:
    """The transfer syntax that a proposal of one context ends with."""
    supported = Negotiation((), allow_any=True, accept=accept).contexts_for([uid])
    proposed = build_context(uid, list(syntaxes))
    proposed.context_id = 1
    (result,), _ = negotiate_as_acceptor([proposed], supported, None)
    return str(result.transfer_syntax[0]) if result.result == 0 else None


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_every_listed_syntax_is_accepted(syntax: str) -> None:
    assert accepted(CT, syntax) == syntax
    assert accepted(PRIVATE, syntax) == syntax


def test_the_list_holds_what_the_issue_names() -> None:
    names = " ".join(TRANSFER_SYNTAXES.values())
    for name in ("Explicit VR Little", "Implicit VR Little", "RLE", "Baseline", "Extended", "(Process 14)", "SV1",
                 "JPEG-LS Lossless", "JPEG-LS Lossy", "JPEG 2000", "High-Throughput JPEG 2000"):  # fmt: skip
        assert name in names
    assert "Deflated" not in names
    assert "Big Endian" not in names


@pytest.mark.parametrize("uid", [CT, MR, PRIVATE])
def test_deflated_is_never_accepted_though_it_is_proposed_first(uid: str) -> None:
    assert accepted(uid, DEFLATED, EXPLICIT) == EXPLICIT
    assert accepted(uid, DEFLATED, IMPLICIT) == IMPLICIT
    assert accepted(uid, DEFLATED) is None
    assert accepted(uid, BIG_ENDIAN) is None


@pytest.mark.parametrize("uid", known_storage_classes())
def test_every_storage_class_is_accepted(uid: str) -> None:
    assert accepted(uid, IMPLICIT) == IMPLICIT


@pytest.mark.parametrize("uid", [PRIVATE, "1.2.840.113619.4.30", "1.2.840.10008.5.1.4.1.1.9999", "2.25.123"])
def test_private_and_unknown_classes_are_taken_for_storage(uid: str) -> None:
    assert is_storage(uid)


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.31", "1.2.840.10008.1.20.1"])
def test_services_that_are_not_ours_are_not_accepted(uid: str) -> None:
    assert accepted(uid, IMPLICIT) is None


def test_the_node_can_be_narrowed_to_ct() -> None:
    assert accepted(CT, EXPLICIT, accept="ct") == EXPLICIT
    assert accepted(ENHANCED_CT, EXPLICIT, accept="ct") == EXPLICIT
    assert accepted(MR, EXPLICIT, accept="ct") is None
    assert accepted(PRIVATE, EXPLICIT, accept="ct") is None
    assert accepted(VERIFICATION, IMPLICIT, accept="ct") == IMPLICIT


def test_a_peer_needs_both_its_title_and_its_address() -> None:
    negotiation = Negotiation([PeerSettings(ae_title="CT1", address="10.1.0.0/16")], allow_any=False, accept="all")
    assert negotiation.admits("CT1", "10.1.2.3")
    assert not negotiation.admits("CT1", "10.2.2.3")
    assert not negotiation.admits("CT2", "10.1.2.3")
    assert negotiation.knows("CT1")
    assert not negotiation.knows("CT2")


@pytest.mark.parametrize(
    ("address", "may"),
    [("127.0.0.1", True), ("::1", True), ("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("10.1.2.4", False)],
)
def test_the_ae_title_of_the_self_test_is_for_this_machine_alone(address: str, may: bool) -> None:
    everybody = PeerSettings(ae_title="CT1", address="0.0.0.0/0")
    open_to_all = Negotiation([everybody], allow_any=True, accept="all", own_addresses=["10.1.2.3"])
    assert open_to_all.admits(SELF_TEST_AE_TITLE, address) is may
    assert open_to_all.admits("CT1", address)
