"""From received slices to a report in the PACS: receiver, worker and deliverer over real sockets and SQLite."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, generate_uid
from pynetdicom import AE

from ich_node import service
from ich_node.database import SeriesMeasureRow
from ich_node.decode import DecodeLimits, DecoderPool
from ich_node.deliverer import Deliverer
from ich_node.log import _JsonLines
from ich_node.model.engine import run_sequence_head
from ich_node.model.untrained import make_untrained_bundle
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, draw_volume, write_series
from ich_node.pipeline import Model, open_model
from ich_node.queries import StudyStatus
from ich_node.records import NotAnalysedReason
from ich_node.scoring import score_paths
from ich_node.worker import Worker, concluding, loop, telling
from tests.crashing import kill_the_child_at_slice_7
from tests.report_reading import items
from tests.running import PartsOfANode, parts_of_a_node, settings, wait_for
from tests.unit.queueing import rows

HEAD = PhantomSettings(lesion="subdural", slices=12, rows=64, slice_spacing_mm=11.0)
CONCLUSION, NUMBER = "121077", "NUM"


@dataclass
class Site:
    """A node, its PACS, and a folder to make series in."""

    node: PartsOfANode
    pacs: SmallPacs
    folder: Path

    def send(self, files: Sequence[Path], calling_ae_title: str = "SCANNER1") -> None:
        port = self.node.receiver.port
        assert send_study(files, "127.0.0.1", port, "ICH_NODE", calling_ae_title) == len(files)

    def head(self, **changes: Any) -> tuple[str, list[Path]]:
        """Write a head CT of a study of its own; give its Study Instance UID and files."""
        uid = changes.pop("study_instance_uid", None) or str(generate_uid())
        head = replace(HEAD, study_instance_uid=uid, **changes)
        return uid, write_series(self.folder / str(generate_uid()), head)

    def settled(self, uid: str) -> StudyStatus:
        self.node.settle()
        (study,) = self.node.status(uid).studies
        return study

    def reports(self, uid: str) -> list[Dataset]:
        """The reports on a study in the PACS, the oldest first."""
        return sorted(map(dcmread, (self.pacs.directory / uid).glob("*.dcm")), key=lambda one: int(one.InstanceNumber))


@contextmanager
def open_site(folder: Path, model: Model, decoder: DecoderPool | None, **sections: Any) -> Iterator[Site]:
    with SmallPacs(folder / "pacs") as pacs:
        alone = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port, "objects": ["report"]}
        sections.setdefault("destination", [alone])
        values = settings(folder / "state", Path("unused"), **sections)
        with parts_of_a_node(values, model, decoder) as node:
            yield Site(node, pacs, folder / "sent")


@pytest.fixture
def site(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> Iterator[Site]:
    with open_site(tmp_path, tiny_model, decoder) as one:
        yield one


def test_a_head_ct_ends_as_one_report_in_the_pacs(site: Site) -> None:
    uid, files = site.head()
    site.send(files)

    study = site.settled(uid)

    (series,) = study.series
    assert (series.state, series.slices, series.complete) == ("CONCLUDED", 12, True)
    assert study.triage is not None
    (report,) = site.reports(uid)
    assert report.StudyInstanceUID == uid
    assert report.PatientName == HEAD.patient_name
    assert report.CompletionFlag == "COMPLETE"
    assert "TEST MODEL" in text(report, CONCLUSION)
    assert list(series.steps or {}) == [
        "first slice received", "last slice received", "series closed", "analysed", "report saved",
    ]  # fmt: skip
    assert list((series.steps or {}).values()) == sorted((series.steps or {}).values())
    (measured,) = rows(site.node.database, SeriesMeasureRow)
    assert (measured.triage, measured.reason, measured.slice_thickness_mm) == (
        study.triage,
        None,
        HEAD.slice_spacing_mm,
    )
    assert 20 < measured.brain_hu < 45
    assert measured.air_hu == pytest.approx(-1000, abs=5)
    assert 0 < measured.noise_hu < 20
    assert 0 < measured.probability < 1


def test_a_model_with_a_sequence_head_decides_by_it(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> None:
    looks = [PhantomSettings(lesion=one, slices=8, rows=64, slice_spacing_mm=16) for one in (None, "epidural")]
    make_untrained_bundle(tmp_path / "m", map(draw_volume, looks), "test_resnet", size_px=64, sequence_head=True)
    model = open_model(tmp_path / "m", "torch", threads=1, show_untrained=True)
    with open_site(tmp_path, model, decoder) as site:
        uid, files = site.head()
        site.send(files)
        (series,) = site.settled(uid).series

    scored = score_paths([files[0].parent], model, decoder, lambda *_: None).series[0]
    planes = sorted(scored.planes, key=lambda plane: plane.position_mm)
    embeddings, positions = np.stack([one.embedding for one in planes]), np.array([one.position_mm for one in planes])
    refined, study = run_sequence_head(model.bundle, embeddings, positions)
    assert series.finding is not None
    assert series.finding["probabilities"]["any"] == pytest.approx(1 / (1 + np.exp(-study[0])), abs=1e-3)
    shown = [one["probabilities"]["any"] for one in series.finding["slices"]]
    assert shown == pytest.approx(list(1 / (1 + np.exp(-refined[:, 0]))), abs=1e-3)
    assert shown != pytest.approx([1 / (1 + np.exp(-one.logits[0])) for one in planes], abs=1e-3), "not the slices' own"


def test_slices_are_scored_while_others_are_still_on_the_wire(site: Site) -> None:
    uid, files = site.head()
    entity = AE(ae_title="SCANNER1")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", site.node.receiver.port, ae_title="ICH_NODE")
    for path in files[:6]:
        assert association.send_c_store(path).Status == 0x0000
    wait_for(lambda: not site.node.worker.step(), "the worker has nothing to do")

    with site.node.database.reading() as connection:
        assert connection.exec_driver_sql("select count(*) from plane").scalar() == 6
    assert site.node.status(uid).studies[0].outcome == "in progress"

    for path in files[6:]:
        assert association.send_c_store(path).Status == 0x0000
    association.release()
    assert site.settled(uid).series[0].complete is True


def test_the_same_study_sent_again_changes_nothing(site: Site) -> None:
    uid, files = site.head()
    site.send(files)
    before = site.settled(uid)

    site.send(files)

    assert site.settled(uid) == before
    assert len(list((site.node.config.state_directory / "spool").rglob("*.dcm"))) == 12


def test_a_late_slice_is_reported_as_revision_2(site: Site) -> None:
    uid, files = site.head()
    site.send([*files[:5], *files[6:]])
    first = site.settled(uid)
    assert (first.revision, first.series[0].complete) == (1, False)

    site.send([files[5]])
    second = site.settled(uid)

    assert (second.revision, second.series[0].complete) == (2, True)
    assert [one.CompletionFlag for one in site.reports(uid)] == ["PARTIAL", "COMPLETE"]
    assert [one.revision for one in second.deliveries] == [1, 2]


def test_a_corrected_slice_is_reported_as_revision_2(site: Site) -> None:
    uid, files = site.head()
    site.send(files)
    assert site.settled(uid).revision == 1

    corrected = dcmread(files[3])
    corrected.PatientName = "Corrected^Name"
    corrected.save_as(files[3])
    site.send([files[3]])

    study = site.settled(uid)
    assert (study.revision, study.series[0].slices) == (2, 12)


def test_too_few_slices_of_a_head_are_told_and_later_ones_give_revision_2(site: Site) -> None:
    uid, files = site.head()
    site.send(files[:5])
    study = site.settled(uid)
    site.node.settle()  # the study is told of after its last series has ended
    study = site.settled(uid)

    assert study.outcome == "not analysed: fewer than 10 slices"
    assert (study.revision, study.triage) == (1, None)
    (report,) = site.reports(uid)
    assert "fewer than 10 slices" in text(report, CONCLUSION)
    assert not [item for item in _walk(report) if item.ValueType == NUMBER], "no number where there is no result"

    site.send(files[5:])
    study = site.settled(uid)
    assert (study.revision, study.series[0].state) == (2, "CONCLUDED")
    assert study.triage is not None
    assert len(site.reports(uid)) == 2


def test_too_few_slices_are_waited_for_until_max_wait(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> None:
    with open_site(tmp_path, tiny_model, decoder, series={"quiet_s": 0.1, "max_wait_s": 30.0}) as site:
        uid, files = site.head()
        site.send(files[:5])
        wait_for(lambda: (site.node.worker.step(), "series closed" not in _state(site, uid))[1], "it is open")
        site.send(files[5:])
        study = site.settled(uid)
    assert (study.revision, study.series[0].complete) == (1, True), "one report, since the rest came in time"


def test_a_head_ct_that_cannot_be_read_is_told(site: Site) -> None:
    uid, files = site.head()
    for path in files:
        _spoil_pixels(path)
    site.send(files)

    site.node.settle()
    study = site.settled(uid)

    assert study.outcome == "not analysed: no slice of the series could be read"
    assert study.series[0].unreadable == 12
    (report,) = site.reports(uid)
    assert "no slice of the series could be read" in text(report, CONCLUSION)


def test_one_slice_that_cannot_be_decoded_makes_the_study_incomplete(site: Site) -> None:
    uid, files = site.head()
    _spoil_pixels(files[4])
    site.send(files)

    study = site.settled(uid)

    (series,) = study.series
    assert (series.state, series.unreadable, series.complete) == ("CONCLUDED", 1, False)
    assert study.outcome.endswith(", incomplete")
    (report,) = site.reports(uid)
    assert report.CompletionFlag == "PARTIAL"
    assert "1 unreadable" in report.CompletionFlagDescription


def test_a_crash_of_the_decoder_costs_one_slice(tmp_path: Path, tiny_model: Model) -> None:
    with (
        DecoderPool(DecodeLimits(), kill_the_child_at_slice_7) as crashing,
        open_site(tmp_path, tiny_model, crashing) as site,
    ):
        uid, files = site.head()
        site.send(files)
        study = site.settled(uid)

        (series,) = study.series
        assert (series.state, series.slices, series.unreadable) == ("CONCLUDED", 12, 1)
        assert series.complete is False
        with site.node.database.reading() as connection:
            rows = connection.exec_driver_sql("select reason from instance where state = 'UNREADABLE'").all()
        assert [row[0] for row in rows] == [NotAnalysedReason.DECODE_CRASHED.name]
        assert site.reports(uid)[0].CompletionFlag == "PARTIAL"


def test_an_untrained_model_gives_no_finding(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> None:
    with open_site(tmp_path, replace(tiny_model, show_untrained=False), decoder) as site:
        uid, files = site.head()
        site.send(files)
        study = site.settled(uid)

        assert study.outcome == "untrained model, no finding"
        assert study.triage is None
        assert study.series[0].finding is not None
        assert not study.series[0].finding["probabilities"]
        (report,) = site.reports(uid)
        assert "Untrained model, no finding" in text(report, CONCLUSION)
        assert not [item for item in _walk(report) if item.ValueType == NUMBER]


def test_a_series_that_cannot_be_concluded_fails_visibly_and_stops_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, bad_files = site.head(patient_name="Secret^Name")
    good, good_files = site.head()
    build = concluding.report

    def fail_for_the_bad_study(identity: Any, *rest: Any, **more: Any) -> Any:
        if identity.study_instance_uid == bad:
            raise ValueError("the header of Secret^Name cannot be used")
        return build(identity, *rest, **more)

    for part in (concluding, telling):
        monkeypatch.setattr(part, "report", fail_for_the_bad_study)
    monkeypatch.setattr(loop, "_RETRY_S", 0.01)
    with caplog.at_level(logging.DEBUG):
        site.send(bad_files)
        site.send(good_files)
        site.node.settle()
        study = site.settled(bad)

    assert study.series[0].state == "FAILED"
    assert study.outcome == "not analysed: the analysis failed"
    assert study.series[0].why == "the analysis failed (ValueError)"
    assert study.revision == 0, "not even the report that says so could be built; the status says it"
    assert site.settled(good).series[0].state == "CONCLUDED"
    logged = "\n".join(_JsonLines("work").format(record) for record in caplog.records)
    assert "ValueError" in logged
    assert "Secret" not in logged
    assert "Secret" not in json.dumps(study.series[0].why)


def test_a_database_that_stays_locked_stops_nothing(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> None:
    with open_site(tmp_path, tiny_model, decoder, database={"busy_timeout_s": 0.2}) as site:
        uid, files = site.head()
        site.send(files)
        stop = threading.Event()
        node = site.node
        other = sqlite3.connect(node.config.state_directory / "ich-node.sqlite", isolation_level=None)
        loops = [
            threading.Thread(target=node.worker.run, args=(stop,)),
            threading.Thread(target=node.deliverer.run, args=(stop,)),
        ]
        for thread in loops:
            thread.start()
        try:
            for _ in range(3):  # whatever the loops are in the middle of
                stop.wait(0.2)
                other.execute("BEGIN IMMEDIATE")
                stop.wait(0.7)
                other.execute("ROLLBACK")
            assert all(thread.is_alive() for thread in loops)
            wait_for(lambda: node.status(uid).deliveries == {"DELIVERED": 1}, "the report is delivered")
        finally:
            stop.set()
            for thread in loops:
                thread.join(30)
            other.close()
        assert (node.status(uid).studies[0].revision, len(site.reports(uid))) == (1, 1)


@pytest.mark.parametrize("role", ["work", "deliver"])
def test_memory_is_given_back_now_and_then(
    role: str, site: Site, tiny_model: Model, decoder: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    stop = threading.Event()

    def alive() -> None:
        done.append("round")
        if done.count("round") == 5:
            stop.set()

    monkeypatch.setattr(service, "give_memory_back", lambda: done.append("given back"))
    config, database = site.node.config, site.node.database
    if role == "work":
        Worker(config, database, tiny_model, decoder, "2.25.1", alive).run(stop)
    else:
        Deliverer(config, database, alive).run(stop)
    assert done == ["round", "given back", *["round"] * 4], "not in every round: it takes time"


def test_two_workers_conclude_a_study_once(site: Site, tiny_model: Model, decoder: DecoderPool) -> None:
    studies = [site.head() for _ in range(3)]
    node = site.node
    second = Worker(node.config, node.database, tiny_model, decoder, "2.25.1")
    second._owner = "elsewhere:1:0.00"  # both live in this process
    stop = threading.Event()
    loops = [threading.Thread(target=one.run, args=(stop,)) for one in (node.worker, second)]
    for thread in loops:
        thread.start()
    try:
        for _, files in studies:
            site.send(files)
        wait_for(lambda: node.status().series == {"CONCLUDED": 3}, "all are concluded")
    finally:
        stop.set()
        for thread in loops:
            thread.join(30)

    for uid, _ in studies:
        study = site.settled(uid)
        assert study.revision == 1
        assert len(site.reports(uid)) == 1


def test_results_go_back_to_whoever_sent_the_images(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> None:
    with SmallPacs(tmp_path / "scanner") as scanner:
        peer = {"ae_title": "CT1", "address": "127.0.0.1", "destinations": [], "return_port": scanner.port}
        with open_site(tmp_path, tiny_model, decoder, peer=[peer]) as site:
            uid, files = site.head()
            site.send(files, calling_ae_title="CT1")
            study = site.settled(uid)

            delivery = study.deliveries[0]
            assert {(one.destination, one.state) for one in study.deliveries} == {("sender-CT1-127.0.0.1", "DELIVERED")}
            assert scanner.path_of(delivery.sop_instance_uid or "") is not None
            assert not site.reports(uid), "this peer chose no other destination"


def test_the_log_names_no_patient(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    uid, files = site.head(patient_name="Secret^Name", patient_id="SECRET-ID", accession_number="SECRET-ACC")
    _spoil_pixels(files[2])
    with caplog.at_level(logging.DEBUG, logger="ich_node"):
        site.send(files)
        site.settled(uid)

    logged = [_JsonLines("work").format(record) for record in caplog.records if record.name.startswith("ich_node")]
    assert any("plane scored" in line for line in logged)
    assert any("slice not scored" in line for line in logged)
    assert not any("secret" in line.lower() for line in logged)


def text(report: Dataset, code_value: str) -> str:
    return "\n".join(str(item.TextValue) for item in items(report, code_value))


def _walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _walk(child)


def _state(site: Site, uid: str) -> dict[str, float]:
    (study,) = site.node.status(uid).studies
    return study.series[0].steps or {}


def _spoil_pixels(path: Path) -> None:
    """Keep the header and make of the pixels what looks like JPEG 2000 and is not."""
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(96)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
