"""Real studies, sent by dcmtk's storescu to a running node; the reports must reach real archives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE

from ich_node.decode import DecoderPool
from ich_node.pacs import SmallPacs
from ich_node.pipeline import Model
from ich_node.queries import StudyStatus
from ich_node.scoring import as_json, score_paths
from tests.acceptance.conftest import DcmtkStorescp
from tests.orthanc import Orthanc
from tests.running import STORESCU, NodeProcesses, is_dicom, storescu

NOT_NEGOTIATED = {
    "1.2.840.10008.1.2.1.99",  # deflated: a bomb in waiting
    "1.2.840.10008.1.2.2",  # big endian, retired
    "1.2.840.10008.1.2.4.53",  # JPEG spectral selection, retired
    "1.2.840.10008.1.2.4.55",  # JPEG full progression, retired
}
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
GE, PHILIPS = "ge-head-tilted", "philips-phantom-study"
CQ500 = [
    "CQ500-CT-47",  # JPEG Lossless; the others are more of the same, in JPEG 2000 too
    *(pytest.param(f"CQ500-CT-{number}", marks=pytest.mark.slow) for number in (99, 427, 181, 342, 412, 80)),
]
pytestmark = [
    pytest.mark.skipif(not Path(STORESCU).exists(), reason="dcmtk's storescu is not installed"),
    pytest.mark.filterwarnings("ignore:Invalid value for VR"),  # real headers have faults of form
]


@pytest.fixture(scope="module")
def send(node: NodeProcesses, shared_data: Path, request: pytest.FixtureRequest) -> Callable[[str], StudyStatus]:
    """Send every study that the chosen tests ask for; give what became of one by its name."""
    folders = {one.name: one for one in (*shared_data.glob("cq500/*"), *shared_data.glob("not-head/*"))}
    folders |= {name: shared_data / name for name in (GE, PHILIPS)}
    for name in sorted(_names_asked_for(request)):
        answer = storescu([folders[name]], node.port)
        assert answer.returncode == 0, answer.stderr
    return lambda name: node.wait_settled(str(_header(next(_files(folders[name]))).StudyInstanceUID))


def _names_asked_for(request: pytest.FixtureRequest) -> set[str]:
    mine = [
        item for item in request.session.items if isinstance(item, pytest.Function) and item.module is request.module
    ]
    names = {item.callspec.params.get("name") for item in mine if hasattr(item, "callspec")}
    philips = {PHILIPS for item in mine if "plastic" in item.name}
    return {str(name) for name in names if name} | philips | {GE}


@pytest.mark.parametrize("name", CQ500)
def test_a_thinned_head_ct_is_concluded_once_and_told_to_be_incomplete(
    send: Callable[[str], StudyStatus], pacs: SmallPacs, name: str
) -> None:
    study = send(name)

    (series,) = study.series
    assert (series.state, series.slices, series.unreadable) == ("CONCLUDED", 30, 0)
    assert series.complete is False
    assert study.triage in ("positive", "indeterminate"), "an incomplete series is never negative"
    assert study.outcome == f"TEST MODEL: {study.triage}, incomplete"
    report = _only_report(study, pacs)
    assert report.CompletionFlag == "PARTIAL"
    assert report.CompletionFlagDescription.startswith("gaps at mm: ")


def test_a_tilted_head_ct_of_two_spacings_is_concluded_once_and_complete(
    send: Callable[[str], StudyStatus], pacs: SmallPacs
) -> None:
    study = send(GE)

    (series,) = study.series
    assert (series.state, series.slices, series.unreadable, series.complete) == ("CONCLUDED", 28, 0, True)
    assert _only_report(study, pacs).CompletionFlag == "COMPLETE"


@pytest.mark.parametrize("name", [*CQ500, GE])
def test_the_report_is_in_orthanc(send: Callable[[str], StudyStatus], orthanc: Orthanc | None, name: str) -> None:
    if orthanc is None:
        pytest.skip("Orthanc is not installed")
    study = send(name)

    (delivery,) = [one for one in study.deliveries if one.destination == "orthanc"]

    assert delivery.state == "DELIVERED"
    tags = orthanc.tags(delivery.sop_instance_uid or "")
    assert tags["StudyInstanceUID"] == study.study_instance_uid
    assert tags["SOPClassUID"] == COMPREHENSIVE_3D_SR


@pytest.mark.parametrize("name", [*CQ500, GE])
def test_the_report_is_in_dcmtks_storescp(
    send: Callable[[str], StudyStatus], storescp: DcmtkStorescp | None, name: str
) -> None:
    if storescp is None:
        pytest.skip("dcmtk's storescp is not installed")

    (delivery,) = [one for one in send(name).deliveries if one.destination == "storescp"]

    assert delivery.state == "DELIVERED"
    assert [path for path in storescp.folder.iterdir() if path.name.endswith(f".{delivery.sop_instance_uid}")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("chest-ct", "the header names another body part"), ("head-mr", "not a CT image")],
)
def test_what_is_no_head_ct_is_not_analysed_and_nobody_is_bothered(
    send: Callable[[str], StudyStatus], name: str, reason: str
) -> None:
    study = send(name)

    assert {one.state for one in study.series} == {"NOT_ANALYSED"}
    assert reason in study.outcome
    assert study.outcome.startswith("not analysed: ")
    assert study.revision == 0
    assert not study.deliveries


@pytest.mark.slow
def test_a_plastic_head_is_not_called_negative(send: Callable[[str], StudyStatus]) -> None:
    study = send(PHILIPS)

    assert study.triage is None
    assert "NOT_ANALYSED" in {one.state for one in study.series}
    assert "CONCLUDED" not in {one.state for one in study.series}
    assert len({one.revision for one in study.deliveries}) <= 1, "one report at most for the whole study"


def test_the_log_names_no_patient(send: Callable[[str], StudyStatus], node: NodeProcesses, shared_data: Path) -> None:
    send(GE)
    header = dcmread(shared_data / GE / "01.dcm", stop_before_pixels=True)
    named = [dcmread(next(_files(shared_data / "cq500")), stop_before_pixels=True), header]
    secrets = {str(one.get(key, "")) for one in named for key in ("PatientName", "PatientID", "AccessionNumber")}
    logs = "".join(node.log(role).read_text() for role in node.roles)

    assert "plane scored" in logs, "the log was read at all"
    for secret in secrets - {"", "0", "1"}:
        assert secret not in logs


def test_every_object_of_every_transfer_syntax_is_answered_and_settled(node: NodeProcesses, shared_data: Path) -> None:
    files = [path for path in _files(shared_data / "transfer-syntaxes") if is_dicom(path)]
    answers = {path.name: _send(path, node.port) for path in files}

    taken = [path for path in files if answers[path.name] == 0x0000]
    assert len(files) == 50
    refused = {str(_header(path).file_meta.TransferSyntaxUID) for path in files if answers[path.name] is None}
    assert refused == NOT_NEGOTIATED
    failed = {name: status for name, status in answers.items() if status not in (0x0000, None)}
    assert failed == {"pydicomdata__bad_sequence.dcm": 0xA900}, "its UID holds letters"
    studies = [node.wait_settled(uid) for uid in sorted({str(_header(path).StudyInstanceUID) for path in taken})]
    settled = [series for study in studies for series in study.series]
    assert {one.state for one in settled} == {"NOT_ANALYSED"}
    assert sum(one.slices for one in settled) == len(set(map(_identity, taken))), "nothing is lost"
    assert all(process.poll() is None for process in node.processes.values())


def test_score_reads_every_object_of_every_transfer_syntax_or_says_why_not(
    shared_data: Path, tiny_model: Model, decoder: DecoderPool
) -> None:
    files = list(_files(shared_data / "transfer-syntaxes"))
    done = []

    scores = score_paths([shared_data / "transfer-syntaxes"], tiny_model, decoder, lambda *at: done.append(at))

    assert done[-1] == (len(files), len(files)), "nothing stops"
    unread = [one.path.name for one in scores.unread]
    assert len(unread) == 2
    assert all("JPEGProcess10_12" in name or "1.2.840.10008.1.2.4.53" in name for name in unread), (
        "two retired syntaxes"
    )
    assert not any(as_json(one, tiny_model)["analysed"] for one in scores.series), "single objects are no series"
    assert sum(len(one.files) for one in scores.series) == len({_identity(path) for path in files if is_dicom(path)})


def _only_report(study: StudyStatus, pacs: SmallPacs) -> Dataset:
    """The one report of a study in the PACS, which the study's row speaks of."""
    assert study.revision == 1
    stored = list(pacs.directory.glob(f"{study.study_instance_uid}/*.dcm"))
    assert len(stored) == 1
    (delivery,) = [one for one in study.deliveries if one.destination == "pacs"]
    assert (delivery.state, delivery.sop_instance_uid) == ("DELIVERED", stored[0].stem)
    assert pacs.received[stored[0].stem] == 1
    return dcmread(stored[0])


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".md")


def _header(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True, force=True)


def _identity(path: Path) -> tuple[str, str]:
    header = _header(path)
    return str(header.SeriesInstanceUID), str(header.SOPInstanceUID)


def _send(path: Path, port: int) -> int | None:
    """Send one file in the syntax it is stored in; give the status, None where no context was accepted."""
    header = _header(path)
    entity = AE(ae_title="PROBE")
    entity.add_requested_context(header.file_meta.MediaStorageSOPClassUID, header.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="ICH_NODE")
    if not association.is_established:
        return None
    status = association.send_c_store(path).get("Status")
    association.release()
    return status
