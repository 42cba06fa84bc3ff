"""The small PACS, over real sockets, with pynetdicom and dcmtk as peers."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association

from ich_node.pacs import (
    CANNOT_UNDERSTAND,
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    OUT_OF_RESOURCES,
    SUCCESS,
    SmallPacs,
)
from ich_node.phantom import PhantomSettings, make_series, write_series

STORESCU = Path("/usr/bin/storescu")
ECHOSCU = Path("/usr/bin/echoscu")
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PRIVATE_CLASS = "1.2.826.0.1.3680043.8.498.77.1"
SMALL = PhantomSettings(slices=3, rows=32, uid_seed="pacs test")


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[SmallPacs]:
    with SmallPacs(tmp_path / "pacs") as running:
        yield running


def an_object(sop_class_uid: str = CTImageStorage) -> Dataset:
    instance = make_series(replace(SMALL, slices=1, uid_seed=None))[0]
    instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    return instance


def associate(pacs: SmallPacs, *contexts: tuple[str, list[str]]) -> Association:
    ae = AE(ae_title="TEST")
    for abstract_syntax, transfer_syntaxes in contexts:
        ae.add_requested_context(abstract_syntax, transfer_syntaxes)
    return ae.associate("127.0.0.1", pacs.port, ae_title="PACS")


def send(pacs: SmallPacs, instance: Dataset) -> int:
    association = associate(pacs, (instance.SOPClassUID, [ExplicitVRLittleEndian]))
    status = association.send_c_store(instance).Status
    association.release()
    return int(status)


def find(pacs: SmallPacs, level: str, **keys: str) -> tuple[int, list[Dataset]]:
    """Ask by C-FIND; give the last status and the matches."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    association = associate(pacs, (STUDY_ROOT_FIND, [ExplicitVRLittleEndian]))
    answers = list(association.send_c_find(identifier, STUDY_ROOT_FIND))
    association.release()
    return int(answers[-1][0].Status), [match for _, match in answers[:-1] if match is not None]


def files_of(pacs: SmallPacs) -> list[Path]:
    return sorted(path for path in pacs.directory.rglob("*") if path.is_file())


def need(program: Path) -> str:
    if not program.exists():
        pytest.skip(f"{program} is absent (Debian package dcmtk)")
    return str(program)


def test_dcmtk_can_echo(pacs: SmallPacs) -> None:
    subprocess.run([need(ECHOSCU), "127.0.0.1", str(pacs.port)], check=True)


def test_a_series_sent_by_dcmtk_arrives_unchanged(pacs: SmallPacs, tmp_path: Path) -> None:
    paths = write_series(tmp_path / "series", SMALL)
    subprocess.run([need(STORESCU), "127.0.0.1", str(pacs.port), *map(str, paths)], check=True)
    for path in paths:
        sent = dcmread(path)
        stored = pacs.directory / sent.StudyInstanceUID / f"{sent.SOPInstanceUID}.dcm"
        assert dcmread(stored) == sent
        assert pacs.received[sent.SOPInstanceUID] == 1
    assert len(files_of(pacs)) == len(paths)


@pytest.mark.parametrize("sop_class_uid", [Comprehensive3DSRStorage, SecondaryCaptureImageStorage, PRIVATE_CLASS])
def test_every_storage_class_is_stored_even_a_private_one(pacs: SmallPacs, sop_class_uid: str) -> None:
    instance = an_object(sop_class_uid)
    assert send(pacs, instance) == SUCCESS
    stored = pacs.path_of(instance.SOPInstanceUID)
    assert stored is not None
    assert dcmread(stored).SOPClassUID == sop_class_uid


def test_a_private_class_proposed_with_deflated_first_is_taken_in_another_syntax(pacs: SmallPacs) -> None:
    association = associate(pacs, (PRIVATE_CLASS, [DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian]))
    assert [context.transfer_syntax for context in association.accepted_contexts] == [[ExplicitVRLittleEndian]]
    association.release()


def test_a_class_of_another_service_is_refused(pacs: SmallPacs) -> None:
    study_root_move = "1.2.840.10008.5.1.4.1.2.2.2"
    association = associate(
        pacs, (study_root_move, [ExplicitVRLittleEndian]), (CTImageStorage, [ExplicitVRLittleEndian])
    )
    assert [context.abstract_syntax for context in association.rejected_contexts] == [study_root_move]
    association.release()


