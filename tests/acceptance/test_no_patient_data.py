"""No patient data in logs, process lists, temporary files or the database: canaries through every path."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from ich_node.phantom import PhantomSettings
from ich_node.phantom.series import make_series
from tests.alert_peers import listener, mail_server
from tests.canaries import EVERY, HEADER, any_of, found_in, found_in_files, found_in_processes, put_into
from tests.ct_series import ct_slice
from tests.integration.receiving import association, encoded, send, store_bytes
from tests.integration.test_alert_answers import END, VT, message
from tests.running import NodeProcesses, free_port, leaks_a_socket, settings, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
_NUMBER = "1.2345678901"
"""Stands for a canary of the same length until the data set is encoded."""
KEPT = ("state/spool/", "state/results/", "state/audit/")
"""Where patient data is by design: images, reports, and the trail."""


def head() -> list[Dataset]:
    """A head CT that is analysed, with canaries in its headers."""
    phantom = PhantomSettings(lesion="subdural", slices=24, rows=64, slice_spacing_mm=5.5)
    return [put_into(ds) for ds in make_series(phantom)]


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    value = HEADER["PatientName"]
    for text in (value, value.upper(), base64.b64encode(f"x{value}".encode()).decode(), value.encode().hex()):
        (tmp_path / "log").write_text(f'{{"why": "{text}"}}')
        assert found_in_files(tmp_path) == {"log": {"PatientName"}}
    assert found_in(b"nothing") == set()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", value])
    try:
        assert found_in_processes([os.getpid()]) == {f"{child.pid}/cmdline": {"PatientName"}}
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def node(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[NodeProcesses, Any]]:
    """A whole node whose PACS is away, at DEBUG, with every channel that is to tell nothing of patients."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 32)
    secret.chmod(0o600)
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": free_port()}
    outcomes = ["positive", "indeterminate", "negative", "not_analysed"]
    with listener("web", tmp_path, "204") as web_service, mail_server() as (mail_port, mailbox):
        sections: dict[str, Any] = {
            "query": pacs,
            "history": {"query": True},
            "alert": {"first_retry_s": 0.1, "longest_retry_s": 0.2, "connect_timeout_s": 2.0,
                      "response_timeout_s": 2.0},
            "alert_rule": [{"tell": ["hook", "mail", "ris"], "triage": outcomes}],
            "alert_hl7": [{"name": "ris", "host": "127.0.0.1", "port": free_port()}],
            "alert_webhook": [{"name": "hook", "url": f"http://127.0.0.1:{web_service.port}/",
                               "secret_file": str(secret)}],
            "alert_mail": [{"name": "mail", "host": "127.0.0.1", "port": mail_port, "starttls": False,
                            "sender": "node@example.org", "recipients": ["duty@example.org"]}],
            "alert_answers": {"enabled": True, "bind": "127.0.0.1", "port": free_port(), "addresses": ["127.0.0.0/8"]},
            "web": {"enabled": True, "port": free_port(), "public_url": "http://localhost:8080"},
        }  # fmt: skip
        values = settings(tmp_path / "state", tiny_bundle, destinations=[("pacs", pacs["port"])], **sections)
        values["node"]["log_level"] = "DEBUG"
        monkeypatch.setenv("TMPDIR", str(temporary))
        with NodeProcesses(tmp_path, values, roles=("receive", "work", "deliver", "web")) as node:
            yield node, (web_service, mailbox)


@leaks_a_socket
def test_canaries_that_go_every_way_are_found_only_where_patient_data_belongs(
    node: tuple[NodeProcesses, Any], tmp_path: Path
) -> None:
    running, (web_service, mailbox) = node
    seen: dict[str, set[str]] = {}
    pids = [process.pid for process in running.processes.values()]

    def look() -> None:
        seen.update(found_in_processes(pids))
        seen.update({f"tmp: {name}": found for name, found in found_in_files(tmp_path / "tmp").items()})

    slices = head()
    uid = str(slices[0].StudyInstanceUID)
    assert set(send(running.port, *slices)) == {0}
    look()
    send_what_is_refused(running.port)
    send_what_cannot_be_decoded(running.port)
    send_what_is_quarantined(running.port)
    speak_hl7(running.values["alert_answers"]["port"])
    browse(running.values["web"]["port"])
    wait_for(lambda: look() or any(one.revision for one in running.status(uid).studies), "a report", 300)
    wait_for(lambda: look() or (web_service.heard and mailbox.heard), "somebody was told", 120)
    wait_for(lambda: "delivery failed" in running.log("deliver").read_text(), "the PACS is away", 60)
    seen.update({name: found for name, text in measured(running).items() if (found := found_in(text))})
    run_commands(running, slices, tmp_path, look)
    time.sleep(1)
    look()
    channels = {"hook": repr(web_service.heard).encode(), "mail": repr(mailbox.heard).encode()}
    seen.update({name: found for name, text in channels.items() if (found := found_in(text))})
    seen.update(found_in_files(tmp_path, without=(*KEPT, "files/", "output/", "ich-node.toml")))
    assert not seen, any_of(seen)
    trail = b"".join(path.read_bytes() for path in (tmp_path / "state/audit").iterdir())
    assert found_in(trail) == {"PatientID"}, "the trail names patients by their number, and by nothing else"


