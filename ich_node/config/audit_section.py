"""The section of the configuration that says where the audit trail goes."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, model_validator

from ich_node.config.values import Days, Port, Section, is_host


def _host_or_none(value: str) -> str:
    if value and not is_host(value):
        raise ValueError("must be a host name or an IP address, or empty")
    return value


class AuditSettings(Section):
    """``[audit]``: who did what, kept on disk and sent by syslog over TLS."""

    enabled: bool = True
    host: Annotated[str, AfterValidator(_host_or_none)] = ""
    port: Port = 6514
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    keep_days: Days = 365

    @model_validator(mode="after")
    def _has_both_halves(self) -> AuditSettings:
        if bool(self.client_certificate) != bool(self.client_key):
            raise ValueError("client_certificate and client_key go together")
        return self
