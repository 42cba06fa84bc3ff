"""A PACS becomes a table of scores: each series is sent, received, scored and deleted, whatever happens meanwhile."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from ich_node.archive_scoring.from_pacs import PacsRequest, score_pacs
from ich_node.archive_scoring.progress import Progress
from ich_node.archive_scoring.retrieving import PacsAccess
from ich_node.archive_scoring.running import ArchiveSummary, ArchiveTask
from ich_node.archive_scoring.scorer import SeriesScorer
from ich_node.audit import open_trail
from ich_node.cli import main
from ich_node.config import Config, parse_config
from ich_node.decode import DecoderPool
from ich_node.errors import BulkScoringStopped, SpoolFull
from ich_node.pacs import send_study
from ich_node.pipeline import Model
from ich_node.query_retrieve import WantedSeries
from ich_node.receive.series_receiver import SeriesReceiver
from ich_node.records import HEMORRHAGE_CLASSES, Destination
from tests.archives import rows_of, setup_of, task_of
from tests.auditing import recorded_in
from tests.certificates import Authority
from tests.orthanc import Orthanc, needs_orthanc
from tests.pacs_archives import (
    AE_TITLE,
    PATIENCE,
    QUICK,
    Archive,
    ScriptedPacs,
    config_text,
    dcmqrscp,
    write_head,
)
from tests.running import free_port, leaks_a_socket, wait_for

ROOT = Path(__file__).parents[2]
DAY, NEXT = date(2024, 6, 15), date(2024, 6, 16)
QUICKLY = ("--from", f"{DAY}", "--to", f"{NEXT}", "--per-hour", "1000000")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "orthanc").running() as pacs:
        yield pacs


@dataclass
class Bulk:
    """Bulk scoring of a PACS with the session's model and decoder, which counts what is scored."""

    model: Model
    decoder: DecoderPool
    state: Path
    scored: list[str] = field(default_factory=list)
    said: io.StringIO = field(default_factory=io.StringIO)
    folders: list[int] = field(default_factory=list)
    """Of series on the disk, at each that is scored."""

    def __call__(self, task: ArchiveTask, request: PacsRequest, **sections: Any) -> ArchiveSummary:
        scorer = SeriesScorer(setup_of(Path()), self.model, self.decoder)
        config = configured(self.state, **sections)
        trail = open_trail(config, "score-archive")

        def score(series: Any) -> dict[str, Any]:
            self.scored.append(series.study_instance_uid)
            self.folders.append(len(list((task.work / "received").iterdir())))
            return scorer.score(series)

        try:
            return score_pacs(
                task, request, "one model", self.decoder, lambda every: map(score, every), Progress(self.said), config,
                trail,
            )  # fmt: skip
        finally:
            trail.close()


def configured(state: Path, **sections: Any) -> Config:
    node = {"bind": "127.0.0.1", "state_directory": str(state)}
    others = [{"ae_title": "CT1", "address": "127.9.9.9"}]
    return parse_config({"node": node, "receiver": {"reserve_mib": 0}, "peer": others} | sections)


@pytest.fixture
def bulk(tiny_model: Model, decoder: DecoderPool, tmp_path: Path) -> Bulk:
    return Bulk(tiny_model, decoder, tmp_path / "state")


