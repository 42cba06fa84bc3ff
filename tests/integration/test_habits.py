"""A sender's habits: a series that has as many slices as all before it closes at once, and what ends a habit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from ich_node.database import OpenAssociationRow
from ich_node.decode import DecoderPool
from ich_node.phantom import write_series
from ich_node.pipeline import Model
from tests.integration.test_whole_or_not import held_association, store
from tests.integration.test_worker import HEAD, Site, open_site
from tests.running import wait_for
from tests.unit.queueing import make_due, rows

SERIES = 8
LONG = {"quiet_s": 60.0, "max_wait_s": 120.0, "habits": True}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A head that each study shows again."""
    return write_series(tmp_path_factory.mktemp("head"), replace(HEAD, rows=32))


def of_a_new_study(files: Sequence[Path], folder: Path) -> list[Path]:
    study, series, made = str(generate_uid()), str(generate_uid()), folder / str(generate_uid())
    made.mkdir(parents=True)
    for path in files:
        image = dcmread(path)
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = str(generate_uid())
        image.save_as(made / path.name)
    return sorted(made.iterdir())


def sent(site: Site, files: Sequence[Path]) -> str:
    site.send(files)
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def work(site: Site) -> None:
    wait_for(lambda: not site.node.worker.step(), "the worker has nothing to do")


def wait_ended(site: Site) -> None:
    """Do what there is to do; what is not due now stays."""
    wait_for(lambda: not rows(site.node.database, OpenAssociationRow), "the release is noted")
    work(site)


def state(site: Site, uid: str) -> tuple[str, int]:
    study = site.node.status(uid).studies[0]
    return study.series[0].state, study.revision


def test_a_known_count_closes_a_series_at_once_until_a_slice_comes_late(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool, head: list[Path]
) -> None:
    def study() -> list[Path]:
        return of_a_new_study(head, site.folder)

    with open_site(tmp_path, tiny_model, decoder, series=LONG) as site:
        known = [sent(site, study()) for _ in range(SERIES)]
        wait_ended(site)
        assert {state(site, uid) for uid in known} == {("RECEIVING", 0)}, "no series is known yet: they wait"
        make_due(site.node.database)
        work(site)
        assert {state(site, uid) for uid in known} == {("CONCLUDED", 1)}

        uid = sent(site, study())
        wait_ended(site)
        assert state(site, uid) == ("CONCLUDED", 1), "read after its release"

        files = study()
        with held_association(site) as opened:
            store(opened, files)
            work(site)
            uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
            assert state(site, uid) == ("RECEIVING", 0), "its association is open"
        wait_ended(site)
        assert state(site, uid) == ("CONCLUDED", 1), "read before its release"

        sent(site, [one_more(files)])
        make_due(site.node.database)
        work(site)
        assert state(site, uid) == ("CONCLUDED", 2)

        uid = sent(site, study())
        wait_ended(site)
        assert state(site, uid) == ("RECEIVING", 0), "one of the last eight had more slices"


def one_more(files: Sequence[Path]) -> Path:
    """A slice above the highest."""
    late = dcmread(files[-1])
    late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = str(generate_uid())
    late.ImagePositionPatient[2] += HEAD.slice_spacing_mm
    late.save_as(files[-1].with_name("late.dcm"))
    return files[-1].with_name("late.dcm")
