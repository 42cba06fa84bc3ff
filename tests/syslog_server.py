"""rsyslogd as a server of audit messages for tests: a process of its own, over TLS, on a free port."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from tests.running import free_port, listens, wait_for

RSYSLOGD = Path("/usr/sbin/rsyslogd")
_DRIVERS = [*Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so"), *Path("/usr/lib").glob("rsyslog/lmnsd_gtls.so")]
needs_rsyslog = pytest.mark.skipif(
    not (RSYSLOGD.exists() and _DRIVERS), reason="rsyslog with TLS (rsyslog, rsyslog-gnutls) is absent"
)

_CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriver="gtls"
       defaultNetstreamDriverCAFile="{folder}/ca.pem" defaultNetstreamDriverCertFile="{folder}/server.pem"
       defaultNetstreamDriverKeyFile="{folder}/server.key")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="{mode}")
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="as-it-came" type="string" string="%rawmsg%\\n")
action(type="omfile" file="{received}" template="as-it-came" ioBufferSize="64k" flushOnTXEnd="on")
"""


@dataclass
class SyslogServerProcess:
    """rsyslogd; what it receives is a message a line, in a file of each start.

    Where it is killed while it writes, the last line of that file may be a piece (it writes 64 KiB at a time, whatever
    ends there): in one file for all, the next message would stand in the same line.
    """

    folder: Path
    mutual: bool = True
    port: int = field(default_factory=free_port)
    authority: trustme.CA = field(default_factory=trustme.CA)
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        server = self.authority.issue_cert("localhost")
        server.private_key_pem.write_to_path(str(self.folder / "server.key"))
        server.cert_chain_pems[0].write_to_path(str(self.folder / "server.pem"))
        client = self.authority.issue_cert("ich-node.example")
        client.private_key_pem.write_to_path(str(self.folder / "client.key"))
        (self.folder / "client.key").chmod(0o600)
        client.cert_chain_pems[0].write_to_path(str(self.folder / "client.pem"))

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def section(self) -> dict[str, object]:
        """``[audit]`` of a node that sends here."""
        files = {"client_certificate": "client.pem", "client_key": "client.key", "ca_file": "ca.pem"}
        return {"host": "localhost", "port": self.port} | {key: str(self.folder / name) for key, name in files.items()}

    def start(self) -> None:
        self.starts += 1
        mode = "x509/certvalid" if self.mutual else "anon"
        received = self._received_at(self.starts)
        text = _CONFIGURATION.format(folder=self.folder, port=self.port, mode=mode, received=received)
        (self.folder / "rsyslog.conf").write_text(text)
        command = [str(RSYSLOGD), "-n", "-f", str(self.folder / "rsyslog.conf"), "-i", str(self.folder / "pid")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"LC_ALL": "C"})
        wait_for(lambda: listens(self.port), "rsyslogd listens", 30)

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def __enter__(self) -> SyslogServerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def received(self) -> list[bytes]:
        """Every message so far, in the order in which it came."""
        paths = [self._received_at(start) for start in range(1, self.starts + 1)]
        return [line for path in paths if path.exists() for line in path.read_bytes().splitlines()]

    def _received_at(self, start: int) -> Path:
        return self.folder / f"received.{start}"
