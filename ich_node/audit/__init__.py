"""The audit trail: who did what to whose images, as PS3.15 A.5 messages, kept on disk and sent by syslog over TLS."""

from ich_node.audit.events import Peer
from ich_node.audit.message import Outcome, Subject
from ich_node.audit.trail import AuditTrail, open_trail
from ich_node.audit.transfers import Transfers

__all__ = ["AuditTrail", "Outcome", "Peer", "Subject", "Transfers", "open_trail"]
