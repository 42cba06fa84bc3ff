"""Receiving over real sockets: who is let in, what is accepted, and what lies in the spool afterwards."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE

from ich_node.database import OpenAssociationRow, ResultRow
from ich_node.job_queue import register_instance
from ich_node.receive.negotiation import TRANSFER_SYNTAXES, known_storage_classes
from ich_node.receive.scp import storing
from ich_node.receive.scp.storing import Storing
from tests.ct_series import as_file, ct_slice
from tests.integration.receiving import (
    CT,
    Running,
    association,
    data_set_of,
    dcmtk,
    encoded,
    needs_dcmtk,
    running,
    send,
    sha256,
    store_bytes,
)
from tests.running import storescu, wait_for
from tests.unit.queueing import rows

MR, SR, PRIVATE = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.33", "1.3.6.1.4.1.9999.7"
DEFLATED = "1.2.840.10008.1.2.1.99"
PEER = {"ae_title": "CT1", "address": "127.0.0.1"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as node:
        yield node


# ------------------------------------------------------------------------------------------ who is let in


@needs_dcmtk
def test_an_echo_is_answered(node: Running) -> None:
    assert dcmtk("echoscu", "-aec", "ICH_NODE", "127.0.0.1", str(node.port)).returncode == 0


@needs_dcmtk
def test_a_wrong_called_ae_title_is_rejected_by_that_reason(node: Running) -> None:
    ended = dcmtk("echoscu", "-v", "-aec", "SOMEBODY", "127.0.0.1", str(node.port))
    assert ended.returncode != 0
    assert "Called AE Title Not Recognized" in ended.stdout + ended.stderr


@needs_dcmtk
def test_a_calling_ae_title_that_is_not_on_the_list_is_rejected_by_that_reason(tmp_path: Path) -> None:
    with running(tmp_path, receiver={"allow_any": False}, peer=[PEER]) as node:
        refused = dcmtk("echoscu", "-v", "-aet", "OTHER", "-aec", "ICH_NODE", "127.0.0.1", str(node.port))
        let_in = dcmtk("echoscu", "-v", "-aet", "CT1", "-aec", "ICH_NODE", "127.0.0.1", str(node.port))
    assert "Calling AE Title Not Recognized" in refused.stdout + refused.stderr
    assert let_in.returncode == 0


@needs_dcmtk
def test_an_address_that_is_not_on_the_list_is_rejected(tmp_path: Path) -> None:
    with running(tmp_path, receiver={"allow_any": False}, peer=[PEER | {"address": "10.0.0.0/8"}]) as node:
        refused = dcmtk("echoscu", "-v", "-aet", "CT1", "-aec", "ICH_NODE", "127.0.0.1", str(node.port))
    assert refused.returncode != 0
    assert "Rejected Permanent" in refused.stdout + refused.stderr


def test_a_rejected_peer_stores_nothing(tmp_path: Path) -> None:
    with running(tmp_path, receiver={"allow_any": False}, peer=[PEER]) as node:
        with association(node.port, calling="OTHER") as to:
            assert to.is_rejected
        with association(node.port, calling="CT1") as to:
            assert store_bytes(to, encoded(ct_slice(1))) == 0
        assert len(node.files()) == 1


def test_more_associations_than_allowed_are_told_to_try_again(tmp_path: Path) -> None:
    with (
        running(tmp_path, receiver={"maximum_associations": 2, "maximum_associations_per_address": 2}) as node,
        association(node.port),
        association(node.port),
        association(node.port) as third,
    ):
        assert third.is_rejected
        response = third.acceptor.primitive
        assert (response.result, response.result_source, response.diagnostic) == (2, 3, 2)


def test_the_longest_pdu_is_what_the_configuration_says(tmp_path: Path, node: Running) -> None:
    with association(node.port) as to:
        assert to.acceptor.maximum_length == 128 * 1024
    with running(tmp_path / "other", receiver={"maximum_pdu_kib": 16}) as other, association(other.port) as to:
        assert to.acceptor.maximum_length == 16 * 1024


# ----------------------------------------------------------------------------------------- what is accepted


def test_every_storage_class_is_accepted_with_every_syntax(node: Running) -> None:
    classes = known_storage_classes()
    for start in range(0, len(classes), 100):
        wanted = [(uid, [random.Random(uid).choice(list(TRANSFER_SYNTAXES))]) for uid in classes[start : start + 100]]
        with association(node.port, *wanted) as to:
            assert len(to.accepted_contexts) == len(wanted)


@pytest.mark.parametrize("uid", [MR, PRIVATE, "2.25.1234", "1.2.840.10008.5.1.4.1.1.9999"])
def test_objects_of_other_classes_are_stored_and_not_decoded(node: Running, uid: str) -> None:
    assert send(node.port, ct_slice(1, SOPClassUID=uid)) == [0]
    assert [(row.sop_class_uid, row.state) for row in node.instances()] == [(uid, "NOT_NEEDED")]


@pytest.mark.parametrize("uid", [CT, PRIVATE])
def test_deflated_proposed_first_gives_way_to_the_next_syntax(node: Running, uid: str) -> None:
    entity = AE()
    entity.add_requested_context(uid, [DEFLATED, ImplicitVRLittleEndian])
    entity.add_requested_context("1.2.3.4", [DEFLATED])
    to = entity.associate("127.0.0.1", node.port, ae_title="ICH_NODE")
    assert [str(one.transfer_syntax[0]) for one in to.accepted_contexts] == [ImplicitVRLittleEndian]
    assert [str(one.abstract_syntax) for one in to.rejected_contexts] == ["1.2.3.4"]
    ds = ct_slice(1, SOPClassUID=uid)
    assert store_bytes(to, encoded(ds, ImplicitVRLittleEndian), uid) == 0
    to.release()
    assert node.stored() == [encoded(ds, ImplicitVRLittleEndian)]


def test_a_node_narrowed_to_ct_accepts_nothing_else(tmp_path: Path) -> None:
    with (
        running(tmp_path, receiver={"accept": "ct"}) as node,
        association(node.port, (CT, [ExplicitVRLittleEndian]), (MR, [ExplicitVRLittleEndian])) as to,
    ):
        assert [str(one.abstract_syntax) for one in to.accepted_contexts] == [CT]


# ------------------------------------------------------------------------------------------ what is stored


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_data_set_is_stored_byte_for_byte_below_a_head_of_ours(node: Running, syntax: str) -> None:
    ds = ct_slice(1, PatientName="Größe^Jane", SpecificCharacterSet="ISO_IR 192")
    content = encoded(ds, syntax)
    assert send(node.port, ds, syntax=syntax) == [0]
    (path,) = node.files()
    assert data_set_of(path) == content
    meta = pydicom.dcmread(path).file_meta
    assert (meta.TransferSyntaxUID, meta.SourceApplicationEntityTitle) == (syntax, "TEST")
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, ds.SOPInstanceUID)
    (row,) = node.instances()
    assert (row.sha256, row.size_bytes) == (sha256(content), len(content))
    assert node.state / row.path == path


def test_nothing_of_an_object_is_in_the_name_of_its_file(node: Running) -> None:
    send(node.port, ct_slice(1, SOPInstanceUID="1.2.3.4.5"), ct_slice(1, SOPInstanceUID="1.2.3.4.6"))
    assert not [path for path in node.files() if "1.2.3" in str(path.relative_to(node.state))]
    assert len({path.name for path in node.files()}) == 2


@needs_dcmtk
def test_what_dcmtk_sends_is_stored_byte_for_byte(node: Running, tmp_path: Path) -> None:
    folder = tmp_path / "outgoing"
    folder.mkdir()
    for number in range(1, 6):
        (folder / f"{number}.dcm").write_bytes(as_file(ct_slice(number)))
    assert storescu([folder], node.port).returncode == 0
    assert sorted(node.stored()) == sorted(data_set_of(path) for path in folder.iterdir())


def test_the_same_bytes_again_are_answered_success_and_stored_once(node: Running) -> None:
    assert send(node.port, ct_slice(1)) == [0]
    wait_for(lambda: node.series()[0].due_at < node.series()[0].last_received_at + 0.9, "the release is noted")
    before = node.instances(), node.series(), node.files()
    assert send(node.port, ct_slice(1), ct_slice(1)) == [0, 0]
    assert (node.instances(), node.series(), node.files()) == before


def test_an_image_that_comes_again_while_its_series_is_new_is_stored_once(node: Running) -> None:
    assert send(node.port, ct_slice(1), ct_slice(1), ct_slice(2), ct_slice(1)) == [0, 0, 0, 0]
    assert len(node.instances()) == len(node.files()) == 2
    assert len(node.series()) == 1


def test_the_same_object_with_other_bytes_is_another_version(node: Running) -> None:
    assert send(node.port, ct_slice(1), ct_slice(1, PatientID="PID0002")) == [0, 0]
    assert [row.current for row in node.instances()] == [False, True]
    assert len(node.files()) == 2


def test_an_object_that_this_node_made_is_answered_success_and_starts_nothing(node: Running) -> None:
    send(node.port, ct_slice(1))
    with node.database.writing() as connection:
        values = {"study_id": 1, "revision": 1, "kind": "SR", "encoding": "x", "preference": 0, "sop_class_uid": SR,
                  "sop_instance_uid": "2.25.77", "sha256": "x", "created_at": 0.0}  # fmt: skip
        connection.execute(ResultRow.__table__.insert().values(values))
    wait_for(lambda: not rows(node.database, OpenAssociationRow), "the release is noted")
    before = node.instances(), node.series(), node.files()
    own = ct_slice(9, SOPClassUID=SR, SOPInstanceUID="2.25.77", SeriesInstanceUID="2.25.78", PixelData=None, Rows=None)
    assert send(node.port, own, own) == [0, 0]
    assert (node.instances(), node.series(), node.files()) == before
    assert rows(node.database, ResultRow)[0].returned_count == 2


def test_a_sender_that_is_cut_while_its_object_is_stored_leaves_nothing_open(
    node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = threading.Event()
    closed = Storing.on_closed

    def register(*positional: Any, **named: Any) -> Any:
        cut.wait(30)
        return register_instance(*positional, **named)

    def on_closed(of_node: Storing, event: Any) -> None:
        closed(of_node, event)
        cut.set()

    monkeypatch.setattr(storing, "register_instance", register)
    monkeypatch.setattr(Storing, "on_closed", on_closed)
    node.receiver.stop(0.0)
    with running(node.config.state_directory) as again:
        with association(again.port) as to:
            to.dimse_timeout = 2.0  # it waits for its answer for so long, though it has ended the association
            thread = threading.Thread(target=store_bytes, args=(to, encoded(ct_slice(1))))
            thread.start()
            wait_for(lambda: again.receiver._storing._sending, "it is being stored")
            to.abort()
            thread.join(30)
        wait_for(lambda: again.instances(), "it is stored")
        wait_for(lambda: not rows(again.database, OpenAssociationRow), "its lease is gone")
        assert not again.receiver._storing._sending
        assert not again.receiver._storing._transfers._open


# -------------------------------------------------------------------------------------- when a series is due


def wait_s(node: Running) -> float:
    (row,) = node.series()
    return float(row.due_at - row.last_received_at)


def test_a_release_lets_the_series_close_after_the_quiet_time(tmp_path: Path) -> None:
    with running(tmp_path, series={"quiet_s": 3, "max_wait_s": 20}) as node:
        with association(node.port) as to:
            store_bytes(to, encoded(ct_slice(1)))
            assert wait_s(node) == pytest.approx(20)
        wait_for(lambda: wait_s(node) == pytest.approx(3), "the release is noted")


def test_an_abort_lets_the_series_wait_as_long_as_it_may(tmp_path: Path) -> None:
    with running(tmp_path, series={"quiet_s": 3, "max_wait_s": 20}) as node:
        with association(node.port) as to:
            store_bytes(to, encoded(ct_slice(1)))
            to.abort()
        wait_for(lambda: not rows(node.database, OpenAssociationRow), "the abort is noted")
        assert wait_s(node) == pytest.approx(20)


def test_a_series_that_another_association_still_sends_is_not_released(tmp_path: Path) -> None:
    with running(tmp_path, series={"quiet_s": 3, "max_wait_s": 20}) as node:
        with association(node.port) as first:
            store_bytes(first, encoded(ct_slice(1)))
            with association(node.port) as second:
                store_bytes(second, encoded(ct_slice(2)), instance_uid=str(ct_slice(2).SOPInstanceUID))
            wait_for(lambda: len(rows(node.database, OpenAssociationRow)) == 1, "the second release is noted")
            assert wait_s(node) == pytest.approx(20)
        wait_for(lambda: wait_s(node) == pytest.approx(3), "the first release is noted")


def test_slices_in_an_association_each_make_one_series(node: Running) -> None:
    numbers = list(range(1, 13))
    random.Random(1).shuffle(numbers)
    for number in numbers:
        assert send(node.port, ct_slice(number)) == [0]
    assert len(node.series()) == 1
    assert len(node.files()) == 12


# --------------------------------------------------------------------------------------------------- ending


def test_a_receiver_that_stops_lets_an_open_association_finish(tmp_path: Path) -> None:
    with running(tmp_path) as node, association(node.port) as to:
        stopping = threading.Thread(target=node.receiver.stop, args=(20.0,))
        stopping.start()
        wait_for(lambda: not node.receiver.alive, "the listener has stopped")
        assert store_bytes(to, encoded(ct_slice(1))) == 0
        to.release()
        stopping.join(20)
        assert not stopping.is_alive()
        assert len(node.files()) == 1
