"""The same receivers with TLS, each with a certificate that the others trust."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trustme

from benchmarks.processes import free_port, running, running_role, wait_for_port
from benchmarks.receive import ORTHANC, STORESCP, Receiving, run_orthanc, run_storescp

_NODE = """\
[node]
bind = "127.0.0.1"
state_directory = "{state}"
[receiver]
allow_any = true
[tls]
certificate = "{certificate}"
key = "{key}"
ca_file = "{authority}"
port = {port}
"""
_PLAIN = """\
import ssl, sys
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification
port, certificate, key, authority = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.load_verify_locations(authority)
context.verify_mode = ssl.CERT_REQUIRED
entity = AE("ICH_NODE")
for uid in (CTImageStorage, Verification):
    entity.add_supported_context(uid)
handlers = [(evt.EVT_C_STORE, lambda event: 0x0000)]
entity.start_server(("127.0.0.1", int(port)), evt_handlers=handlers, ssl_context=context)
"""


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files of one certificate that all sides show, and of its authority."""

    certificate: Path
    key: Path
    authority: Path

    def for_callers(self) -> ssl.SSLContext:
        """Make the context of who connects."""
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and a certificate."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = Certificates(folder / "node.pem", folder / "node.key", folder / "authority.pem")
    issued.cert_chain_pems[0].write_to_path(files.certificate)
    issued.private_key_pem.write_to_path(files.key)
    files.key.chmod(0o600)
    authority.cert_pem.write_to_path(files.authority)
    return files


def tls_receivers(files: Certificates) -> dict[str, Callable[[Path], Iterator[Receiving]]]:
    """List the receivers that are here, by name; each is started in a folder."""
    found = {"ich-node": partial(_node, files), "pynetdicom": partial(_pynetdicom, files)}
    found |= {"storescp --fork": partial(_storescp, files)} if Path(STORESCP).exists() else {}
    found |= {"Orthanc": partial(_orthanc, files)} if Path(ORTHANC).exists() else {}
    return dict(found)


def _node(files: Certificates, folder: Path) -> Iterator[Receiving]:
    port, config = free_port(), folder / "ich-node.toml"
    names = {"certificate": files.certificate, "key": files.key, "authority": files.authority}
    config.write_text(_NODE.format(state=folder / "state", port=port, **names))
    (log := folder / "node.log").touch()
    with running_role("receive", config, log) as pid:
        yield Receiving(pid, port, folder / "state" / "spool")


def _pynetdicom(files: Certificates, folder: Path) -> Iterator[Receiving]:
    port = free_port()
    command = [sys.executable, "-c", _PLAIN, str(port), files.certificate, files.key, files.authority]
    with running(command, folder / "pynetdicom.log") as pid:
        wait_for_port(port)
        yield Receiving(pid, port, folder)


def _storescp(files: Certificates, folder: Path) -> Iterator[Receiving]:
    return run_storescp(folder, "+tls", files.key, files.certificate, "+cf", files.authority)


def _orthanc(files: Certificates, folder: Path) -> Iterator[Receiving]:
    return run_orthanc(
        folder, DicomTlsEnabled=True, DicomTlsCertificate=str(files.certificate), DicomTlsPrivateKey=str(files.key),
        DicomTlsTrustedCertificates=str(files.authority), DicomTlsRemoteCertificateRequired=True,
    )  # fmt: skip