@needs_orthanc
@pytest.mark.usefixtures("logging_put_back")
def test_the_ct_of_a_pacs_gets_the_scores_that_score_gives_its_files(
    tmp_path: Path, archive: Archive, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uids = [archive.add(1, DAY), archive.add(2, DAY, hour=18), archive.add(3, NEXT)]
    archive.add(4, DAY, Modality="MR")
    archive.add(5, date(2024, 6, 17))
    files = [str(archive.folder / "files" / str(number)) for number in (1, 2, 3)]
    assert main(["score", *files, "--json", "--model", str(tiny_bundle), "--engine", "torch", "--test-model"]) == 0
    expected = {one["study_instance_uid"]: one for one in json.loads(capsys.readouterr().out)}

    assert main(archive.words(tmp_path, tiny_bundle, *QUICKLY)) == 0

    said = capsys.readouterr()
    assert "3 series, 3 analysed, 0 not analysed, 0 failed" in said.out
    assert "list of the PACS: 2 of 2 days, 3 series" in said.err
    assert "3 of 3 series" in said.err
    rows = rows_of(tmp_path / "scores.parquet")
    assert [row["study_instance_uid"] for row in rows] == uids == sorted(expected)
    for row in rows:
        entry = expected[row["study_instance_uid"]]
        assert (row["analysed"], row["triage"], row["complete"]) == (True, entry["triage"], entry["complete"])
        for name in HEMORRHAGE_CLASSES:
            assert row[f"probability_{name}"] == pytest.approx(entry["probabilities"][name], abs=0.001)
        assert (row["files"], row["not_received"], row["unread"]) == (12, 0, [])
        assert row["station_name"] == "PHANTOM"
    assert sorted(archive.moves()) == [f"{uid}.1" for uid in uids]
    work = tmp_path / "scores.parquet.work"
    assert not list(work.rglob("*.dcm")), "what was received is deleted"
    assert b"P1" not in (work / "pacs.sqlite").read_bytes()


@needs_orthanc
def test_queries_and_imports_are_in_the_audit_trail_with_one_patient_each(
    tmp_path: Path, archive: Archive, bulk: Bulk
) -> None:
    archive.add(1, DAY)
    archive.add(2, DAY)
    bulk(task_of(tmp_path), archive.request(DAY))
    queries = recorded_in(bulk.state, "Query")
    assert len(queries) == 3, "the studies of the day, and the series of each"
    for event in ("Begin Transferring DICOM Instances", "DICOM Instances Transferred"):
        told = recorded_in(bulk.state, event)
        assert sorted(one.patients for one in told) == [["P1"], ["P2"]]
        assert all(one.outcome == "0" for one in told)
        assert {one.participant("110153")["UserID"] for one in told} == {"PACS"}
    assert sum(sum(one.counts.values()) for one in told) == 24


@needs_orthanc
def test_a_second_run_has_nothing_sent_but_what_is_new(tmp_path: Path, archive: Archive, bulk: Bulk) -> None:
    archive.add(1, DAY)
    second = archive.add(2, DAY, slices=11)
    task, request = task_of(tmp_path), archive.request(DAY, NEXT)
    assert bulk(task, request) == ArchiveSummary(series=2, analysed=2)
    assert bulk(task, request).scored_before == 2
    assert len(archive.moves()) == 2

    archive.add(2, DAY)
    third = archive.add(3, NEXT)
    assert bulk(task, request) == ArchiveSummary(series=3, scored_before=1, analysed=3)
    assert archive.moves()[2:] == [f"{second}.1", f"{third}.1"]
    assert [row["files"] for row in rows_of(task.scores)] == [12, 12, 12]
    assert bulk.folders == [1, 1, 1, 1], "one series at a time is on the disk"


@needs_orthanc
def test_a_damaged_image_makes_its_series_incomplete_until_the_pacs_has_a_good_one(
    tmp_path: Path, archive: Archive, bulk: Bulk
) -> None:
    whole, broken = archive.add(1, DAY), archive.add(0, DAY, slices=11)
    dataset = dcmread(archive.files_of(0)[0])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.5.0.99"
    dataset.PixelData = dataset.PixelData[:100]
    dataset.save_as(tmp_path / "broken.dcm")
    archive.put("broken", [tmp_path / "broken.dcm"])
    task, request = task_of(tmp_path), archive.request(DAY)

    summary = bulk(task, request)

    assert (summary.series, summary.failed, summary.not_whole, summary.bad_files) == (2, 0, 1, 1)
    rows = {row["study_instance_uid"]: row for row in rows_of(task.scores)}
    row = rows[broken]
    assert (row["not_received"], row["files"], row["complete"], row["analysed"]) == (1, 11, False, True)
    assert row["triage"] != "negative"
    (unread,) = row["unread"]
    assert unread == {
        "name": f"pacs://PACS/{broken}/{broken}.1/1.2.5.0.99",
        "why": "the pixel data are shorter than the header says",
    }
    assert rows[whole]["complete"]
    assert f"{unread['name']},{unread['why']}" in task.bad.read_text()

    (name,) = archive.ids["broken"]
    archive.orthanc.ask(f"/instances/{name}", method="DELETE")
    archive.add(0, DAY)
    assert bulk(task, request) == ArchiveSummary(series=2, scored_before=1, analysed=2)
    assert bulk.scored.count(whole) == 1
    assert Counter(archive.moves()) == {f"{whole}.1": 1, f"{broken}.1": 2}


@needs_orthanc
def test_a_pacs_that_gives_few_answers_at_once_loses_no_study(tmp_path: Path, bulk: Bulk) -> None:
    with Archive(tmp_path / "orthanc").running(LimitFindResults=2) as archive:
        uids = [archive.add(number, DAY, hour=8 + number, slices=1) for number in range(5)]
        summary = bulk(task_of(tmp_path), archive.request(DAY))
        assert (summary.series, summary.bad_files) == (5, 0)
        assert [row["study_instance_uid"] for row in rows_of(tmp_path / "scores.parquet")] == uids


@needs_orthanc
def test_only_wanted_studies_and_series_are_sent(tmp_path: Path, archive: Archive, bulk: Bulk) -> None:
    head = archive.add(1, DAY, slices=1)
    archive.add(2, DAY, slices=1, StudyDescription="CT ABDOMEN")
    archive.add(3, DAY, slices=1, BodyPartExamined="CHEST")
    bulk(task_of(tmp_path), archive.request(DAY, wanted=WantedSeries("*HEAD*", "HEAD")))
    assert archive.moves() == [f"{head}.1"]


@needs_orthanc
@leaks_a_socket
@pytest.mark.slow
def test_a_pacs_that_goes_away_in_the_middle_is_waited_for(tmp_path: Path, bulk: Bulk) -> None:
    archive = Archive(tmp_path / "orthanc")
    task, summaries = task_of(tmp_path, part=1), list[ArchiveSummary]()
    with archive.running():
        uids = [archive.add(number, DAY) for number in range(5)]
        request = archive.request(DAY, politeness=replace(QUICK, per_hour=3600))
        run = threading.Thread(target=lambda: summaries.append(bulk(task, request)))
        run.start()
        wait_for(lambda: len(list((task.work / "parts").glob("*.parquet"))) == 2, "two series are scored")
    wait_for(lambda: "no association with 127.0.0.1" in bulk.said.getvalue(), "it was missed")
    with archive.running():
        run.join(120)
        assert not run.is_alive()
    assert summaries == [ArchiveSummary(series=5, analysed=5)]
    assert sorted(bulk.scored) == uids, "each once"
    assert [row["not_received"] for row in rows_of(task.scores)] == [0] * 5


@needs_orthanc
@pytest.mark.slow
def test_a_run_that_is_killed_has_nothing_sent_twice_that_is_in_a_part(
    tmp_path: Path, archive: Archive, tiny_bundle: Path
) -> None:
    uids = [archive.add(number, date(2024, 2 * number + 1, 29)) for number in range(5)]
    archive.add(5, DAY, Modality="MR")
    words = archive.words(tmp_path, tiny_bundle, "--from", "2024-01-01", "--to", "2024-12-31", "--part", "1")
    command = [sys.executable, "-m", "ich_node", *words, "--per-hour", "1800"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parts = tmp_path / "scores.parquet.work" / "parts"
    running = subprocess.Popen(command, env=environment, cwd=tmp_path, start_new_session=True)
    try:
        wait_for(lambda: len(list(parts.glob("*.parquet"))) == 2, "two series are scored")
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    kept = [row["series_instance_uid"] for part in sorted(parts.glob("*.parquet")) for row in rows_of(part)]
    queries, asked = archive.queries(), len(archive.moves())
    assert not (tmp_path / "scores.parquet").exists()

    ended = subprocess.run([*command[:-1], "1000000"], env=environment, cwd=tmp_path, check=False, timeout=200)

    assert ended.returncode == 0
    assert [row["study_instance_uid"] for row in rows_of(tmp_path / "scores.parquet")] == uids
    again = archive.moves()[asked:]
    assert set(again).isdisjoint(kept)
    assert len(again) == 5 - len(kept)
    assert queries == 366 + 5, "the studies of each day, and the series of each study"
    assert archive.queries() == queries, "the list is kept, too"
    assert not list((tmp_path / "scores.parquet.work").rglob("*.dcm"))


@needs_orthanc
@pytest.mark.slow
def test_series_go_to_models_on_ray_and_are_deleted_after(tmp_path: Path, archive: Archive, tiny_bundle: Path) -> None:
    uids = [archive.add(number, DAY) for number in range(3)]
    words = archive.words(tmp_path, tiny_bundle, *QUICKLY, "--workers", "1", "--ray")
    command = [sys.executable, "-m", "ich_node", *words]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, check=False, timeout=280)
    assert ended.returncode == 0
    rows = rows_of(tmp_path / "scores.parquet")
    assert [row["study_instance_uid"] for row in rows] == uids
    assert [row["analysed"] for row in rows] == [True] * 3
    assert not list((tmp_path / "scores.parquet.work").rglob("*.dcm"))


@needs_orthanc
@leaks_a_socket
@pytest.mark.slow
@pytest.mark.parametrize("mutual", [True, False])
def test_a_pacs_of_tls_is_asked_and_sends_by_tls(tmp_path: Path, bulk: Bulk, mutual: bool) -> None:
    authority = Authority(tmp_path / "authority")
    shown, ours = authority.issue("orthanc", kind="rsa"), authority.issue("node")
    archive = Archive(tmp_path / "orthanc")
    us = {"AET": AE_TITLE, "Host": "127.0.0.1", "Port": archive.port, "UseDicomTls": True}
    tls = {
        "DicomTlsEnabled": True, "DicomTlsCertificate": shown.pair[0], "DicomTlsPrivateKey": shown.pair[1],
        "DicomTlsTrustedCertificates": str(authority.file), "DicomTlsRemoteCertificateRequired": True,
    }  # fmt: skip
    section = {"certificate": ours.pair[0], "key": ours.pair[1], "ca_file": str(authority.file)}
    bound = {"ae_title": "PACS", "address": "127.0.0.1", "certificate": shown.fingerprint if mutual else "9" * 64}
    with archive.running(DicomModalities={"us": us}, **tls):
        archive.add(1, DAY)
        request = archive.request(DAY)
        config = configured(bulk.state, tls=section)
        access = replace(request.access, pacs=replace(request.access.pacs, tls=config.tls.files))
        summary = bulk(task_of(tmp_path), replace(request, access=access), tls=section, peer=[bound])
    assert (summary.analysed, summary.failed) == ((1, 0) if mutual else (0, 1)), "its certificate is another one"


# ------------------------------------------------------------------------------------------- what goes wrong


@needs_orthanc
@leaks_a_socket
@pytest.mark.usefixtures("logging_put_back")
def test_who_does_not_know_us_is_told_of_at_once(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orthanc = Orthanc()
    (tmp_path / "orthanc").mkdir()
    config = tmp_path / "ich-node.toml"
    config.write_text(config_text(tmp_path, orthanc.dicom_port, "WRONG"))
    words = [
        "score-archive",
        "pacs://WRONG",
        "--config",
        str(config),
        "--scores",
        str(tmp_path / "s.parquet"),
        *QUICKLY,
    ]
    words += ["--model", str(tiny_bundle), "--engine", "torch", "--port", str(free_port())]
    with orthanc.running(tmp_path / "orthanc", DicomCheckCalledAet=True):
        assert main(words) == 1
    said = capsys.readouterr().err
    assert "the PACS cannot be asked: the association was rejected: Called AE title not recognised" in said
    assert main(words) == 1
    assert f"no association with 127.0.0.1:{orthanc.dicom_port}" in capsys.readouterr().err


@leaks_a_socket
def test_a_move_destination_that_the_pacs_does_not_know_is_named_with_what_to_enter(tmp_path: Path, bulk: Bulk) -> None:
    with dcmqrscp(tmp_path, knows=None) as pacs:
        archive = Archive(tmp_path / "files", Orthanc(dicom_port=pacs))
        send_study(write_head(tmp_path / "head", 1, DAY), "127.0.0.1", pacs, "PACS")
        with pytest.raises(BulkScoringStopped) as stopped:
            bulk(task_of(tmp_path), archive.request(DAY))
    assert "does not know the move destination ICH_ARCHIVE (status 0xA801)" in str(stopped.value)
    assert f"AE title ICH_ARCHIVE with the address of this machine and port {archive.port}, without TLS" in str(
        stopped.value
    )


@needs_orthanc
def test_an_orthanc_that_does_not_know_us_sends_nothing_and_the_row_asks_whether_it_does(
    tmp_path: Path, bulk: Bulk
) -> None:
    lets_everybody = {"DicomModalities": {}, "DicomAlwaysAllowFind": True, "DicomAlwaysAllowMove": True}
    with Archive(tmp_path / "orthanc").running(**lets_everybody) as archive:
        archive.add(1, DAY, slices=1)
        assert bulk(task_of(tmp_path), archive.request(DAY)).failed == 1
    (row,) = rows_of(tmp_path / "scores.parquet")
    assert row["not_analysed_reason"].endswith(f"; does it know ICH_ARCHIVE, at port {archive.port}?)")


def test_dcmtk_sends_what_it_is_asked_for(tmp_path: Path, bulk: Bulk) -> None:
    port = free_port()
    with dcmqrscp(tmp_path, knows=port) as pacs:
        archive = Archive(tmp_path / "files", Orthanc(dicom_port=pacs), port)
        send_study(write_head(tmp_path / "head", 1, DAY), "127.0.0.1", pacs, "PACS")
        assert bulk(task_of(tmp_path), archive.request(DAY)) == ArchiveSummary(series=1, analysed=1)


def scripted(tmp_path: Path, *script: int | str) -> ScriptedPacs:
    return ScriptedPacs(write_head(tmp_path / "head", 1, DAY), free_port(), list(script))


def ask(pacs: ScriptedPacs, port: int) -> PacsRequest:
    destination = Destination("query", "PACS", "127.0.0.1", port)
    return PacsRequest(PacsAccess(destination, AE_TITLE, pacs.port_to, PATIENCE, PATIENCE), DAY, DAY, politeness=QUICK)


@leaks_a_socket
@pytest.mark.parametrize("script", [(0xA702,), ("abort", 0xA701)], ids=["out of resources", "aborted"])
def test_a_move_that_cannot_go_now_is_tried_again_after_a_rest(
    tmp_path: Path, bulk: Bulk, script: tuple[int | str, ...]
) -> None:
    pacs = scripted(tmp_path, *script)
    with pacs.running() as port:
        assert bulk(task_of(tmp_path), ask(pacs, port)) == ArchiveSummary(series=1, analysed=1)
    assert pacs.moves == len(script) + 1
    assert bulk.said.getvalue().count("waiting") == len(script)
    (row,) = rows_of(tmp_path / "scores.parquet")
    assert (row["files"], row["not_received"], row["complete"]) == (12, 0, True)


def test_what_cannot_be_sent_has_a_row_that_says_so_and_is_tried_by_the_next_run(tmp_path: Path, bulk: Bulk) -> None:
    pacs = scripted(tmp_path, 0xC001)
    task = task_of(tmp_path)
    with pacs.running() as port:
        summary = bulk(task, ask(pacs, port))
        assert (summary.series, summary.failed, summary.not_whole) == (1, 1, 1)
        (row,) = rows_of(task.scores)
        assert (row["analysed"], row["triage"], row["failed"], row["not_received"]) == (False, None, True, 12)
        assert row["not_analysed_reason"] == (
            "12 of 12 images did not come (the C-MOVE ended with status 0xC001, 12 failed; "
            f"does it know ICH_ARCHIVE, at port {pacs.port_to}?)"
        )
        assert bulk(task, ask(pacs, port)) == ArchiveSummary(series=1, analysed=1)
    assert [row["triage"] for row in rows_of(task.scores)] != [None]


def test_fewer_images_than_announced_are_no_whole_series(tmp_path: Path, bulk: Bulk) -> None:
    pacs = scripted(tmp_path, "short")
    with pacs.running() as port:
        summary = bulk(task_of(tmp_path), ask(pacs, port))
    assert (summary.failed, summary.not_whole, pacs.moves) == (0, 1, 1)
    (row,) = rows_of(tmp_path / "scores.parquet")
    assert (row["files"], row["not_received"], row["complete"]) == (11, 1, False)
    assert row["triage"] != "negative"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[SeriesReceiver]:
    config = configured(tmp_path / "state")
    (tmp_path / "received").mkdir()
    pacs = Destination("query", "PACS", "127.0.0.1", 104)
    made = SeriesReceiver(config, AE_TITLE, free_port(), pacs, tmp_path / "received", open_trail(config, "test"))
    made.start()
    yield made
    made.stop()


def test_nothing_is_taken_that_was_not_asked_for(tmp_path: Path, receiver: SeriesReceiver) -> None:
    mine, other = write_head(tmp_path / "1", 1, DAY), write_head(tmp_path / "2", 2, DAY)
    folder = tmp_path / "received" / "one"
    folder.mkdir()

    def send(paths: list[Path]) -> int:
        return send_study(paths, "127.0.0.1", receiver.port, AE_TITLE)

    assert send(mine) == 0
    with receiver.expecting("1.2.5.1", "1.2.5.1.1", folder) as came:
        assert send([*mine, *other[:2]]) == 12
        assert send(mine[:1]) == 1, "the same again"
    assert send(mine) == 0
    assert len(came.files) == 12
    assert came.refused == {"it is of no series that was asked for": 2}
    assert sorted(folder.iterdir()) == sorted(came.files.values())
    assert all(len(path.stem) == 32 for path in folder.iterdir()), "no name is of the network"
    sent = {dcmread(path).SOPInstanceUID: path for path in mine}
    assert {uid: dcmread(path).PixelData for uid, path in came.files.items()} == {
        uid: dcmread(path).PixelData for uid, path in sent.items()
    }
    refused = [one for one in recorded_in(tmp_path / "state", "DICOM Instances Transferred") if one.why]
    assert [sum(one.counts.values()) for one in refused] == [12, 2, 12]
    assert {tuple(one.patients) for one in refused} <= {(), ("(none)",)}, "what is refused is believed nothing"


@leaks_a_socket
def test_nobody_but_the_pacs_and_peers_may_send(tmp_path: Path, receiver: SeriesReceiver) -> None:
    paths = write_head(tmp_path / "1", 1, DAY)
    for called, calling in ((AE_TITLE, "STRANGER"), (AE_TITLE, "CT1"), ("ICH_NODE", "PACS")):
        with pytest.raises(ConnectionError):
            send_study(paths, "127.0.0.1", receiver.port, called, calling)
    assert len(recorded_in(tmp_path / "state", "Security Alert")) >= 2


def test_a_disk_without_room_ends_the_run_and_no_series_is_short_for_it(tmp_path: Path, bulk: Bulk) -> None:
    pacs = scripted(tmp_path)
    with pacs.running() as port, pytest.raises(SpoolFull):
        bulk(task_of(tmp_path), ask(pacs, port), receiver={"reserve_mib": 10**9})
    assert not (tmp_path / "scores.parquet").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pacs://PACS"], "name the days that the PACS is asked for: --from 2024-01-01 --to 2024-12-31"),
        (["pacs://PACS", "--from", "2024-02-01", "--to", "2024-01-01"], "is later than"),
        (["pacs://PACS", "."], "a PACS is the only source"),
        ([".", "--per-hour", "3"], "--per-hour is for a PACS"),
        ([".", "--from", "2024-02-01"], "--from is for a PACS"),
        (["pacs://PACS", *QUICKLY, "--ae-title", "LONGER_THAN_16_CH"], "at most 16 characters"),
    ],
)
def test_wrong_words_are_told(
    tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["score-archive", *words, "--scores", "s.parquet"]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hours", ["7", "7-7", "24-3", "3-25", "a-b"])
def test_hours_that_are_none_are_refused(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["score-archive", "pacs://PACS", "--scores", "s.parquet", *QUICKLY, "--hours", hours])
    assert ended.value.code == 2
    assert "two hours of the day, such as 19-7" in capsys.readouterr().err


def test_a_pacs_that_the_configuration_does_not_name_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "ich-node.toml"
    config.write_text(config_text(tmp_path, 104))
    words = ["score-archive", "pacs://OTHER", "--scores", str(tmp_path / "s.parquet"), "--config", str(config)]
    assert main([*words, *QUICKLY]) == 1
    assert "pacs://OTHER: no such PACS in the configuration" in capsys.readouterr().err
