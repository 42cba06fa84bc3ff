"""What an alert says, and the channels that carry it: HL7 v2 over MLLP, signed JSON over HTTP, e-mail.

Every channel tells at least once, with the same identifier at every try, so that a receiver knows a repeat.
"""

from ich_node.alert.answer_server import AnswerServer
from ich_node.alert.hl7_answer import HL7Answer, HL7Reply
from ich_node.alert.hl7_channel import HL7Channel
from ich_node.alert.mail_channel import MailChannel
from ich_node.alert.message import (
    RESEARCH_USE,
    AlertMessage,
    findings_of,
    headline_of,
    message_of,
    message_of_node,
    message_of_test,
)
from ich_node.alert.patience import ChannelPatience
from ich_node.alert.templates import check_template
from ich_node.alert.webhook_channel import WebhookChannel

__all__ = [
    "RESEARCH_USE",
    "AlertMessage",
    "AnswerServer",
    "ChannelPatience",
    "HL7Answer",
    "HL7Channel",
    "HL7Reply",
    "MailChannel",
    "WebhookChannel",
    "check_template",
    "findings_of",
    "headline_of",
    "message_of",
    "message_of_node",
    "message_of_test",
]