def send_what_is_refused(port: int) -> None:
    whole = encoded(put_into(ct_slice(1)))
    with association(port) as to:
        assert store_bytes(to, whole[:-100]) != 0
        assert store_bytes(to, whole, instance_uid="2.25.4711") != 0
        assert store_bytes(to, encoded(put_into(ct_slice(1, SOPInstanceUID=EVERY["a UID that is none"])))) != 0
        assert store_bytes(to, encoded(put_into(ct_slice(1, StudyInstanceUID=EVERY["a UID that is none"])))) != 0
        assert store_bytes(to, b"\x10\0\x10\0PN\xff\xff" + HEADER["PatientName"].encode()) != 0
        assert store_bytes(to, None) != 0
    with association(port) as to:
        store_bytes(to, whole)
        to.abort()


def send_what_cannot_be_decoded(port: int) -> None:
    uids = {"StudyInstanceUID": "2.25.55", "SeriesInstanceUID": "2.25.55.1", "SOPInstanceUID": "2.25.55.1.1"}
    broken = put_into(ct_slice(1, **uids))
    broken.PixelData = encapsulate([HEADER["PatientName"].encode() * 20])
    broken["PixelData"].is_undefined_length = True
    send(port, broken, syntax=JPEGLosslessSV1)
    uids = {"StudyInstanceUID": "2.25.56", "SeriesInstanceUID": "2.25.56.1", "SOPInstanceUID": "2.25.56.1.1"}
    numbers = {"RescaleSlope": _NUMBER, "SliceThickness": _NUMBER, "ImagePositionPatient": [_NUMBER, "0", "0"]}
    odd = encoded(put_into(ct_slice(1, **uids, PatientAge=HEADER["PatientID"], **numbers)))
    text = odd.replace(_NUMBER.encode(), HEADER["PatientID"].encode())
    with association(port) as to:
        assert store_bytes(to, text, instance_uid=uids["SOPInstanceUID"]) == 0


def send_what_is_quarantined(port: int) -> None:
    """Two patients in a series, and one image UID in two series."""
    same = {"StudyInstanceUID": "2.25.57", "SeriesInstanceUID": "2.25.57.1"}
    mixed = [put_into(ct_slice(n, **same, SOPInstanceUID=f"2.25.57.1.{n}")) for n in (1, 2)]
    mixed[1].PatientID += "B"
    send(port, *mixed)
    same["SeriesInstanceUID"] = "2.25.57.2"
    send(port, put_into(ct_slice(1, **same, SOPInstanceUID="2.25.57.1.1")))


def speak_hl7(port: int) -> None:
    text = message("ORU^R01", f"PID|||{EVERY['PID of an HL7 answer']}||{HEADER['PatientName']}", "MSA|AA|NOBODY",
                   f"OBX|1|TX|||{EVERY['OBX of an HL7 answer']}")  # fmt: skip
    for content in (VT + text.encode() + END, VT + EVERY["nonsense to the HL7 port"].encode() + END):
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            connection.sendall(content)
            connection.settimeout(10)
            with contextlib.suppress(OSError):
                connection.recv(4096)


def browse(port: int) -> None:
    path, token = EVERY["the path of a page"], EVERY["the token of a page"]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as browser:
        assert browser.get(f"/alerts/{path}", params={"token": token}).status_code == 404
        assert browser.post(f"/alerts/{path}", params={"token": token}, data={"name": token}).status_code == 404
        assert browser.get(f"/{path}?{token}").status_code == 404


def measured(node: NodeProcesses) -> dict[str, bytes]:
    """What a monitoring reads."""
    with httpx.Client(base_url=f"http://127.0.0.1:{node.values['web']['port']}") as monitoring:
        pages = {path: monitoring.get(path) for path in ("/metrics", "/readyz")}
    assert b"ich_node_" in pages["/metrics"].content
    return {path: page.content for path, page in pages.items()}


def run_commands(node: NodeProcesses, slices: list[Dataset], folder: Path, look: Any) -> None:
    """``score``, ``doctor``, ``status``: what they print, and what they leave behind."""
    files = folder / "files"
    files.mkdir()
    for number, ds in enumerate(slices):
        ds.save_as(files / f"{number}.dcm", enforce_file_format=True)
    (files / "cut.dcm").write_bytes((files / "0.dcm").read_bytes()[:-50])
    words = [["score", str(files), "--json", "--output", str(folder / "output")], ["doctor"], ["status"],
             ["status", "2.25.57"], ["requeue", "2.25.55"]]  # fmt: skip
    for number, command in enumerate(words):
        with (folder / f"command-{number}.said").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "ich_node", *command, "--config", str(node.config_path)],
                stdout=said, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[2],
            )  # fmt: skip
            while process.poll() is None:
                look()
                time.sleep(0.3)
