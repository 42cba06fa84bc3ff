"""Signed JSON over HTTP."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from ich_node import __version__
from ich_node.alert.message import AlertMessage
from ich_node.alert.patience import ChannelPatience
from ich_node.errors import AlertRefused, ChannelUnavailable

_MAY_PASS: Final = frozenset((408, 409, 423, 425, 429))
_PHI: Final = (
    "patient_id", "issuer_of_patient_id", "patient_birth_date", "patient_sex", "accession_number",
    "issuer_of_accession_number", "study_instance_uid", "study_date", "study_time", "study_description",
    "placer_order_number", "filler_order_number", "report_sop_instance_uid",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """Tells a web service.

    The header ``X-ICH-Signature`` holds ``sha256=`` and the HMAC-SHA256 of ``<X-ICH-Timestamp>.<body>`` in hexadecimal:
    who receives it compares it in constant time and refuses timestamps that are minutes old.
    """

    url: str
    secret: bytes
    patience: ChannelPatience
    phi: bool = False
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None

    def tell(self, message: AlertMessage) -> str:
        """Post one alert; a repeat has the same ``Idempotency-Key``.

        Returns:
            What the receiver answered.

        Raises:
            ChannelUnavailable: no connection, no answer in time, a 5xx, or a status that may pass.
            AlertRefused: another 4xx, or a redirection, which is not followed.
        """
        body = json.dumps(self.content(message), ensure_ascii=False).encode()
        timeout = httpx.Timeout(self.patience.response_s, connect=self.patience.connect_s)
        try:
            with httpx.Client(verify=self._tls(), timeout=timeout, trust_env=False) as client:
                answer = client.post(self.url, content=body, headers=self._headers(message, body))
        except (httpx.HTTPError, OSError) as error:
            raise ChannelUnavailable(f"no answer ({type(error).__name__})") from None
        status = f"HTTP {answer.status_code}"
        if answer.is_success:
            return status
        if answer.status_code >= 500 or answer.status_code in _MAY_PASS:
            raise ChannelUnavailable(status)
        raise AlertRefused(status)

    def content(self, message: AlertMessage) -> dict[str, Any]:
        """Give what is sent; patient and study only where that is switched on."""
        said: dict[str, Any] = {
            "identifier": message.identifier,
            "first_identifier": message.first_identifier,
            "kind": message.kind,
            "result_status": message.result_status,
            "outcome": message.outcome,
            "told_before": message.told_before or None,
            "headline": message.headline,
            "urgent": message.urgent,
            "revision": message.revision,
            "created_at": message.created_at.isoformat(timespec="milliseconds"),
            "findings": {
                one.code: {"presence": one.presence, "probability": round(one.probability, 4)}
                for one in message.findings
            },
            "known_bleed": message.known_bleed,
            "prior": (message.prior if self.phi else message.prior_undated) or None,
            "notice": message.notice,
            "acknowledge_url": message.link or None,
        }
        if self.phi:
            name = message.patient_name
            said["patient_name"] = {"family": name.family, "given": name.given, "middle": name.middle}
            said |= {keyword: getattr(message, keyword) for keyword in _PHI}
        return said

    def _headers(self, message: AlertMessage, body: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        signed = hmac.new(self.secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/json",
            "User-Agent": f"ich-node/{__version__}",
            "Idempotency-Key": message.identifier,
            "X-ICH-Timestamp": timestamp,
            "X-ICH-Signature": f"sha256={signed}",
        }

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.client_certificate is not None:
            context.load_cert_chain(self.client_certificate, self.client_key)
        return context
