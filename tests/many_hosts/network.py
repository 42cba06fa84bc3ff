"""Hosts that are network namespaces on one switch (ip-netns(8)). Nothing of them can be reached from outside."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

IP = "/usr/sbin/ip"
_NETWORK = "10.77.0"


@dataclass(eq=False)
class Network:
    """A switch, in a namespace of its own, and hosts with a link to it."""

    hosts: dict[str, str] = field(default_factory=dict)
    """Addresses by name."""

    def __enter__(self) -> Self:
        if not Path(IP).exists():
            pytest.skip("ip is not installed (Debian: iproute2)")
        self._prefix = f"ich{os.getpid()}"
        made = _ip("netns", "add", self._switch, check=False)
        if made.returncode != 0:
            pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
        try:
            self._in(self._switch, "link", "add", "bridge0", "type", "bridge")
            self._in(self._switch, "link", "set", "bridge0", "up")
        except subprocess.CalledProcessError as error:
            _ip("netns", "delete", self._switch)
            pytest.skip(f"links between network namespaces are not allowed here: {error.stderr.strip()}")
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        for name in (*map(self.namespace, self.hosts), self._switch):
            _ip("netns", "delete", name, check=False)

    def namespace(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def add(self, host: str) -> str:
        """Add a host; give its address."""
        address, own = f"{_NETWORK}.{10 + len(self.hosts)}", self.namespace(host)
        self.hosts[host] = address
        _ip("netns", "add", own)
        _ip("link", "add", "name", host, "netns", self._switch, "type", "veth", "peer", "name", "eth0", "netns", own)
        self._in(self._switch, "link", "set", "dev", host, "master", "bridge0", "up")
        self._in(own, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            self._in(own, "link", "set", device, "up")
        return address

    def cut(self, host: str) -> None:
        """Take a host's link down: its packets go nowhere, and nobody is told."""
        self._in(self._switch, "link", "set", "dev", host, "down")

    def mend(self, host: str) -> None:
        """Bring a host's link up again."""
        self._in(self._switch, "link", "set", "dev", host, "up")

    @property
    def _switch(self) -> str:
        return f"{self._prefix}-switch"

    def _in(self, namespace: str, *words: str) -> None:
        _ip("-netns", namespace, *words)


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([IP, *words], check=check, capture_output=True, text=True, timeout=30)
