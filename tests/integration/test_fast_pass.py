"""Every second slice first: what is said, and that the result is the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ich_node.database import PlaneRow, StudyRow
from ich_node.decode import DecoderPool
from ich_node.phantom import write_series
from ich_node.pipeline import Model
from tests.alerting import QUICK, ris
from tests.integration.test_viewer_objects_sent import with_thresholds
from tests.integration.test_worker import HEAD, Site, open_site
from tests.running import free_port
from tests.unit.queueing import rows

QUIET: dict[str, Any] = {"quiet_s": 30.0, "max_wait_s": 30.0}


def alerting(*, fast_pass: bool, **sections: Any) -> dict[str, Any]:
    alert = QUICK | {"fast_pass": fast_pass}
    return {"alert": alert, "alert_hl7": [ris(free_port())], "alert_rule": [{"tell": ["ris"]}]} | sections


def scored_positions(site: Site) -> list[float]:
    return [one.position_mm for one in sorted(rows(site.node.database, PlaneRow), key=lambda one: one.id)]


def result_of(folder: Path, model: Model, decoder: DecoderPool, files: Sequence[Path], **sections: Any) -> Any:
    with open_site(folder, model, decoder, **sections) as site:
        site.send(files)
        study = site.node.settle().studies[0]
        order = scored_positions(site)
        planes = sorted(rows(site.node.database, PlaneRow), key=lambda one: one.position_mm)
        scores = [(one.members, one.position_mm, one.logits, one.embedding, one.tissue) for one in planes]
        return order, scores, study.triage, study.series[0].finding, study.series[0].complete


def test_the_result_is_the_same_to_the_last_digit(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool, files: list[Path]
) -> None:
    slow = result_of(tmp_path / "slow", tiny_model, decoder, files, **alerting(fast_pass=False))
    fast = result_of(tmp_path / "fast", tiny_model, decoder, files, **alerting(fast_pass=True))

    assert slow[0][:-2] == sorted(slow[0][:-2]), "the ends are ready last"
    assert fast[0] != slow[0], "another order"
    assert fast[1:] == slow[1:]
    assert len(fast[1]) > 14
    assert fast[3] is not None


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A thin head; each node has it once."""
    return write_series(tmp_path_factory.mktemp("thin"), replace(HEAD, slices=64, slice_spacing_mm=1.25))


@pytest.mark.parametrize("why_not", [None, "switched off"])
def test_every_second_slab_is_scored_first_where_many_slices_wait(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool, files: list[Path], why_not: str | None
) -> None:
    sections = alerting(fast_pass=why_not != "switched off", series=QUIET)
    with open_site(tmp_path, with_thresholds(tiny_model, 1e-6, 0.99), decoder, **sections) as site:
        site.send(files)
        while len(order := scored_positions(site)) < 6:
            assert site.node.worker.step()
    strides = [round(two - one, 1) for one, two in pairwise(sorted(order[:6]))]
    assert strides.count(10.0 if why_not is None else 5.0) >= 4, strides


def test_a_finding_is_told_while_slices_of_a_series_that_is_due_still_wait(
    tmp_path: Path, tiny_model: Model, decoder: DecoderPool, files: list[Path]
) -> None:
    sections = alerting(fast_pass=True, series={"quiet_s": 0.01, "max_wait_s": 0.02})
    with open_site(tmp_path, with_thresholds(tiny_model, 1e-6, 2e-6), decoder, **sections) as site:
        site.send(files)
        while not (study := rows(site.node.database, StudyRow)[0]).early_finding:
            assert site.node.worker.step()
        assert study.revision == 0
        assert len(scored_positions(site)) < 14
        assert site.node.settle().studies[0].revision == 1
