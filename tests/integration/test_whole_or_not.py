"""Has the whole series arrived? Pauses, parts, late slices and what the PACS counts: over real sockets and SQLite."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.association import Association

from ich_node.association import keep_answers
from ich_node.database import OpenAssociationRow, SeriesRow
from ich_node.decode import DecoderPool
from ich_node.deliverer import start_asking
from ich_node.pacs import SmallPacs, send_study
from ich_node.pacs_askers import CountAsker
from ich_node.pipeline import Model
from ich_node.queries import SeriesStatus
from ich_node.routing import pacs_to_ask
from ich_node.worker import concluding
from tests.integration.test_who_and_when import predecessor_of
from tests.integration.test_worker import Site, open_site
from tests.running import free_port, leaks_a_socket, wait_for
from tests.unit.queueing import rows

PATIENT = {"quiet_s": 0.3, "max_wait_s": 2.5}
WAITS_LONG = {"quiet_s": 600.0, "max_wait_s": 1200.0}
"""So long that a series that settles in a test was closed by something else."""
THIN = {"slices": 28, "slice_spacing_mm": 5.0, "rows": 32}


@pytest.fixture
def site(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> Iterator[Site]:
    with open_site(tmp_path, tiny_model, decoder, series=PATIENT) as one:
        yield one


def work_for(site: Site, seconds: float) -> None:
    """Let time pass while the node works."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        site.node.worker.step()
        site.node.deliverer.step()
        time.sleep(0.02)


def work_until_idle(site: Site) -> None:
    wait_for(lambda: not site.node.worker.step(), "the worker has nothing to do")


def series_of(site: Site, uid: str) -> SeriesStatus:
    ((series,),) = (study.series for study in site.node.status(uid).studies)
    return series


@contextmanager
def held_association(site: Site) -> Iterator[Association]:
    entity = AE(ae_title="SCANNER1")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", site.node.receiver.port, ae_title="ICH_NODE")
    assert association.is_established
    keep_answers(association)
    try:
        yield association
    finally:
        association.release()


def store(association: Association, files: Sequence[Path]) -> None:
    assert [association.send_c_store(path).Status for path in files] == [0x0000] * len(files)


