"""The sections of the configuration that say how people and systems answer an alert."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from ich_node.config.values import Address, Host, Port, PositiveSeconds, Section, is_in_any

_PUBLIC_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._/-]*)?")
_VIEWER_URL = re.compile(r"https?://[!-~]{1,500}")
_VIEWER_NAMES = {"study_instance_uid", "accession_number", "patient_id"}
_LONGEST_PUBLIC_URL = 100
"""Characters: an HL7 ST holds 199, and path and token of a link take 80."""


def _public_url(value: str) -> str:
    if value and not (_PUBLIC_URL.fullmatch(value) and len(value) <= _LONGEST_PUBLIC_URL):
        raise ValueError(
            f"must be http:// or https://, a host and perhaps a path, of at most {_LONGEST_PUBLIC_URL} characters"
        )
    return value.rstrip("/")


def _viewer_url(value: str) -> str:
    names = set(re.findall(r"{([^{}]*)}", value))
    if value and not (_VIEWER_URL.fullmatch(value) and names and names <= _VIEWER_NAMES):
        known = ", ".join(f"{{{name}}}" for name in sorted(_VIEWER_NAMES))
        raise ValueError(f"must be http:// or https:// with one of {known}")
    return value


class WebSettings(Section):
    """``[web]``: the pages of the node."""

    enabled: bool = False
    bind: Host = "127.0.0.1"
    port: Port = 8080
    public_url: Annotated[str, AfterValidator(_public_url)] = ""
    certificate: str = ""
    key: str = ""
    trusted_proxies: Annotated[tuple[Address, ...], Field(strict=False)] = ()
    session_idle_min: Annotated[float, Field(ge=1, le=1440)] = 60
    session_h: Annotated[float, Field(gt=0, le=168)] = 12
    viewer_url: Annotated[str, AfterValidator(_viewer_url)] = ""
    metrics_from: Annotated[tuple[Address, ...], Field(strict=False)] = ("127.0.0.1", "::1")

    @model_validator(mode="after")
    def _has_both_halves(self) -> WebSettings:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key go together")
        return self

    @property
    def certificate_files(self) -> tuple[Path, Path] | None:
        """Certificate and key; None without TLS of our own."""
        return (Path(self.certificate), Path(self.key)) if self.certificate else None

    def lets_measure(self, remote_address: str) -> bool:
        """Say whether the metrics may be read from there without a token."""
        return is_in_any(remote_address, self.metrics_from)

    def trusts_proxy(self, remote_address: str) -> bool:
        """Say whether what comes from there says truly for whom it asks."""
        return is_in_any(remote_address, self.trusted_proxies)


class AlertAnswersSettings(Section):
    """``[alert_answers]``: HL7 messages that acknowledge alerts."""

    enabled: bool = False
    bind: Host = "0.0.0.0"  # noqa: S104 - an interface engine is another machine; addresses are on an allow-list
    port: Port = 2576
    addresses: Annotated[tuple[Address, ...], Field(strict=False)] = ()
    idle_timeout_s: PositiveSeconds = 60

    @model_validator(mode="after")
    def _lets_somebody_answer(self) -> AlertAnswersSettings:
        if self.enabled and not self.addresses:
            raise ValueError("addresses: nobody may answer; name the interface engine's address or network")
        return self

    def allows(self, remote_address: str) -> bool:
        """Say whether answers are taken from there."""
        return is_in_any(remote_address, self.addresses)
