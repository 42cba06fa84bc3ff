"""Bad input and bad surroundings: a clear status or error, nothing lost, nothing half-written, and it goes on."""

from __future__ import annotations

import os
import random
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless

from ich_node.config import parse_config
from ich_node.database import open_database, prepare_database
from ich_node.errors import StartError
from ich_node.receive import Receiver
from ich_node.receive.spool import split_file
from tests.ct_series import as_file, ct_slice
from tests.fuzz.wire import ASSOCIATE_RQ, P_DATA, pdu
from tests.integration.receiving import (
    CT,
    Running,
    association,
    encoded,
    files_in,
    needs_dcmtk,
    running,
    send,
    store_bytes,
)
from tests.running import NodeProcesses, as_toml, settings, storescu, wait_for

ROOT = Path(__file__).parents[2]
SUCCESS, NO_ROOM, NO_MATCH, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One receiver for all of this: what it refused before must not matter."""
    with running(tmp_path_factory.mktemp("state")) as node:
        yield node


@pytest.fixture(autouse=True)
def it_goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """After whatever was sent: nothing of it is on disk, and a good object is stored."""
    yield
    if "node" in request.fixturenames:
        node: Running = request.getfixturevalue("node")
        before = node.files()
        number = 1000 + len(before)
        assert send(node.port, ct_slice(number)) == [SUCCESS]
        assert len(node.files()) == len(before) + 1
        assert len(node.files()) == len(node.instances())


def refused(node: Running, content: bytes | None, status: int, **how: Any) -> None:
    before = node.files()
    with association(node.port) as to:
        assert store_bytes(to, content, **how) == status
        assert to.is_established
    assert node.files() == before


# ------------------------------------------------------------------------------------------------ objects


@pytest.mark.parametrize(
    "value", ["../../../../tmp/evil", "/etc/passwd", "1.2/../3", "1.2\\3", "evil", "1" * 65, "..\0..", "1.2 .3"]
)
@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")  # pydicom's, of these
def test_uids_that_are_none_are_refused_wherever_they_lead(node: Running, keyword: str, value: str) -> None:
    outside = beside_the_spool(node)
    content = encoded(ct_slice(1, **{keyword: value}))
    refused(node, content, NO_MATCH)
    if keyword == "SOPInstanceUID" and value.isprintable():
        refused(node, content, NO_MATCH, instance_uid=value)  # the command set says the same
    assert beside_the_spool(node) == outside


def beside_the_spool(node: Running) -> set[Path]:
    """Everything that lies near, but images and the audit trail, whose names are the node's."""
    ours = {"spool", "audit"}
    return {path for path in node.state.parent.rglob("*") if not ours & set(path.parts)}


