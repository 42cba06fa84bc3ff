"""Orthanc as a PACS for tests: a process of its own, asked through its REST API."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.running import free_port, wait_for

ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
needs_orthanc = pytest.mark.skipif(ORTHANC is None, reason="Orthanc is not installed")


@dataclass
class Orthanc:
    """An Orthanc and its ports."""

    dicom_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    words: tuple[str, ...] = ()
    """More words of its command, such as ``--verbose``."""

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Send bytes as they are and anything else as JSON; without a body it is a GET."""
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", content, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def find(self, sop_instance_uid: str) -> list[str]:
        """Give Orthanc's own names of a stored object."""
        query = {"Level": "Instance", "Query": {"SOPInstanceUID": sop_instance_uid}}
        return list(self.ask("/tools/find", query))

    def tags(self, sop_instance_uid: str) -> dict[str, Any]:
        """Give the tags of one stored object by keyword; empty where it never came."""
        found = self.find(sop_instance_uid)
        return dict(self.ask(f"/instances/{found[0]}/simplified-tags")) if found else {}

    def is_up(self) -> bool:
        try:
            return bool(self.ask("/system"))
        except OSError:
            return False

    @contextmanager
    def running(self, folder: Path, **configuration: Any) -> Iterator[Orthanc]:
        """Run it with its storage in a folder, as PACS unless the configuration says otherwise; more than once, too."""
        values = {
            "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"), "Plugins": [],
            "DicomAet": "PACS", "DicomPort": self.dicom_port, "HttpPort": self.http_port,
            "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False, "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
        }  # fmt: skip
        path = folder / "orthanc.json"
        path.write_text(json.dumps(values | configuration))
        with (folder / "orthanc.log").open("ab") as log:
            process = subprocess.Popen(
                [str(ORTHANC), *self.words, str(path)], stdout=log, stderr=log, env=os.environ | {"TCP_NODELAY": "1"}
            )
        try:
            wait_for(self.is_up, "Orthanc is up")
            yield self
        finally:
            process.terminate()
            process.wait()
