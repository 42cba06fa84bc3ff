"""A receiver on a real socket, and senders that do what no toolkit would."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from ich_node.config import Config, parse_config
from ich_node.database import Database, InstanceRow, SeriesRow, open_database, prepare_database
from ich_node.receive import Receiver
from tests.ct_series import ct_slice, encoded
from tests.running import settings
from tests.unit.queueing import rows

CT = "1.2.840.10008.5.1.4.1.1.2"
ECHOSCU = Path("/usr/bin/echoscu")
needs_dcmtk = pytest.mark.skipif(not ECHOSCU.exists(), reason="dcmtk (echoscu, storescu) is absent")


@dataclass
class Running:
    """A receiver in this process, and what it has stored."""

    config: Config
    database: Database
    receiver: Receiver

    @property
    def port(self) -> int:
        return self.receiver.port

    @property
    def state(self) -> Path:
        return self.config.state_directory

    def instances(self) -> list[Any]:
        return rows(self.database, InstanceRow)

    def series(self) -> list[Any]:
        return rows(self.database, SeriesRow)

    def files(self) -> list[Path]:
        return files_in(self.state)

    def stored(self) -> list[bytes]:
        """The data sets in the spool, without preamble and file meta."""
        return [data_set_of(path) for path in self.files()]


@contextmanager
def running(state: Path, **sections: Any) -> Iterator[Running]:
    """Run a receiver; sections as in ``tests.running.settings``."""
    config = parse_config(settings(state, Path("no-model"), **sections))
    database = open_database(config.database_url, config.database.busy_timeout_s)
    prepare_database(database, config.state_directory)
    receiver = Receiver(config, database)
    receiver.start()
    try:
        yield Running(config, database, receiver)
    finally:
        receiver.stop(drain_s=2.0)
        database.close()


def files_in(state: Path) -> list[Path]:
    """Every file of a spool, half-written ones too."""
    return sorted(path for path in (state / "spool").rglob("*") if path.is_file())


def data_set_of(path: Path) -> bytes:
    """A stored file without its head, by the rules of PS3.10 and not by our own code."""
    content = path.read_bytes()
    assert content[:132] == b"\0" * 128 + b"DICM"
    return content[144 + int.from_bytes(content[140:144], "little") :]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def association(
    port: int,
    *contexts: tuple[str, list[str]],
    host: str = "127.0.0.1",
    called: str = "ICH_NODE",
    calling: str = "TEST",
) -> Iterator[Association]:
    """An association that proposes contexts of class and syntaxes; CT in explicit little endian by default."""
    entity = AE(ae_title=calling)
    entity.connection_timeout = entity.acse_timeout = 30
    entity.dimse_timeout = 60  # a node waits 30 s for its database before it answers
    for uid, syntaxes in contexts or ((CT, [ExplicitVRLittleEndian]),):
        entity.add_requested_context(uid, syntaxes)
    established = entity.associate(host, port, ae_title=called)
    connection = established.dul.socket.socket if established.is_established else None
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield established
    finally:
        if established.is_established:
            established.release()
        if connection is not None:  # where the other side vanished, the toolkit leaves our end open
            established.join(10)
            established.dul.join(10)
            connection.close()


def store_bytes(
    to: Association, content: bytes | None, class_uid: str = CT, instance_uid: str | None = None, number: int = 0
) -> int | None:
    """Send bytes as they are in one C-STORE; give the status, None where the association ended instead."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = class_uid
    request._affected_sop_instance_uid = UID(instance_uid or ct_slice(1).SOPInstanceUID)  # past the toolkit's checks
    request.DataSet = BytesIO(content) if content is not None else None
    to._reactor_checkpoint.clear()
    while to.is_established and not to._is_paused:  # or the toolkit's loop takes the response from under us
        time.sleep(0.0001)
    try:
        to.dimse.send_msg(request, to.accepted_contexts[number].context_id)
        _, response = to.dimse.get_msg(block=True)
    finally:
        to._reactor_checkpoint.set()
        while to.is_established and to._is_paused:  # or the next call takes this pause for its own
            time.sleep(0.0001)
    return None if response is None else int(response.Status)


def send(port: int, *data_sets: Dataset, syntax: str = ExplicitVRLittleEndian) -> list[int | None]:
    """Send data sets in one association; give their statuses."""
    classes = dict.fromkeys(str(ds.SOPClassUID) for ds in data_sets)
    with association(port, *((uid, [syntax]) for uid in classes)) as to:
        order = [str(context.abstract_syntax) for context in to.accepted_contexts]
        return [
            store_bytes(to, encoded(ds, syntax), ds.SOPClassUID, ds.SOPInstanceUID, order.index(ds.SOPClassUID))
            for ds in data_sets
        ]


def dcmtk(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of dcmtk; by its full path, since pynetdicom has scripts of the same names."""
    environment = os.environ | {"TCP_NODELAY": "1"}
    command = [f"/usr/bin/{program}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
