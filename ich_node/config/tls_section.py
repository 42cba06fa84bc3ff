"""The section of the configuration that says how TLS is done, and what the other sections need of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, model_validator

from ich_node.config.values import Section
from ich_node.credentials import is_credential, secret_path_or_name
from ich_node.records import TlsFiles


class TlsSettings(Section):
    """``[tls]``: DICOM over TLS, in and out."""

    certificate: str = ""
    key: str = ""
    ca_file: str = ""
    crl_file: str = ""
    port: Annotated[int, Field(ge=0, le=65535)] = 2762
    require_client_certificate: bool = True
    plain_port_open: bool = False

    @model_validator(mode="after")
    def _is_whole(self) -> TlsSettings:
        given = [bool(one) for one in (self.certificate, self.key, self.ca_file)]
        if any(given) != all(given) or (self.crl_file and not any(given)):
            raise ValueError("certificate, key and ca_file go together")
        if any(given) and not self.port and not self.plain_port_open:
            raise ValueError("port = 0 needs plain_port_open = true, or nobody could send")
        return self

    @property
    def files(self) -> TlsFiles | None:
        """Certificate, key and whom we trust; None without TLS."""
        if not self.certificate:
            return None
        named = (self.certificate, self.key, self.ca_file, *filter(None, [self.crl_file]))
        return TlsFiles(*map(secret_path_or_name, named))

    @property
    def files_of_the_receiver(self) -> TlsFiles | None:
        """The same; None also where the receiver takes no TLS."""
        return self.files if self.port else None

    @property
    def is_elsewhere(self) -> bool:
        """Say whether files are a unit's credentials and this process has none."""
        return self.files is not None and any(is_credential(path) for path in self.files.paths)

    @property
    def plain_is_open(self) -> bool:
        """Say whether ``node.port`` takes plain DICOM: where there is no TLS, and where the site wants both."""
        return not self.certificate or self.plain_port_open


def faults_without_tls(values: dict[str, Any]) -> Iterator[str]:
    """Name what asks for TLS, or for a certificate, where ``[tls]`` gives none. Looks at raw values."""
    tls = values.get("tls")
    tls = tls if isinstance(tls, dict) else {}
    needs = "needs [tls] with certificate, key and ca_file"
    query = values.get("query")
    for name, table in (("query", query), *_numbered(values, "destination"), *_numbered(values, "peer")):
        for key in ("tls", "return_tls"):
            if isinstance(table, dict) and table.get(key) is True and not tls.get("certificate"):
                yield f"{name}.{key} = true: {needs}"
        if isinstance(table, dict) and table.get("tls_name") is not None and table.get("tls") is not True:
            yield f"{name}.tls_name: needs tls = true"
    for name, peer in _numbered(values, "peer"):
        if peer.get("certificate") is not None and (not tls.get("certificate") or tls.get("port") == 0):
            yield f"{name}.certificate: {needs}, and a port: without TLS nobody shows a certificate"
        if peer.get("return_tls") is True and peer.get("return_port") is None:
            yield f"{name}.return_tls = true: needs return_port"
    node = values.get("node")
    port = (node if isinstance(node, dict) else {}).get("port", 11112)
    if tls.get("certificate") and tls.get("plain_port_open") is True and tls.get("port", 2762) == port:
        yield f"tls.port = {port}: must differ from node.port, where that stays open"


def _numbered(values: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    tables = values.get(name)
    for number, table in enumerate(tables if isinstance(tables, list) else []):
        if isinstance(table, dict):
            yield f"{name}.{number}", table
