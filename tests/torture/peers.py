"""Who speaks with the node: a sender, a PACS and a RIS. Each notes what it was told, a JSON line at a time.

Their notes lie in one folder with one order, and no power cut of the node touches them.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socketserver
import threading
import time
from pathlib import Path
from typing import Any

import hl7
from pydicom import Dataset
from pynetdicom.association import Association

from tests.integration.receiving import association, store_bytes
from tests.torture.committing import CommittingPacs

BEGUN, ANSWERS, REPORTS, ALERTS = "begun.jsonl", "answers.jsonl", "reports.jsonl", "alerts.jsonl"
COMMITMENTS = "commitments.jsonl"
SEEN = "seen.jsonl"
"""Of the sender: what was no answer."""


class Notes:
    """A file that is only ever added to, a line in one write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, **fields: Any) -> None:
        os.write(self._file, (json.dumps(fields) + "\n").encode())


def read_notes(path: Path) -> list[dict[str, Any]]:
    """Read all lines that were noted."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# ------------------------------------------------------------------------------------------- sender


def send_until_answered(study: Path, port: int, witness: Path, host: str = "127.0.0.1") -> None:
    """Send the objects of a study until each was answered with success; again after every failure, as modalities do."""
    Notes(witness / BEGUN).add(study=study.name)
    answered = {one["uid"] for one in read_notes(witness / ANSWERS) if one["status"] == 0}
    notes, seen = Notes(witness / ANSWERS), Notes(witness / SEEN)
    waiting = [path for path in sorted(study.glob("*.ds")) if path.stem not in answered]
    while waiting:
        try:
            with association(port, host=host) as to:
                if to.is_established:
                    waiting, ended = _send(to, waiting, notes)
                else:
                    ended = "rejected" if to.is_rejected else "no association"
        except (OSError, RuntimeError, ValueError):  # the receiver is being killed
            ended = "cut"
        if ended:
            seen.add(at=time.time(), saw=ended)
        if waiting:
            time.sleep(0.02)


def _send(to: Association, waiting: list[Path], notes: Notes) -> tuple[list[Path], str]:
    left = list(waiting)
    for path in waiting:
        content = path.read_bytes()
        status = store_bytes(to, content, instance_uid=path.stem)
        if status is None:
            return left, "cut"
        notes.add(uid=path.stem, status=status, sha256=hashlib.sha256(content).hexdigest(), at=time.time())
        if status == 0:
            left.remove(path)
    return left, ""


# ------------------------------------------------------------------------------------- PACS and RIS


def take_what_comes(
    pacs_port: int,
    ris_port: int,
    node_port: int,
    witness: Path,
    *,
    bind: str = "127.0.0.1",
    node: str = "127.0.0.1",
    slow_s: float = 0.0,
) -> None:
    """Be the PACS and the RIS until a signal says stop.

    Args:
        node: where its receiver is reached.
        slow_s: so long the PACS takes from storing an object to its answer.
    """
    reports, alerts = Notes(witness / REPORTS), Notes(witness / ALERTS)
    held = {one["uid"] for one in read_notes(witness / REPORTS)}

    def on_stored(path: Path, dataset: Dataset) -> None:
        held.add(str(dataset.SOPInstanceUID))
        reports.add(
            uid=str(dataset.SOPInstanceUID),
            study=str(dataset.StudyInstanceUID),
            patient=str(dataset.PatientID),
            images=_images(dataset),
            sha256=_digest(dataset),
            modality=str(dataset.Modality),
        )
        time.sleep(slow_s)

    class Ris(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            received = b""
            while not received.endswith(b"\x1c\r"):
                part = self.request.recv(4096)
                if not part:
                    return
                received += part
            message = hl7.parse(received[1:-2].decode())
            identifier = str(message.segment("MSH")(10))
            alerts.add(identifier=identifier, patient=str(message.segment("PID")(3)).partition("^")[0])
            answer = f"MSH|^~\\&|RIS||ICH_NODE||20260101||ACK^R01|1|P|2.5.1\rMSA|AA|{identifier}\r"
            self.request.sendall(b"\x0b" + answer.encode() + b"\x1c\r")

    class RisServer(socketserver.ThreadingTCPServer):
        allow_reuse_address, daemon_threads = True, True

        def handle_error(self, *_: object) -> None:
            """Who speaks is killed now and then."""

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ris = RisServer((bind, ris_port), Ris)
    threading.Thread(target=ris.serve_forever, args=(0.1,), daemon=True).start()
    with CommittingPacs(
        witness / "pacs", port=pacs_port, bind=bind, on_stored=on_stored, node_host=node, node_port=node_port,
        holds=held.__contains__, note=Notes(witness / COMMITMENTS).add,
    ):  # fmt: skip
        Notes(witness / "ready").add(ready=True)
        stop.wait()
    ris.shutdown()


def _digest(dataset: Dataset) -> str:
    """Of all a report says: a repeat must be the same object, whatever way it was sent."""
    return hashlib.sha256(json.dumps(dataset.to_json_dict(), sort_keys=True).encode()).hexdigest()


def _images(dataset: Dataset) -> list[str]:
    """UIDs of the images that a report rests on (PS3.3 C.17.2.3)."""
    evidence = dataset.get("CurrentRequestedProcedureEvidenceSequence", [])
    return sorted(
        str(image.ReferencedSOPInstanceUID)
        for study in evidence
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    )