def test_a_data_set_of_another_name_than_its_command_is_refused(node: Running) -> None:
    refused(node, encoded(ct_slice(1)), NO_MATCH, instance_uid="1.2.3.4")
    refused(node, encoded(ct_slice(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.4")), NO_MATCH)


def test_pixels_that_are_too_short_are_refused(node: Running) -> None:
    refused(node, encoded(ct_slice(1, PixelData=b"\0" * 510)), NOT_UNDERSTOOD)


def test_fragments_without_their_end_are_refused(node: Running) -> None:
    ds = ct_slice(1)
    ds.PixelData = encapsulate([b"\1\2" * 100])
    ds["PixelData"].is_undefined_length, ds["PixelData"].VR = True, "OB"
    whole = encoded(ds)
    before = node.files()
    with association(node.port, (CT, [JPEGLSLossless])) as to:
        assert store_bytes(to, whole[:-8]) == NOT_UNDERSTOOD
        assert store_bytes(to, whole[:-100]) == NOT_UNDERSTOOD
        assert node.files() == before
        assert store_bytes(to, whole) == SUCCESS


@pytest.mark.parametrize(
    "content", [b"not DICOM", b"%PDF-1.7 " * 1000, b"\0" * 4096, b"\xff" * 4096, os.urandom(4096), as_file(ct_slice(1))]
)
def test_what_is_no_data_set_is_refused(node: Running, content: bytes) -> None:
    with association(node.port) as to:
        assert store_bytes(to, content) in (NOT_UNDERSTOOD, NO_MATCH)


def test_a_command_without_a_data_set_is_refused(node: Running) -> None:
    before = node.files()
    with association(node.port) as to:
        assert store_bytes(to, None) != SUCCESS
    assert node.files() == before


def test_a_real_object_cut_anywhere_is_never_answered_success(node: Running, shared_data: Path) -> None:
    path = min((shared_data / "ge-head-tilted").rglob("*.dcm"))
    syntax, content = split_file(path.read_bytes())
    whole, uid = bytes(content), str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
    chance = random.Random(4)
    before = node.files()
    with association(node.port, (CT, [syntax])) as to:
        for length in [0, *(chance.randrange(1, 6000) for _ in range(100)),
                       *(chance.randrange(len(whole)) for _ in range(100)), len(whole) - 2]:  # fmt: skip
            status = store_bytes(to, whole[:length] or None, instance_uid=uid)
            assert status is not None, length
            assert status != SUCCESS, length
        assert node.files() == before
        assert store_bytes(to, whole, instance_uid=uid) == SUCCESS


def test_a_small_object_cut_at_every_place_is_never_answered_success(node: Running) -> None:
    whole = encoded(ct_slice(1))
    before = node.files()
    with association(node.port) as to:
        for length in range(1, len(whole), 7):
            assert store_bytes(to, whole[:length]) not in (SUCCESS, None), length
    assert node.files() == before


def test_other_faults_of_form_are_accepted(node: Running) -> None:
    odd = ct_slice(5000, PatientBirthDate="yesterday", PatientName="N" * 200, SpecificCharacterSet="KLINGON")
    with association(node.port) as to:
        assert store_bytes(to, encoded(odd), instance_uid=str(odd.SOPInstanceUID)) == SUCCESS


# ---------------------------------------------------------------------------------------------- connections


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,  # TLS ClientHello
        os.urandom(500),
        b"\x01\x00\xff\xff\xff\xff" + b"\0" * 100,  # A-ASSOCIATE-RQ of 4 GiB
        pdu(P_DATA, bytes(10)),  # P-DATA without an association
        pdu(ASSOCIATE_RQ, b"\0\1\0\0"),  # A-ASSOCIATE-RQ that ends too soon
    ],
)
def test_a_connection_that_speaks_no_dicom_disturbs_nobody(node: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(sent)


def test_an_association_cut_inside_an_object_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        with association(node.port) as to:
            wait_for(lambda: node.receiver._active_associations(), "the association is open")
            connection = to.dul.socket.socket
            connection.sendall(pdu(P_DATA, bytes(1000), 100_000))
            connection.shutdown(socket.SHUT_RDWR)
            to.kill()
            connection.close()
        wait_for(lambda: not node.receiver._active_associations(), "the association is over")
        assert node.files() == []
        assert send(node.port, ct_slice(1)) == [SUCCESS]


# ---------------------------------------------------------------------------------------- full, locked, dead


def test_a_disk_filled_up_to_its_reserve_takes_nothing_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path, receiver={"reserve_mib": 10**9}) as node:
        assert send(node.port, ct_slice(1)) == [NO_ROOM]
        assert (node.files(), node.instances()) == ([], [])


def test_a_disk_that_is_full_leaves_no_partial_file(tmp_path: Path) -> None:
    """Writing more than 1.5 MB fails (RLIMIT_FSIZE) for a while, in a receiver of its own process."""
    big = ct_slice(1, Rows=1024, Columns=1024, PixelData=b"\1\0" * 1024 * 1024)
    with NodeProcesses(tmp_path, settings(tmp_path / "state", tmp_path), roles=("receive",)) as node:
        assert send(node.port, ct_slice(2)) == [SUCCESS]
        receiver = node.processes["receive"].pid
        before = resource.prlimit(receiver, resource.RLIMIT_FSIZE)
        resource.prlimit(receiver, resource.RLIMIT_FSIZE, (1_500_000, before[1]))
        assert send(node.port, big) == [NO_ROOM]
        assert send(node.port, ct_slice(3)) == [SUCCESS]
        assert len(files_in(tmp_path / "state")) == 2
        resource.prlimit(receiver, resource.RLIMIT_FSIZE, before)
        assert send(node.port, big) == [SUCCESS]
        assert len(files_in(tmp_path / "state")) == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None or subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mounted)], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("mounting a small disk needs root")
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def test_a_small_disk_that_fills_up_refuses_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    pixels = {"Rows": 200, "Columns": 200, "PixelData": b"\1\0" * 40_000}
    with running(small_disk / "state") as node:
        statuses = send(node.port, *(ct_slice(number, **pixels) for number in range(60)))
        assert set(statuses) == {SUCCESS, NO_ROOM}
        tiny = send(node.port, *(ct_slice(number) for number in range(100, 200)))
        assert set(tiny) <= {SUCCESS, NO_ROOM}, {hex(one or 0) for one in tiny}
        stored = statuses.count(SUCCESS) + tiny.count(SUCCESS)
        assert len(node.files()) == len(node.instances()) == stored
        assert not [path for path in node.files() if path.suffix == ".part"]
        subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
        assert set(send(node.port, *(ct_slice(number, **pixels) for number in range(60)))) == {SUCCESS}
        assert len({row.sop_instance_uid for row in node.instances()}) == 60 + tiny.count(SUCCESS)


