"""Whose images they are, what takes a result back, and what goes first: over real sockets and SQLite."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage, RLELossless, generate_uid
from sqlalchemy import select

from ich_node.database import InstanceRow, SeriesRow
from ich_node.decode import DecoderPool
from ich_node.job_queue import reject_quarantined, release_quarantined, requeue
from ich_node.pacs import SmallPacs
from ich_node.pipeline import Model
from ich_node.queries import StudyStatus
from tests.integration.test_worker import CONCLUSION, Site, open_site, text
from tests.running import free_port, leaks_a_socket, wait_for


@pytest.fixture
def site(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> Iterator[Site]:
    with open_site(tmp_path, tiny_model, decoder) as one:
        yield one


def change(files: Sequence[Path], **values: Any) -> list[Path]:
    """Change attributes in files, as a correction at the scanner or in the PACS does."""
    for path in files:
        dataset = dcmread(path)
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    return list(files)


def paint(path: Path) -> None:
    """Change pixels and nothing else."""
    dataset = dcmread(path)
    pixels = bytearray(dataset.PixelData)
    pixels[2000:2200] = bytes(200)
    dataset.PixelData = bytes(pixels)
    dataset.save_as(path)


def predecessor_of(report: Dataset) -> str:
    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (one,) = series.ReferencedSOPSequence
    return str(one.ReferencedSOPInstanceUID)


def settled_with_its_reports(site: Site, uid: str) -> StudyStatus:
    """A study is told of after its last series has ended."""
    site.settled(uid)
    return site.settled(uid)


# ------------------------------------------------------------------------ the same image in another version


def test_an_unknown_patient_who_gets_a_name_while_the_series_arrives_is_reported_under_it_once(site: Site) -> None:
    uid, files = site.head(patient_name="Unknown^Trauma", patient_id="TRAUMA-7")
    site.send(files[:7])
    change(files, PatientName="Known^Person", PatientID="ID-9")
    site.send(files)

    study = site.settled(uid)

    (report,) = site.reports(uid)
    assert (study.revision, study.series[0].state, study.series[0].slices) == (1, "CONCLUDED", 12)
    assert (str(report.PatientName), report.PatientID) == ("Known^Person", "ID-9")


def test_a_name_that_is_corrected_for_the_later_slices_only_is_no_second_patient(site: Site) -> None:
    uid, files = site.head(patient_name="Unknown^Trauma", patient_id="TRAUMA-7")
    change(files[6:], PatientName="Known^Person")
    site.send(files)

    assert site.settled(uid).series[0].state == "CONCLUDED"
    assert str(site.reports(uid)[0].PatientName) == "Known^Person"


def test_a_patient_who_gets_a_name_after_the_report_gets_a_new_revision_that_names_the_first(site: Site) -> None:
    uid, files = site.head(patient_name="Unknown^Trauma", patient_id="TRAUMA-7", accession_number="A1")
    site.send(files)
    assert site.settled(uid).revision == 1

    site.send(change(files, PatientName="Known^Person", PatientID="ID-9", AccessionNumber="A2"))
    study = site.settled(uid)

    first, second = site.reports(uid)
    assert (study.revision, len(study.series)) == (2, 1)
    assert (str(second.PatientName), second.PatientID, second.AccessionNumber) == ("Known^Person", "ID-9", "A2")
    assert predecessor_of(second) == first.SOPInstanceUID
    assert second.SeriesInstanceUID != first.SeriesInstanceUID, "a series never holds two patients"


@pytest.mark.parametrize("what", ["transcoded", "another header"])
def test_a_copy_that_changes_nothing_that_is_reported_makes_no_revision(site: Site, what: str) -> None:
    uid, files = site.head()
    site.send(files)
    before = site.settled(uid)

    if what == "transcoded":
        for path in files:
            dataset = dcmread(path)
            dataset.compress(RLELossless, generate_instance_uid=False)
            dataset.save_as(path)
    else:
        change(files, InstitutionName="Another Hospital")
    site.send(files)
    study = site.settled(uid)

    assert (study.revision, study.triage, study.series[0].state) == (1, before.triage, "CONCLUDED")
    assert len(site.reports(uid)) == 1
    with site.node.database.reading() as connection:
        assert len(connection.execute(select(InstanceRow.id)).all()) == 24, "both versions are kept"


def test_other_pixels_under_the_same_uid_are_quarantined_and_nothing_is_said(site: Site) -> None:
    uid, files = site.head()
    site.send(files[:6])
    site.node.worker.step()
    paint(files[2])
    site.send(files)

    study = settled_with_its_reports(site, uid)

    assert study.series[0].state == "QUARANTINED"
    assert "an image's UID came again with another picture" in study.series[0].why
    assert (study.revision, site.reports(uid)) == (0, [])


def test_another_position_under_the_same_uid_is_another_picture(site: Site) -> None:
    uid, files = site.head()
    site.send(files)
    site.settled(uid)
    site.send(change(files[3:4], ImagePositionPatient=[0, 0, 500]))

    assert settled_with_its_reports(site, uid).series[0].state == "QUARANTINED"


def test_other_pixels_after_the_report_withdraw_it_and_a_release_reports_anew(site: Site) -> None:
    uid, files = site.head()
    site.send(files)
    assert site.settled(uid).triage is not None
    paint(files[2])
    site.send(files[2:3])
    withdrawn = settled_with_its_reports(site, uid)

    assert (withdrawn.revision, withdrawn.triage) == (2, None)
    first, second = site.reports(uid)
    assert "WITHDRAWN" in text(second, CONCLUSION)
    assert "no result" in text(second, CONCLUSION)
    assert predecessor_of(second) == first.SOPInstanceUID
    assert second.SeriesInstanceUID == first.SeriesInstanceUID
    assert not [one for one in second.ContentSequence if one.ValueType == "NUM"]

    assert release_quarantined(site.node.database, uid) == 1
    released = site.settled(uid)

    assert (released.revision, released.series[0].state) == (3, "CONCLUDED")
    assert released.triage is not None
    assert predecessor_of(site.reports(uid)[2]) == second.SOPInstanceUID
    site.send(files)
    assert site.settled(uid) == released, "what was released stays so"


def test_a_person_can_reject_what_is_quarantined(site: Site) -> None:
    uid, files = site.head()
    change(files[5:], PatientID="SOMEBODY-ELSE")
    site.send(files)
    site.settled(uid)

    assert reject_quarantined(site.node.database, uid) == 1
    assert site.settled(uid).series[0].state == "REJECTED"
    assert requeue(site.node.database, uid=uid) == 0


# ------------------------------------------------------------------------------------------ what was mixed up


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PatientID": "OTHER"}, "two patients"),
        ({"PatientName": "Other^One", "PatientBirthDate": "20010101"}, "two patients"),
        ({"FrameOfReferenceUID": "1.2.3.4"}, "two frames of reference"),
    ],
)
def test_a_series_that_mixes_is_quarantined_and_nothing_is_reported(
    site: Site, changes: dict[str, str], reason: str
) -> None:
    uid, files = site.head()
    site.send(change(files[8:], **changes) + files[:8])

    study = settled_with_its_reports(site, uid)

    assert study.series[0].state == "QUARANTINED"
    assert reason in study.series[0].why
    assert (study.revision, site.reports(uid)) == (0, [])


def test_a_series_in_two_studies_is_quarantined_in_both(site: Site) -> None:
    series = str(generate_uid())
    first, files = site.head(series_instance_uid=series)
    second, others = site.head(series_instance_uid=series)
    site.send([*files, *others])

    for uid in (first, second):
        study = settled_with_its_reports(site, uid)
        assert (study.series[0].state, study.revision) == ("QUARANTINED", 0)
        assert "two studies" in study.series[0].why


def test_the_same_uid_in_another_study_quarantines_both_and_withdraws_what_was_said(site: Site) -> None:
    uid, files = site.head()
    site.send(files)
    assert site.settled(uid).revision == 1
    other = str(generate_uid())
    site.send(change(files, StudyInstanceUID=other, SeriesInstanceUID=str(generate_uid())))

    assert settled_with_its_reports(site, other).series[0].state == "QUARANTINED"
    study = settled_with_its_reports(site, uid)
    assert (study.series[0].state, study.revision, study.triage) == ("QUARANTINED", 2, None)
    assert "WITHDRAWN" in text(site.reports(uid)[-1], CONCLUSION)
    assert site.reports(other) == []


def test_slices_that_were_mixed_up_and_come_again_corrected_in_time_are_reported(site: Site) -> None:
    uid, files = site.head()
    site.send(change(files[:3], PatientID="OTHER"))
    site.send(change(files[:3], PatientID="PHANTOM-1") + files[3:])

    study = site.settled(uid)

    assert (study.series[0].state, study.revision) == ("CONCLUDED", 1)


# ------------------------------------------------------------------------------------------- rejection notes


def rejection_note(folder: Path, code: str, study_instance_uid: str, files: Sequence[Path]) -> Path:
    """A key object selection that takes images back (PS3.3 A.35.4, title of PS3.16 CID 7011)."""
    note = Dataset()
    note.file_meta = FileMetaDataset()
    note.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    note.SOPClassUID = KeyObjectSelectionDocumentStorage
    note.SOPInstanceUID = note.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    note.file_meta.MediaStorageSOPClassUID = note.SOPClassUID
    note.StudyInstanceUID, note.SeriesInstanceUID, note.Modality = study_instance_uid, generate_uid(), "KO"
    title, study, series = Dataset(), Dataset(), Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code, "DCM", "Rejected"
    note.ConceptNameCodeSequence = [title]
    headers = [dcmread(path, stop_before_pixels=True) for path in files]
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    series.ReferencedSOPSequence = []
    for header in headers:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        series.ReferencedSOPSequence.append(one)
    study.StudyInstanceUID, study.ReferencedSeriesSequence = study_instance_uid, [series]
    note.CurrentRequestedProcedureEvidenceSequence = [study]
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{note.SOPInstanceUID}.dcm"
    note.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(("code", "words"), [("113001", "quality"), ("113037", "safety"), ("113038", "worklist")])
def test_a_rejection_note_after_the_report_withdraws_it(site: Site, code: str, words: str) -> None:
    uid, files = site.head()
    site.send(files)
    assert site.settled(uid).revision == 1

    site.send([rejection_note(site.folder, code, uid, files)])
    study = settled_with_its_reports(site, uid)

    assert (study.revision, study.triage) == (2, None)
    assert {one.state for one in study.series if one.modality == "CT"} == {"REJECTED"}
    assert words in text(site.reports(uid)[-1], CONCLUSION)
    site.send(change(files[:1], InstitutionName="Sent again"))
    assert settled_with_its_reports(site, uid).revision == 2, "what was rejected stays so"


def test_a_note_that_only_says_that_the_retention_time_is_over_rejects_nothing(site: Site) -> None:
    uid, files = site.head()
    site.send(files)
    site.settled(uid)
    site.send([rejection_note(site.folder, "113039", uid, files)])

    study = settled_with_its_reports(site, uid)
    assert study.revision == 1
    assert study.triage is not None


def test_a_note_that_rejects_one_slice_leaves_a_study_without_it(site: Site) -> None:
    uid, files = site.head()
    site.send(files)
    site.settled(uid)
    site.send([rejection_note(site.folder, "113001", uid, files[4:5])])

    study = settled_with_its_reports(site, uid)

    assert (study.revision, study.series[0].slices, study.series[0].complete) == (2, 11, False)


def test_images_that_come_after_their_rejection_are_not_analysed(site: Site) -> None:
    uid, files = site.head()
    site.send([rejection_note(site.folder, "113001", uid, files)])
    site.settled(uid)
    site.send(files)

    study = settled_with_its_reports(site, uid)
    assert (study.revision, site.reports(uid)) == (0, [])


@leaks_a_socket
def test_a_withdrawal_stops_what_is_still_to_be_sent(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> None:
    port = free_port()
    down = [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "objects": ["report"]}]
    with open_site(tmp_path, tiny_model, decoder, destination=down) as site:
        uid, files = site.head()
        site.send(files)
        site.settled(uid)
        assert site.node.status(uid).studies[0].deliveries[0].state == "PENDING"
        site.send([rejection_note(site.folder, "113001", uid, files)])
        settled_with_its_reports(site, uid)

        with SmallPacs(tmp_path / "late", port=port) as pacs:
            _deliver_all(site, uid)
            states = [one.state for one in site.node.status(uid).studies[0].deliveries]
            assert states == ["SUPERSEDED", "DELIVERED"]
            assert len(pacs.received) == 1, "only the withdrawal went out"


def _deliver_all(site: Site, uid: str) -> None:
    def sent() -> bool:
        site.node.deliverer.step()
        return not [one for one in site.node.status(uid).studies[0].deliveries if one.state == "PENDING"]

    wait_for(sent, "everything is delivered")


def test_requeue_raises_the_revision(site: Site) -> None:
    uid, files = site.head()
    site.send(files)
    site.settled(uid)

    assert requeue(site.node.database, uid=uid) == 1

    assert site.settled(uid).revision == 2
    first, second = site.reports(uid)
    assert predecessor_of(second) == first.SOPInstanceUID


# ----------------------------------------------------------------------------------------------- what goes first


def send_old_studies(site: Site, count: int) -> list[str]:
    """Send studies acquired last week, small ones."""
    uids = []
    for number in range(count):
        uid, files = site.head(
            acquired_at=datetime.now().astimezone() - timedelta(days=7), slices=10, rows=32, seed=number % 3
        )
        site.send(files)
        uids.append(uid)
    return uids


@pytest.mark.parametrize(
    "old", [pytest.param(12), pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1500)])]
)
def test_a_new_study_is_first_out_whatever_old_ones_wait(site: Site, old: int) -> None:
    stored: list[str] = []
    site.pacs.on_stored = lambda _path, dataset: stored.append(str(dataset.StudyInstanceUID))
    olds = send_old_studies(site, old)
    new, files = site.head()
    site.send(files)
    with site.node.database.writing() as connection:  # all of them are due
        connection.exec_driver_sql("UPDATE series SET due_at = 0")

    site.node.settle(longest_s=1200)
    _deliver_all(site, new)

    assert stored[0] == new
    assert len(set(stored)) == old + 1
    assert {one.study_instance_uid for one in site.node.status().studies} == {*olds, new}


def test_what_a_rule_puts_first_is_first_out_and_what_it_puts_last_is_last(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool
) -> None:
    rules = [{"level": 10, "station_name": "CT_ER*"}, {"level": -1, "ae_title": "RESEARCH"}]
    with open_site(tmp_path, tiny_model, decoder, priority=rules) as site:
        stored: list[str] = []
        site.pacs.on_stored = lambda _path, dataset: stored.append(str(dataset.StudyInstanceUID))
        last, files = site.head()
        site.send(files, "RESEARCH")
        usual, files = site.head()
        site.send(files)
        urgent, files = site.head()
        site.send(change(files, StationName="CT_ER2"))
        with site.node.database.writing() as connection:
            connection.exec_driver_sql("UPDATE series SET due_at = 0")
        site.node.settle()
        _deliver_all(site, last)

    assert stored == [urgent, usual, last]


def test_a_destination_may_skip_old_studies(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> None:
    with SmallPacs(tmp_path / "all") as takes_all, SmallPacs(tmp_path / "new") as takes_new:
        destinations = [
            {"name": "all", "ae_title": "PACS", "host": "127.0.0.1", "port": takes_all.port, "objects": ["report"]},
            {
                "name": "new",
                "ae_title": "PACS",
                "host": "127.0.0.1",
                "port": takes_new.port,
                "objects": ["report"],
                "skip_old": True,
            },
        ]
        with open_site(tmp_path, tiny_model, decoder, destination=destinations) as site:
            (old,) = send_old_studies(site, 1)
            new, files = site.head()
            site.send(files)
            site.settled(new)
            states = {uid: [one.destination for one in site.settled(uid).deliveries] for uid in (old, new)}

    assert states == {old: ["all"], new: ["all", "new"]}


# ---------------------------------------------------------------------------------------------- interleavings


SLOW = [pytest.mark.slow, pytest.mark.timeout(3600)]
ROUNDS_AT_ONCE = 10


@pytest.mark.parametrize(("rounds", "seed"), [(5, 0), *(pytest.param(250, seed, marks=SLOW) for seed in (1, 2, 3, 4))])
def test_patients_that_are_sent_interleaved_never_share_a_report(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool, rounds: int, seed: int
) -> None:
    dice = random.Random(seed)
    with open_site(tmp_path, tiny_model, decoder, series={"quiet_s": 0.2, "max_wait_s": 1.0}) as site:
        made = [
            [dcmread(path) for path in site.head(slices=10, rows=32, seed=seed, slice_spacing_mm=13.0)[1]]
            for seed in range(8)
        ]
        mixed_up = reported = 0
        for first in range(0, rounds, ROUNDS_AT_ONCE):
            sent = [
                _send_interleaved(site, made, dice, number)
                for number in range(first, min(first + ROUNDS_AT_ONCE, rounds))
            ]
            site.node.settle(longest_s=600)
            for mixed, expected in sent:
                for uid, patient_id in expected.items():
                    reports = site.reports(uid)
                    if uid in mixed:
                        mixed_up += 1
                        assert reports == [], "what is mixed up is never reported"
                    else:
                        reported += 1
                        assert {one.PatientID for one in reports} == {patient_id}
                        assert {one.StudyInstanceUID for one in reports} == {uid}
        assert reported + mixed_up == 8 * rounds
        assert reported > mixed_up > 0


def _send_interleaved(
    site: Site, made: Sequence[Sequence[Dataset]], dice: random.Random, number: int
) -> tuple[set[str], dict[str, str]]:
    """Send eight patients' slices in one random order; one slice of some carries another patient's ID."""
    folder = site.folder / f"round-{number}"
    folder.mkdir(parents=True)
    paths: list[Path] = []
    expected: dict[str, str] = {}
    mixed: set[str] = set()
    for patient, series in enumerate(made):
        study, series_uid, patient_id = str(generate_uid()), str(generate_uid()), f"ROUND-{number}-PATIENT-{patient}"
        expected[study] = patient_id
        wrong = dice.randrange(10) if dice.random() < 0.15 else None
        if wrong is not None:
            mixed.add(study)
        for at, dataset in enumerate(series):
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series_uid
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            dataset.PatientID = f"ROUND-{number}-PATIENT-{(patient + 1) % 8}" if at == wrong else patient_id
            path = folder / f"{patient}-{at}.dcm"
            dataset.save_as(path)
            paths.append(path)
    dice.shuffle(paths)
    cut = dice.randrange(10, 70)
    for part in (paths[:cut], paths[cut:]):
        try:
            site.send(part)
        except ConnectionError:  # pynetdicom's sender loses an association at times; who sends, sends again
            site.send(part)
    for path in paths:
        path.unlink()
    return mixed, expected


def test_marks_hold_nothing_that_can_be_read(site: Site) -> None:
    uid, files = site.head(patient_name="Secret^Name", patient_id="SECRET-ID")
    site.send(files)
    site.settled(uid)
    with site.node.database.reading() as connection:
        stored = str(connection.execute(select(InstanceRow.marks, InstanceRow.facts)).all())
        stored += str(connection.execute(select(SeriesRow.finding, SeriesRow.choice)).all())
    assert "SECRET" not in stored.upper()


@leaks_a_socket
@pytest.mark.parametrize("what", ["withdrawn", "not analysed"])
def test_a_report_that_there_is_no_result_is_sent_whatever_becomes_of_the_series_meanwhile(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool, what: str
) -> None:
    port = free_port()
    down = [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "objects": ["report"]}]
    with open_site(tmp_path, tiny_model, decoder, destination=down) as site:
        uid, files = site.head()
        if what == "withdrawn":
            site.send(files)
            site.settled(uid)
            paint(files[2])
            site.send(files[2:3])
            settled_with_its_reports(site, uid)
            assert reject_quarantined(site.node.database, uid) == 1
        else:
            site.send(files[:4])
            settled_with_its_reports(site, uid)
            site.send(files[4:5])
        study = settled_with_its_reports(site, uid)
        assert study.triage is None

        with SmallPacs(tmp_path / "late", port=port) as pacs:
            _deliver_all(site, uid)
            (report,) = [dcmread(path) for path in (tmp_path / "late").rglob("*.dcm")]
            assert len(pacs.received) == 1
    assert ("WITHDRAWN" if what == "withdrawn" else "fewer than 10 slices") in text(report, CONCLUSION)
