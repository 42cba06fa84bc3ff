"""Who may associate, and which presentation contexts are accepted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final, Literal

from pynetdicom import build_context
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from ich_node.association import VERIFICATION
from ich_node.config import PeerSettings
from ich_node.config.values import parse_ip
from ich_node.records import ANALYSED_SOP_CLASSES, PeerCertificate
from ich_node.records.self_tests import SELF_TEST_AE_TITLE

TRANSFER_SYNTAXES: Final = {
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 SV1)",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless, Non-Hierarchical (Process 14)",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Lossy (Near-Lossless)",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 (Lossless Only)",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000 (Lossless Only)",
    "1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000 with RPCL Options (Lossless Only)",
    "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE Lossless",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline (Process 1)",
    "1.2.840.10008.1.2.4.51": "JPEG Extended (Processes 2 and 4)",
}
"""What we take, by preference. Never deflated: a megabyte on the wire may become gigabytes (PS3.5 A.5)."""

_ONLY_UNCOMPRESSED: Final = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
_STORAGE_SERVICE_CLASS_UID: Final = "1.2.840.10008.4.2"

Accept = Literal["all", "ct"]


def known_storage_classes() -> list[str]:
    """Storage SOP Classes that are accepted by name."""
    return sorted(str(context.abstract_syntax) for context in AllStoragePresentationContexts)


class Negotiation:
    """Decide on associations."""

    def __init__(
        self, peers: Sequence[PeerSettings], *, allow_any: bool, accept: Accept, own_addresses: Sequence[str] = ()
    ) -> None:
        self._own_addresses = frozenset(own_addresses)
        self._peers = tuple(peers)
        self._allow_any = allow_any
        self._accept = accept

    def admits(self, calling_ae_title: str, remote_address: str, certificate: PeerCertificate | None = None) -> bool:
        """Say whether this peer may associate: on the allow-list, or everybody may.

        Nobody may under the AE title of a peer that is bound to a certificate without showing it, and under that of
        the node's own test nobody but this machine.
        """
        if calling_ae_title == SELF_TEST_AE_TITLE:
            return is_of_this_machine(remote_address, self._own_addresses)
        bound = any(peer.ae_title == calling_ae_title and peer.certificate for peer in self._peers)
        if self._allow_any and not bound:
            return True
        return any(
            peer.matches(calling_ae_title, remote_address) and peer.is_shown_by(certificate) for peer in self._peers
        )

    def asks_for_a_certificate(self, calling_ae_title: str, remote_address: str) -> bool:
        """Say whether this peer is on the allow-list, and lacks only its certificate where it is not admitted."""
        return any(peer.matches(calling_ae_title, remote_address) for peer in self._peers)

    def knows(self, calling_ae_title: str) -> bool:
        """Say whether the AE title alone is known."""
        return self._allow_any or any(peer.ae_title == calling_ae_title for peer in self._peers)

    def contexts_for(self, proposed: Sequence[str]) -> list[PresentationContext]:
        """List the contexts to accept from what a peer proposes, with our transfer syntaxes only."""
        wanted = dict.fromkeys(uid for uid in proposed if self._is_accepted_storage(uid))
        return [_context_of(VERIFICATION), *map(_context_of, wanted)]

    def _is_accepted_storage(self, uid: str) -> bool:
        return uid in ANALYSED_SOP_CLASSES if self._accept == "ct" else is_storage(uid)


def is_of_this_machine(remote_address: str, own_addresses: Collection[str]) -> bool:
    """Say whether somebody calls from the machine that is called: by loopback, or by the address it listens on."""
    address = parse_ip(remote_address)
    return address.is_loopback or str(address) in own_addresses


@lru_cache(maxsize=1024)
def _context_of(uid: str) -> PresentationContext:
    """Build what we offer for one class, once: for the 120 of a usual request that took 30 ms, each time.

    pynetdicom only reads it.
    """
    return build_context(uid, _ONLY_UNCOMPRESSED if uid == VERIFICATION else list(TRANSFER_SYNTAXES))


def is_storage(uid: str) -> bool:
    """Take a class for storage that is one, or that no known service claims: private ones, and newer than we are."""
    return uid_to_service_class(uid) in (StorageServiceClass, ServiceClass)


def serve_as_storage(event: Event) -> dict[str, SOPClassCommonExtendedNegotiation]:
    """Have classes that pynetdicom does not know served as storage, in this association only (PS3.7 D.3.3.6)."""
    items = {}
    for context in event.assoc.requestor.requested_contexts:
        uid = str(context.abstract_syntax)
        if uid_to_service_class(uid) is ServiceClass:
            item = SOPClassCommonExtendedNegotiation()
            item.sop_class_uid = uid
            item.service_class_uid = _STORAGE_SERVICE_CLASS_UID
            items[uid] = item
    return items
