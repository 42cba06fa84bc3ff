"""Inception-ResNet-V2 at 299 px, as delivered: from dcmtk's storescu to a Structured Report in the PACS."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from ich_node.cli import main
from ich_node.pacs import SmallPacs
from ich_node.phantom import PhantomSettings, write_series
from tests.running import STORESCU, NodeProcesses, settings, storescu

MODEL = Path(__file__).parents[2] / "models" / "ich-irv2"


@pytest.fixture(scope="module")
def full_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that `make model` made, or one made now (half a minute)."""
    if (MODEL / "manifest.json").exists():
        return MODEL
    made = tmp_path_factory.mktemp("models") / "ich-irv2"
    assert main(["model", "init-untrained", str(made)]) == 0
    return made


@pytest.mark.slow
@pytest.mark.skipif(not Path(STORESCU).exists(), reason="dcmtk's storescu is not installed")
def test_the_full_network_reports_a_phantom_to_the_pacs(tmp_path: Path, full_model: Path) -> None:
    uid = str(generate_uid())
    head = PhantomSettings(lesion="intraparenchymal", slices=30, rows=512, study_instance_uid=uid)
    write_series(tmp_path / "head", head)
    with SmallPacs(tmp_path / "pacs") as pacs:
        values = settings(
            tmp_path / "state", full_model, destinations=[("pacs", pacs.port)],
            model={"engine": "auto", "show_findings_of_untrained_model": False},
            series={"quiet_s": 3, "max_wait_s": 20},
        )  # fmt: skip
        with NodeProcesses(tmp_path, values) as node:
            assert storescu([tmp_path / "head"], node.port).returncode == 0
            sent_at = time.time()
            study = node.wait_settled(uid)

    (delivery,) = study.deliveries
    assert (study.outcome, delivery.state) == ("untrained model, no finding", "DELIVERED")
    assert (study.series[0].slices, study.series[0].complete) == (30, True)
    stored = pacs.path_of(delivery.sop_instance_uid or "")
    assert stored is not None
    assert dcmread(stored).StudyInstanceUID == uid
    assert "ERROR" not in node.log("work").read_text()
    print(f"last slice to report in the PACS: {(delivery.finished_at or 0) - sent_at:.1f} s")  # noqa: T201 - a figure
