"""A PACS that is asked for an archive: studies of some days, and how `score-archive` is told to ask for them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pynetdicom import AE, build_context, evt

from ich_node.archive_scoring.from_pacs import PacsRequest
from ich_node.archive_scoring.pace import Politeness
from ich_node.archive_scoring.retrieving import PacsAccess
from ich_node.association import Patience
from ich_node.phantom import LESIONS, write_series
from ich_node.query_retrieve import STUDY_ROOT_FIND, STUDY_ROOT_MOVE
from ich_node.records import Destination
from tests.archives import HEAD
from tests.orthanc import Orthanc
from tests.running import free_port, listens, wait_for

DCMQRSCP = "/usr/bin/dcmqrscp"
AE_TITLE = "ICH_ARCHIVE"
QUICK = Politeness(per_hour=1_000_000, first_rest_s=0.2, longest_rest_s=0.5, give_up_s=60)
PATIENCE = Patience(connect_s=2.0, response_s=10.0)


@dataclass
class Archive:
    """An Orthanc that knows us as a move destination, and what lies in it."""

    folder: Path
    orthanc: Orthanc = field(default_factory=lambda: Orthanc(words=("--verbose",)))
    port: int = field(default_factory=free_port)
    """Ours."""
    ids: dict[str, list[str]] = field(default_factory=dict)
    """Orthanc's names of the images of each study."""

    @contextmanager
    def running(self, **configuration: Any) -> Iterator[Archive]:
        us = {"us": [AE_TITLE, "127.0.0.1", self.port]}
        self.folder.mkdir(exist_ok=True)
        values = {"DicomModalities": us, "ConcurrentJobs": 1} | configuration
        with self.orthanc.running(self.folder, **values):
            yield self

    def add(self, number: int, day: date, hour: int = 12, slices: int = 12, **changes: Any) -> str:
        """Put a study into it; give its UID. ``changes`` are of every header."""
        uid, at = f"1.2.5.{number}", datetime(day.year, day.month, day.day, hour, number % 60).astimezone()
        head = replace(
            HEAD, lesion=(None, *LESIONS)[number % 6], seed=number, study_instance_uid=uid,
            series_instance_uid=f"{uid}.1", uid_seed=uid, acquired_at=at, patient_id=f"P{number}",
        )  # fmt: skip
        paths = write_series(self.folder / "files" / str(number), head)
        for path in paths[slices:]:
            path.unlink()
        for path in paths[:slices] if changes else ():
            dataset = dcmread(path)
            for keyword, value in changes.items():
                setattr(dataset, keyword, value)
            dataset.save_as(path)
        self.put(uid, paths[:slices])
        return uid

    def put(self, uid: str, paths: Sequence[Path]) -> None:
        self.ids[uid] = [self.orthanc.ask("/instances", path.read_bytes())["ID"] for path in paths]

    def files_of(self, number: int) -> list[Path]:
        return sorted((self.folder / "files" / str(number)).iterdir())

    def moves(self) -> list[str]:
        """Give the Series Instance UID of each C-MOVE that it was asked for."""
        names = re.findall(r"Sending resource (\S+) to modality", self._log())
        return [self.orthanc.ask(f"/series/{one}")["MainDicomTags"]["SeriesInstanceUID"] for one in names]

    def queries(self) -> int:
        """Count the C-FINDs that it was asked."""
        return self._log().count("Incoming Find request")

    def _log(self) -> str:
        return (self.folder / "orthanc.log").read_text(errors="replace")

    @property
    def destination(self) -> Destination:
        return Destination("query", "PACS", "127.0.0.1", self.orthanc.dicom_port)

    def request(self, first: date, last: date | None = None, **changes: Any) -> PacsRequest:
        access = PacsAccess(self.destination, AE_TITLE, self.port, PATIENCE, PATIENCE)
        return replace(PacsRequest(access, first, last or first, politeness=QUICK), **changes)

    def words(self, folder: Path, bundle: Path, *more: str) -> list[str]:
        """Words of `score-archive` for it, with a configuration in a folder."""
        config = folder / "ich-node.toml"
        config.write_text(config_text(folder, self.orthanc.dicom_port))
        return [
            "score-archive", "pacs://PACS", "--scores", str(folder / "scores.parquet"), "--port", str(self.port),
            "--config", str(config), "--model", str(bundle), "--engine", "torch", "--test-model", *more,
        ]  # fmt: skip


