"""E-mail over SMTP with STARTTLS (RFC 5321, RFC 3207)."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Final

from ich_node.alert.message import AlertMessage
from ich_node.alert.patience import ChannelPatience
from ich_node.alert.templates import MAIL_TEMPLATE, render
from ich_node.errors import AlertRefused, ChannelUnavailable

_SUBJECTS: Final = {
    "preliminary": "ICH node: PRELIMINARY, a study is {outcome}",
    "final": "ICH node: a study is {outcome}",
    "correction": "ICH node: CORRECTION, a study is {outcome}",
    "withdrawn": "ICH node: WITHDRAWN, read the study",
    "condition": "ICH node: needs a person",
    "resolved": "ICH node: what needed a person has ended",
    "test": "ICH node: TEST of the alert channel",
}


@dataclass(frozen=True, slots=True)
class MailChannel:
    """Tells people by e-mail. There is never patient data in the subject, in the text only where switched on."""

    host: str
    port: int
    sender: str
    recipients: tuple[str, ...]
    patience: ChannelPatience
    starttls: bool = True
    ca_file: Path | None = None
    user: str = ""
    password: str = ""
    phi: bool = False
    template: Path | None = None

    def tell(self, message: AlertMessage) -> str:
        """Hand one message to the mail server; a repeat has the same Message-ID.

        Returns:
            What the server answered.

        Raises:
            ChannelUnavailable: no connection, no answer in time, or a 4yz reply; also where STARTTLS is not offered.
            AlertRefused: a 5yz reply.
        """
        mail = self.mail(message)
        try:
            with smtplib.SMTP(self.host, self.port, timeout=self.patience.connect_s) as server:
                assert server.sock is not None, "it is connected"
                server.sock.settimeout(self.patience.response_s)
                if self.starttls:
                    server.starttls(context=ssl.create_default_context(cafile=self.ca_file))
                if self.user:
                    server.login(self.user, self.password)
                refused = server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            _refused(min(code for code, _ in error.recipients.values()))
        except smtplib.SMTPResponseException as error:
            _refused(error.smtp_code)
        except (smtplib.SMTPException, OSError) as error:
            raise ChannelUnavailable(f"no answer ({type(error).__name__})") from None
        return "taken" + (f", but not for {len(refused)} of the recipients" if refused else "")

    def mail(self, message: AlertMessage) -> EmailMessage:
        """Give the message as it is sent."""
        mail = EmailMessage()
        subject = _SUBJECTS[message.kind].format(outcome=message.outcome.replace("_", " "))
        mail["Subject"] = f"TEST MODEL: {subject}" if message.test_model else subject
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.recipients)
        mail["Date"] = format_datetime(message.created_at)
        mail["Message-ID"] = f"<{message.identifier}@{self.sender.rpartition('@')[2]}>"
        if message.urgent:
            mail["Importance"] = "high"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(render(self.template, MAIL_TEMPLATE, "text", message, self.names))
        return mail

    @property
    def names(self) -> dict[str, str]:
        """What a template may name of the channel."""
        return {"phi": "yes" if self.phi else ""}


def _refused(code: int) -> None:
    if 500 <= code <= 599:
        raise AlertRefused(f"SMTP {code}")
    raise ChannelUnavailable(f"SMTP {code}")
