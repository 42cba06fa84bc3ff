"""Who is let in, and with which presentation contexts."""

from __future__ import annotations

import socket
from typing import Final, cast

from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE

from ich_node.audit import AuditTrail
from ich_node.config import Config
from ich_node.config.values import parse_ip
from ich_node.log import EventLog
from ich_node.receive.association_request import AssociationRequest
from ich_node.receive.commitment_reports import CommitmentReports
from ich_node.receive.negotiation import Negotiation
from ich_node.records import PeerCertificate
from ich_node.records.self_tests import SELF_TEST_AE_TITLE
from ich_node.repeats import Repeats
from ich_node.tls import peer_certificate

_REJECTED_PERMANENT, _BY_USER = 1, 1
_NO_REASON: Final = 1
_CALLING_AE_TITLE_NOT_RECOGNISED: Final = 3

log = EventLog("receive")


def addresses_of(bind: str) -> list[str]:
    """Give the addresses that the receiver listens on by name; none where it listens on all."""
    try:
        found = {str(parse_ip(str(one[4][0]))) for one in socket.getaddrinfo(bind, None)}
    except (OSError, ValueError):  # to listen there fails likewise, and says why
        return []
    return sorted(one for one in found if not parse_ip(one).is_unspecified)


class Entrance:
    """Admits those on the allow-list, under the certificates that belong to them, and the receiver's own check.

    Args:
        own_calling_ae_title: under which the check calls.
    """

    def __init__(
        self, config: Config, commitments: CommitmentReports, own_calling_ae_title: str, trail: AuditTrail
    ) -> None:
        receiver = config.receiver
        self._negotiation = Negotiation(
            config.peer, allow_any=receiver.allow_any, accept=receiver.accept,
            own_addresses=addresses_of(config.node.bind),
        )  # fmt: skip
        self._commitments = commitments
        self._ae_title = config.node.ae_title
        self._own_calling_ae_title = own_calling_ae_title
        self.trail = trail
        self.repeats = Repeats()
        """What is told of refused associations; the listeners tell theirs likewise."""

    def knows(self, asked: AssociationRequest, address: str, certificate: PeerCertificate | None) -> bool:
        """Say whether a request will be accepted."""
        if asked.calling_ae_title == self._own_calling_ae_title:
            return True
        named = asked.called_ae_title == self._ae_title
        return named and self._negotiation.admits(asked.calling_ae_title, address, certificate)

    def on_requested(self, event: Event) -> None:
        """Reject who is not on the allow-list, or shows not its certificate; offer our contexts to the others."""
        request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        calling, address = request.calling_ae_title.strip(), event.assoc.requestor.address
        if calling == self._own_calling_ae_title:
            event.assoc.acceptor.supported_contexts = self._negotiation.contexts_for([])
            return
        wrapped = event.assoc.dul.socket
        certificate = peer_certificate(None if wrapped is None else wrapped.socket)
        if not self._negotiation.admits(calling, address, certificate):
            reason = self._why_refused(request, address, certificate)
            event.assoc.acse.send_reject(_REJECTED_PERMANENT, _BY_USER, reason)
            event.assoc.kill()
            return
        proposed = [str(context.abstract_syntax) for context in request.presentation_context_definition_list or ()]
        contexts = self._negotiation.contexts_for(proposed) + self._commitments.contexts_for(calling, proposed)
        event.assoc.acceptor.supported_contexts = contexts

    def _why_refused(self, request: A_ASSOCIATE, address: str, certificate: PeerCertificate | None) -> int:
        """Log a refusal; give the reason for the A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        known = self._negotiation.knows(calling)
        if calling == SELF_TEST_AE_TITLE:
            if times := self.repeats.count("self-test from elsewhere", address):
                log.warning("association refused: the node's own AE title", address=address, times=times)
            self.trail.refused(address, "association refused: the node's own AE title", calling, called)
            return _CALLING_AE_TITLE_NOT_RECOGNISED
        if self._negotiation.asks_for_a_certificate(calling, address):
            shown = "none" if certificate is None else certificate.sha256
            if times := self.repeats.count("another certificate", address):
                log.warning("association refused: its certificate does not belong to its AE title", address=address,
                            calling_ae_title=calling, certificate=shown, times=times)  # fmt: skip
            self.trail.refused(address, "association refused: another certificate", calling, called)
            return _CALLING_AE_TITLE_NOT_RECOGNISED
        if times := self.repeats.count("association refused", address):
            log.warning("association refused", address=address, calling_ae_title=calling, ae_title_known=known,
                        times=times)  # fmt: skip
        self.trail.refused(address, "association refused: not on the allow-list", calling, called)
        return _NO_REASON if known else _CALLING_AE_TITLE_NOT_RECOGNISED

    def on_rejected(self, event: Event) -> None:
        """Record that an association was rejected for what pynetdicom looks at: it called somebody else."""
        request, address = cast(A_ASSOCIATE, event.assoc.requestor.primitive), event.assoc.requestor.address
        called = request.called_ae_title.strip()
        self.trail.refused(address, "association refused: not the called AE title", request.calling_ae_title, called)