def config_text(folder: Path, pacs_port: int, ae_title: str = "PACS") -> str:
    return f"""
[node]
bind = "127.0.0.1"
state_directory = {json.dumps(str(folder / "state"))}
[receiver]
reserve_mib = 0
[[peer]]
ae_title = "CT1"
address = "127.9.9.9"
[query]
ae_title = "{ae_title}"
host = "127.0.0.1"
port = {pacs_port}
"""


def write_head(folder: Path, number: int, day: date) -> list[Path]:
    """Write a study of a day to a folder."""
    uid, at = f"1.2.5.{number}", datetime(day.year, day.month, day.day, 12).astimezone()
    head = replace(HEAD, seed=number, study_instance_uid=uid, series_instance_uid=f"{uid}.1", acquired_at=at)
    return write_series(folder, head)


@contextmanager
def dcmqrscp(folder: Path, knows: int | None) -> Iterator[int]:
    """Run dcmtk's archive with an empty storage; give its port.

    Args:
        knows: port under which it knows us as a move destination; None: it does not.
    """
    port = free_port()
    us = f"us = ({AE_TITLE}, 127.0.0.1, {knows})" if knows else ""
    (folder / "storage").mkdir()
    config = folder / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\nHostTable BEGIN\n{us}\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nPACS {folder}/storage RW (200, 1024mb) ANY\nAETable END\n"
    )
    with (folder / "dcmqrscp.log").open("wb") as log:
        process = subprocess.Popen([DCMQRSCP, "-c", str(config)], stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: listens(port), "dcmqrscp is up")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@dataclass
class ScriptedPacs:
    """A PACS of one series whose C-MOVEs go as a script says, one word for each: ``whole`` when it is at its end."""

    images: list[Path]
    port_to: int
    script: list[int | str] = field(default_factory=list)
    """A status in which a move ends after nothing, ``abort`` in the middle, or ``short``: without the last image."""
    moves: int = 0

    @contextmanager
    def running(self) -> Iterator[int]:
        """Give its port."""
        entity = AE(ae_title="PACS")
        entity.add_supported_context(STUDY_ROOT_FIND)
        entity.add_supported_context(STUDY_ROOT_MOVE)
        entity.requested_contexts = [build_context(dcmread(self.images[0]).SOPClassUID)]
        handlers: list[Any] = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_MOVE, self._move)]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield server.server_address[1]
        finally:
            for association in server.active_associations:
                association.abort()
            server.shutdown()

    def _find(self, _event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        answer = Dataset()
        first = dcmread(self.images[0])
        answer.StudyInstanceUID, answer.ModalitiesInStudy, answer.Modality = first.StudyInstanceUID, "CT", "CT"
        answer.SeriesInstanceUID, answer.NumberOfSeriesRelatedInstances = first.SeriesInstanceUID, len(self.images)
        yield 0xFF00, answer

    def _move(self, event: evt.Event) -> Iterator[Any]:
        self.moves += 1
        word = self.script.pop(0) if self.script else "whole"
        sent = self.images[:-1] if word == "short" else self.images
        yield "127.0.0.1", self.port_to, {"ae_title": AE_TITLE}
        yield len(sent)
        if isinstance(word, int):
            yield word, None
            return
        for number, path in enumerate(sent):
            if word == "abort" and number == 3:
                event.assoc.abort()
                return
            yield 0xFF00, dcmread(path)