def looks_whole_early(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Every second slice, which together look like a whole head, and those between."""
    return list(files[::2]), list(files[1::2])


# ------------------------------------------------------------------------------------------------- pauses


class _Dawdles(logging.Filter):
    """Holds up the thread that has answered a release, where it says so to the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.getMessage() == "Association Released":
            time.sleep(0.5)
        return True


def test_a_connection_that_closes_before_the_release_was_noted_takes_nothing_from_it(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool
) -> None:
    """The peer closes on our answer to its release, while the thread that answered is still about to tell of it."""
    logger, patient = logging.getLogger("pynetdicom.association"), {"quiet_s": 2.0, "max_wait_s": 600.0}
    dawdles = _Dawdles()
    with open_site(tmp_path, tiny_model, decoder, series=patient) as site:
        before = logger.level
        logger.addFilter(dawdles)
        logger.setLevel(logging.INFO)
        try:
            site.send(site.head(**THIN)[1])
            wait_for(lambda: not rows(site.node.database, OpenAssociationRow), "the association has ended")
        finally:
            logger.removeFilter(dawdles)
            logger.setLevel(before)
        (series,) = rows(site.node.database, SeriesRow)
    assert series.due_at == pytest.approx(series.last_received_at + 2.0, abs=0.001)


def test_a_pause_in_the_middle_of_an_association_ends_nothing(site: Site) -> None:
    uid, files = site.head(**THIN)
    first, rest = looks_whole_early(files)
    with held_association(site) as association:
        store(association, first)
        work_for(site, 0.8)
        assert series_of(site, uid).state == "RECEIVING", "longer than the quiet time, and still open"
        store(association, rest)

    study = site.settled(uid)

    assert (study.revision, study.series[0].slices, study.series[0].complete) == (1, 28, True)
    assert len(site.reports(uid)) == 1


def test_a_pause_between_two_associations_ends_nothing(site: Site) -> None:
    uid, files = site.head(**THIN)
    site.send(files[:14])
    work_for(site, 0.8)
    site.send(files[14:])

    study = site.settled(uid)

    assert (study.revision, study.series[0].slices, study.series[0].complete) == (1, 28, True)
    assert len(site.reports(uid)) == 1


def test_slices_in_associations_of_their_own_are_one_series_whatever_their_pauses(site: Site) -> None:
    uid, files = site.head(**THIN)
    first, rest = looks_whole_early(files)
    for part in ([one] for one in first[:2]):
        site.send(part)
        work_for(site, 0.6)
    site.send(first[2:])
    for part in (rest[:4], rest[4:8], rest[8:]):
        work_for(site, 0.6)
        assert series_of(site, uid).state == "RECEIVING", "twice the longest pause has not passed"
        site.send(part)

    study = site.settled(uid)

    assert (study.revision, study.series[0].slices, study.series[0].complete) == (1, 28, True)


def test_a_held_association_closes_when_no_slice_has_come_for_max_wait(site: Site) -> None:
    uid, files = site.head(**THIN)
    first, rest = looks_whole_early(files)
    with held_association(site) as association:
        store(association, first)
        before = site.settled(uid)
        assert (before.revision, before.series[0].complete) == (1, True), "the half looks whole, as it should here"
        assert association.is_established
        store(association, rest)
        study = site.settled(uid)
        assert association.is_established

    assert (study.revision, study.series[0].slices) == (2, 28), "what comes later is a new revision"


# --------------------------------------------------------------------------------------------- parts and gaps


def test_half_a_head_is_waited_for_and_then_told_to_be_incomplete(site: Site) -> None:
    uid, files = site.head(**THIN)
    site.send(files[14:])
    work_for(site, 0.8)
    assert series_of(site, uid).state == "RECEIVING", "its quiet time is over"

    study = site.settled(uid)

    finding = study.series[0].finding
    assert finding is not None
    assert (study.revision, study.series[0].complete, finding["short"], finding["gaps_mm"]) == (1, False, True, [])
    assert study.triage != "negative"
    assert site.reports(uid)[0].CompletionFlag == "PARTIAL"


def test_a_head_without_a_slice_inside_is_told_to_have_a_gap_there(site: Site) -> None:
    uid, files = site.head(**THIN)
    missing = dcmread(files[9]).ImagePositionPatient[2]
    site.send([*files[:9], *files[10:]])

    study = site.settled(uid)

    assert study.series[0].complete is False
    assert study.series[0].finding is not None
    ((below, above),) = study.series[0].finding["gaps_mm"]
    assert below < missing < above
    (report,) = site.reports(uid)
    assert report.CompletionFlag == "PARTIAL"
    assert "gaps at mm" in report.CompletionFlagDescription


# ------------------------------------------------------------------------------------------------ late slices


def test_late_slices_make_one_new_revision_that_names_the_one_before(site: Site) -> None:
    uid, files = site.head(**THIN)
    site.send([*files[:12], *files[14:]])
    assert site.settled(uid).revision == 1

    for late in files[12:14]:
        site.send([late])
        work_for(site, 0.8)
        assert series_of(site, uid).state == "RECEIVING", "late slices are collected for max_wait_s"
    study = site.settled(uid)

    first, second = site.reports(uid)
    assert (study.revision, study.series[0].slices, study.series[0].complete) == (2, 28, True)
    assert predecessor_of(second) == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first
    assert [one.CompletionFlag for one in (first, second)] == ["PARTIAL", "COMPLETE"]


@pytest.mark.parametrize("moment", ["analyse_series", "conclude_series"])
def test_a_slice_that_arrives_while_its_series_is_being_concluded_is_never_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    uid, files = site.head(**THIN)
    first, rest = looks_whole_early(files)
    late = iter([rest])
    original: Callable[..., Any] = getattr(concluding, moment)

    def send_the_rest(*positional: Any, **named: Any) -> Any:
        if (files_now := next(late, None)) is not None:
            site.send(files_now)
        return original(*positional, **named)

    monkeypatch.setattr(concluding, moment, send_the_rest)
    site.send(first)
    study = site.settled(uid)

    assert next(late, None) is None, "they did arrive at that moment"
    assert (study.revision, study.series[0].slices, study.series[0].complete) == (1, 28, True)
    assert study.series[0].finding is not None
    assert len(study.series[0].finding["slices"]) == 28
    assert len(site.reports(uid)) == 1


# --------------------------------------------------------------------------------------------- the PACS counts


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[SmallPacs]:
    """The PACS that is asked how many images a series has."""
    with SmallPacs(tmp_path / "archive") as one:
        yield one


def query(port: int) -> dict[str, Any]:
    return {"ae_title": "PACS", "host": "127.0.0.1", "port": port}


def ask_the_pacs(site: Site) -> None:
    pacs = pacs_to_ask(site.node.config)
    assert pacs is not None
    asker = CountAsker(site.node.config, site.node.database, pacs)
    wait_for(asker.step, "the PACS is asked")


def test_a_series_that_is_all_here_by_the_count_of_the_pacs_is_closed_at_once(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool, archive: SmallPacs
) -> None:
    with open_site(tmp_path, tiny_model, decoder, series=WAITS_LONG, query=query(archive.port)) as site:
        uid, files = site.head()
        send_study(files, "127.0.0.1", archive.port, "PACS")
        site.send(files)
        work_until_idle(site)
        assert series_of(site, uid).state == "RECEIVING"

        ask_the_pacs(site)
        study = site.settled(uid)

    assert (study.revision, study.series[0].complete, study.series[0].expected) == (1, True, 12)


def test_a_series_of_which_the_pacs_holds_more_is_told_to_be_short(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool, archive: SmallPacs
) -> None:
    with open_site(tmp_path, tiny_model, decoder, series=PATIENT, query=query(archive.port)) as site:
        uid, files = site.head(slices=14)
        send_study(files, "127.0.0.1", archive.port, "PACS")
        with held_association(site) as association:
            store(association, files[:13])
            ask_the_pacs(site)
        study = site.settled(uid)

        finding = study.series[0].finding
        assert finding is not None
        assert (finding["gaps_mm"], finding["short"], finding["missing_by_count"]) == ([], False, 1)
        assert (study.series[0].complete, study.triage != "negative") == (False, True)
        assert site.reports(uid)[0].CompletionFlag == "PARTIAL"
        site.send(files[13:])
        second = site.settled(uid)

    assert (second.revision, second.series[0].complete) == (2, True)


@leaks_a_socket
def test_a_pacs_that_cannot_be_asked_holds_up_nothing(tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> None:
    with open_site(tmp_path, tiny_model, decoder, query=query(free_port())) as site:
        stop = threading.Event()
        start_asking(site.node.config, site.node.database, stop)
        (thread,) = [one for one in threading.enumerate() if one.name == "ask"]
        try:
            uid, files = site.head()
            site.send(files)
            study = site.settled(uid)
        finally:
            stop.set()
            thread.join(30)

        assert (study.revision, study.series[0].complete, study.series[0].expected) == (1, True, None)
        assert len(site.reports(uid)) == 1