def test_compressed_pixels_are_stored_as_they_came(pacs: SmallPacs) -> None:
    instance = an_object()
    instance.compress(JPEGLSLossless, generate_instance_uid=False)
    association = associate(pacs, (CTImageStorage, [JPEGLSLossless]))
    assert association.send_c_store(instance).Status == SUCCESS
    association.release()
    stored = pacs.path_of(instance.SOPInstanceUID)
    assert stored is not None
    assert dcmread(stored).file_meta.TransferSyntaxUID == JPEGLSLossless
    assert dcmread(stored).PixelData == instance.PixelData


def test_the_same_uid_again_replaces_the_object_and_is_counted(pacs: SmallPacs) -> None:
    instance = an_object()
    send(pacs, instance)
    instance.SeriesDescription = "again"
    send(pacs, instance)
    assert pacs.received[instance.SOPInstanceUID] == 2
    assert [dcmread(path).SeriesDescription for path in files_of(pacs)] == ["again"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
@pytest.mark.parametrize("study_uid", ["../../outside", "..", "1.2/3", "1." * 40 + "1", ""])
def test_a_study_uid_that_is_no_uid_is_refused_and_leaves_no_file(pacs: SmallPacs, study_uid: str) -> None:
    instance = an_object()
    instance.StudyInstanceUID = study_uid
    assert send(pacs, instance) == DATA_SET_DOES_NOT_MATCH_SOP_CLASS
    assert files_of(pacs) == []
    assert list(pacs.directory.parent.iterdir()) == [pacs.directory]


def test_a_uid_that_contradicts_the_request_is_refused(pacs: SmallPacs) -> None:
    instance = an_object()

    def rename(event: evt.Event) -> None:
        event.message.command_set.AffectedSOPInstanceUID = generate_uid()

    ae = AE()
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", pacs.port, evt_handlers=[(evt.EVT_DIMSE_SENT, rename)])
    status = association.send_c_store(instance).Status
    association.release()
    assert status == DATA_SET_DOES_NOT_MATCH_SOP_CLASS
    assert files_of(pacs) == []


def test_an_object_without_its_study_uid_is_refused(pacs: SmallPacs) -> None:
    instance = an_object()
    del instance.StudyInstanceUID
    assert send(pacs, instance) == CANNOT_UNDERSTAND
    assert files_of(pacs) == []


def test_only_accepted_classes_are_negotiated(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs", accepted_sop_classes=(EnhancedSRStorage,)) as pacs:
        association = associate(
            pacs, (Comprehensive3DSRStorage, [ExplicitVRLittleEndian]), (EnhancedSRStorage, [ExplicitVRLittleEndian])
        )
        assert [context.abstract_syntax for context in association.accepted_contexts] == [EnhancedSRStorage]
        association.release()


def test_a_failure_status_is_answered_and_nothing_is_kept(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs", store_status=OUT_OF_RESOURCES) as pacs:
        assert send(pacs, an_object()) == OUT_OF_RESOURCES
        assert files_of(pacs) == []
        assert not pacs.received


def test_a_warning_status_is_answered_and_the_object_kept(tmp_path: Path) -> None:
    coercion_of_data_elements = 0xB000
    with SmallPacs(tmp_path / "pacs", store_status=lambda _: coercion_of_data_elements) as pacs:
        assert send(pacs, an_object()) == coercion_of_data_elements
        assert len(files_of(pacs)) == 1


def test_whoever_waits_for_an_object_is_told(tmp_path: Path) -> None:
    told: list[tuple[Path, str]] = []
    with SmallPacs(
        tmp_path / "pacs", on_stored=lambda path, dataset: told.append((path, dataset.SOPInstanceUID))
    ) as pacs:
        instance = an_object()
        send(pacs, instance)
        assert told == [(pacs.path_of(instance.SOPInstanceUID), instance.SOPInstanceUID)]


def test_series_and_images_of_a_study_are_found(pacs: SmallPacs) -> None:
    series, other = make_series(SMALL), an_object()
    other.StudyInstanceUID = series[0].StudyInstanceUID
    for instance in [*series, other]:
        send(pacs, instance)
    study = {"StudyInstanceUID": series[0].StudyInstanceUID}
    status, found = find(
        pacs, "SERIES", **study, SeriesInstanceUID="", Modality="", NumberOfSeriesRelatedInstances="", SeriesNumber=""
    )
    assert status == SUCCESS
    assert {(one.SeriesInstanceUID, one.Modality, one.NumberOfSeriesRelatedInstances) for one in found} == {
        (series[0].SeriesInstanceUID, "CT", 3),
        (other.SeriesInstanceUID, "CT", 1),
    }
    one_series = study | {"SeriesInstanceUID": series[0].SeriesInstanceUID}
    status, images = find(pacs, "IMAGE", **one_series, SOPInstanceUID="")
    assert status == SUCCESS
    assert {one.SOPInstanceUID for one in images} == {one.SOPInstanceUID for one in series}
    _, one_image = find(pacs, "IMAGE", **one_series, SOPInstanceUID=series[1].SOPInstanceUID)
    assert [one.SOPInstanceUID for one in one_image] == [series[1].SOPInstanceUID]


def test_what_is_not_there_is_not_found(pacs: SmallPacs) -> None:
    send(pacs, an_object())
    assert find(pacs, "SERIES", StudyInstanceUID="1.2.3", SeriesInstanceUID="") == (SUCCESS, [])


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    ("level", "keys"),
    [
        ("STUDY", {"StudyInstanceUID": "1.2"}),
        ("SERIES", {"StudyInstanceUID": ""}),
        ("SERIES", {"StudyInstanceUID": ".."}),
        ("IMAGE", {"StudyInstanceUID": "1.2", "SeriesInstanceUID": ""}),
    ],
)
def test_a_query_without_the_keys_of_its_level_is_refused(pacs: SmallPacs, level: str, keys: dict[str, str]) -> None:
    identifier_does_not_match = 0xA900
    assert find(pacs, level, **keys) == (identifier_does_not_match, [])


def test_the_number_of_instances_can_be_left_empty(tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs", counts_instances=False) as pacs:
        instance = an_object()
        send(pacs, instance)
        _, found = find(
            pacs, "SERIES", StudyInstanceUID=instance.StudyInstanceUID, SeriesInstanceUID="",
            NumberOfSeriesRelatedInstances="",
        )  # fmt: skip
    assert [one.NumberOfSeriesRelatedInstances for one in found] == [None]


def test_every_object_is_sent_on(tmp_path: Path) -> None:
    arrived = threading.Event()
    with (
        SmallPacs(tmp_path / "second", on_stored=lambda *_: arrived.set()) as second,
        SmallPacs(tmp_path / "first", forward_to=("127.0.0.1", second.port, "SECOND")) as first,
    ):
        instance = an_object(PRIVATE_CLASS)
        assert send(first, instance) == SUCCESS
        assert arrived.wait(timeout=20)
        first.stop()
        assert second.received == first.forwarded == {instance.SOPInstanceUID: 1}


# pynetdicom leaves the socket of a refused connection to the garbage collector
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_what_cannot_be_sent_on_is_kept(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with SmallPacs(tmp_path / "pacs", forward_to=("127.0.0.1", unused.getsockname()[1], "NOBODY")) as pacs:
            send(pacs, an_object())
            pacs.stop()
            assert len(files_of(pacs)) == 1
            assert not pacs.forwarded


def test_a_folder_that_is_gone_is_answered_with_out_of_resources(pacs: SmallPacs) -> None:
    shutil.rmtree(pacs.directory)
    assert send(pacs, an_object()) == OUT_OF_RESOURCES


def test_a_stopped_pacs_no_longer_listens_and_can_start_again(tmp_path: Path) -> None:
    pacs = SmallPacs(tmp_path / "pacs")
    pacs.start()
    pacs.stop()
    pacs.stop()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", pacs.port)) != 0
    with pacs:
        assert send(pacs, an_object()) == SUCCESS


def test_a_port_in_use_is_an_error(pacs: SmallPacs, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        SmallPacs(tmp_path / "other", port=pacs.port).start()


def test_answers_leave_without_delay(tmp_path: Path) -> None:
    options: list[int] = []
    with SmallPacs(tmp_path / "pacs") as pacs:
        association = associate(pacs, (CTImageStorage, [ExplicitVRLittleEndian]))
        for serving in pacs._server.active_associations if pacs._server else []:
            assert serving.dul.socket is not None
            assert serving.dul.socket.socket is not None
            options.append(serving.dul.socket.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        association.release()
    assert len(options) == 1
    assert options[0] != 0


def test_the_log_names_no_patient(pacs: SmallPacs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="ich_node")
    caplog.set_level("INFO", logger="pynetdicom")
    instance = an_object()
    instance.PatientName = "Secret^Name"
    instance.PatientID = "SECRET-ID"
    send(pacs, instance)
    del instance.StudyInstanceUID
    send(pacs, instance)
    assert "refused" in caplog.text
    assert "secret" not in caplog.text.lower()