@needs_dcmtk
def test_a_database_locked_for_longer_than_we_wait_refuses_and_loses_nothing(tmp_path: Path) -> None:
    outgoing = tmp_path / "1.dcm"
    outgoing.write_bytes(as_file(ct_slice(1)))
    with running(tmp_path / "state", database={"busy_timeout_s": 1}) as node:
        other = sqlite3.connect(node.state / "ich-node.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        sent = storescu([outgoing], node.port, "-v")
        assert "0xa700" in (sent.stdout + sent.stderr).lower() or "Refused: OutOfResources" in sent.stdout + sent.stderr
        assert (node.files(), node.instances()) == ([], [])
        other.execute("ROLLBACK")
        other.close()
        assert storescu([outgoing], node.port).returncode == 0
        assert (len(node.files()), len(node.instances())) == (1, 1)


def test_a_release_while_the_database_is_locked_only_makes_the_series_wait_longer(tmp_path: Path) -> None:
    with running(tmp_path, database={"busy_timeout_s": 0.3}, series={"max_wait_s": 20}) as node:
        with association(node.port) as to:
            assert store_bytes(to, encoded(ct_slice(1))) == SUCCESS
            other = sqlite3.connect(node.state / "ich-node.sqlite", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
        wait_for(lambda: not node.receiver._active_associations(), "the association is over")
        other.close()
        assert node.series()[0].due_at == pytest.approx(node.series()[0].last_received_at + 20, abs=0.001)
        assert send(node.port, ct_slice(2)) == [SUCCESS]


def test_a_fault_of_ours_is_a_processing_failure_and_the_next_start_clears_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall(*_: object, **__: object) -> None:
        raise KeyError("nobody expected this")

    with running(tmp_path) as node:
        with monkeypatch.context() as patch:
            patch.setattr("ich_node.receive.scp.storing.register_instance", fall)
            assert send(node.port, ct_slice(1)) == [0x0110]
        assert node.instances() == []
        assert len(node.files()) == 1, "kept: nobody knows whether the row was written"
        assert send(node.port, ct_slice(1)) == [SUCCESS]
    with running(tmp_path) as node:
        assert (len(node.files()), len(node.instances())) == (1, 1)


# ---------------------------------------------------------------------------------------------------- starting


def start_of(values: dict[str, Any], folder: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """Run the real command where it cannot start."""
    path = folder / "node.toml"
    path.write_text(as_toml(values))
    path.chmod(0o644)
    command = [*before, sys.executable, "-m", "ich_node", "receive", "--config", str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        values = settings(tmp_path / "state", tmp_path) | {
            "node": {"bind": "127.0.0.1", "port": port, "state_directory": str(tmp_path / "state")}
        }
        ended = start_of(values, tmp_path)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"ich-node: cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.mark.slow
def test_an_address_that_is_not_ours_is_named(tmp_path: Path) -> None:
    values = settings(tmp_path / "state", tmp_path)
    values["node"]["bind"] = "203.0.113.7"
    ended = start_of(values, tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("ich-node: cannot listen on 203.0.113.7:")


def test_a_state_folder_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = start_of(settings(tmp_path / "file" / "state", tmp_path), tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == (f"ich-node: the state folder {tmp_path}/file/state cannot be written: Not a directory\n")


@pytest.mark.parametrize("ready_made", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_state_folder_that_belongs_to_another_is_named(ready_made: bool) -> None:
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("becoming nobody needs root and setpriv")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        state = folder / "state"
        if ready_made:
            config = parse_config(settings(state, folder))
            database = open_database(config.database_url)
            prepare_database(database, state)
            database.close()
            state.chmod(0o755)
        nobody = (setpriv, "--reuid=65534", "--regid=65534", "--clear-groups")
        if subprocess.run(
            [*nobody, sys.executable, "-c", "import pydicom"], capture_output=True, check=False
        ).returncode:
            pytest.skip("nobody may not read this Python")
        ended = start_of(settings(state, folder), folder, *nobody)
    assert ended.returncode == 1
    assert ended.stderr.startswith("ich-node: ")
    assert len(ended.stderr.splitlines()) == 1
    assert "state folder" in ended.stderr or "readonly database" in ended.stderr


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/ich-node.sqlite").write_bytes(b"\xa5" * 8192)
    ended = start_of(settings(tmp_path / "state", tmp_path), tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("ich-node: the database")
    assert "file is not a database" in ended.stderr


@pytest.mark.slow
def test_a_newer_database_is_named(tmp_path: Path) -> None:
    with running(tmp_path / "state") as node, node.database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    ended = start_of(settings(tmp_path / "state", tmp_path), tmp_path)
    assert ended.returncode == 1
    assert "schema 9999, which is newer than this program" in ended.stderr


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * 200, as_file(ct_slice(1))[:300], b"\0" * 128 + b"DICM"])
def test_a_file_without_a_row_that_is_no_object_does_not_stop_the_start(tmp_path: Path, content: bytes) -> None:
    with running(tmp_path):
        pass
    (tmp_path / "spool/00/stray.dcm").write_bytes(content)
    config = parse_config(settings(tmp_path, tmp_path))
    database = open_database(config.database_url)
    receiver = Receiver(config, database)
    receiver.start()
    assert send(receiver.port, ct_slice(1)) == [SUCCESS]
    receiver.stop()
    database.close()
    assert (tmp_path / "spool/00/stray.dcm").read_bytes() == content


def test_a_receiver_cannot_take_the_port_of_another_in_the_same_machine(tmp_path: Path) -> None:
    with running(tmp_path / "a") as node:
        values = settings(tmp_path / "b", tmp_path)
        values["node"]["port"] = node.port
        config = parse_config(values)
        database = open_database(config.database_url)
        prepare_database(database, config.state_directory)
        with pytest.raises(StartError, match="Address already in use; is another node running"):
            Receiver(config, database).start()
        database.close()
