"""The model that comes with the program: whole, honest, and at work in a node beside Orthanc and its listeners."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import hl7
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from ich_node.model.bundle import load_bundle, verify_bundle
from ich_node.pacs import send_study
from ich_node.phantom import PhantomSettings, write_series
from tests.acceptance.test_report_validators import errors, need
from tests.acceptance.test_viewer_objects_in_orthanc import fetched
from tests.alert_peers import Peer, listener
from tests.integration.test_viewer_objects_sent import EVERYTHING
from tests.orthanc import Orthanc
from tests.running import STORESCU, NodeProcesses, settings, storescu, wait_for

MODEL = Path(__file__).parents[2] / "models" / "ich-irv2"
A_SHARD_AT_MOST = 50_000_000
SECRET = "a secret of both sides"


def test_it_is_whole_trained_and_small_enough_for_every_remote() -> None:
    assert verify_bundle(MODEL) == []
    manifest = load_bundle(MODEL).manifest
    assert (manifest.name, manifest.trained, manifest.backbone) == ("ich-irv2", True, "inception_resnet_v2")
    assert manifest.activation_maps
    assert {one.name: bool(one.terms) for one in manifest.training_data} == {"rsna2019": True, "ctich_v1.0.0": True}
    assert all(one.stat().st_size <= A_SHARD_AT_MOST for one in MODEL.iterdir())


def test_its_card_says_what_it_is_not_and_whose_figures_it_gives() -> None:
    card = (MODEL / "MODEL_CARD.md").read_text()
    for words in (
        "not a medical device", "## From its makers", "patients unknown (optimistic)", "CC BY 4.0", "non-commercial",
        "epidural", "NOT met", "CQ500",
    ):  # fmt: skip
        assert words in card, words


@pytest.mark.slow
@pytest.mark.skipif(not Path(STORESCU).exists(), reason="dcmtk's storescu is not installed")
@pytest.mark.parametrize("study", ["phantom", "CQ500-CT-427"])
def test_a_bleed_reaches_the_pacs_and_everybody_who_must_know(
    tmp_path: Path, orthanc: Orthanc | None, study: str, request: pytest.FixtureRequest
) -> None:
    if orthanc is None:
        pytest.skip("Orthanc is not installed")
    need("dciodvfy")
    need("dcentvfy")
    files = _phantom(tmp_path) if study == "phantom" else _cq500(request.getfixturevalue("shared_data"), study)
    uid = str(dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
    assert send_study(files, "127.0.0.1", orthanc.dicom_port, "PACS") == len(files)
    with _node_and_listeners(tmp_path, orthanc) as (node, peers):
        assert storescu([files[0].parent], node.port).returncode == 0
        found = node.wait_settled(uid)
        wait_for(lambda: all(one.heard for one in peers.values()), "everybody is told", 30)
        time.sleep(1.0)  # for what should not come
        assert "ERROR" not in node.log("work").read_text() + node.log("deliver").read_text()

    assert (found.triage, {one.state for one in found.deliveries}) == ("positive", {"DELIVERED"})
    _check_orthanc(orthanc, uid, tmp_path / "fetched")
    _check_listeners(peers)


def _phantom(folder: Path) -> list[Path]:
    uid = str(generate_uid())
    return write_series(
        folder / "head", PhantomSettings(lesion="intraparenchymal", slices=30, rows=512, study_instance_uid=uid)
    )


def _cq500(shared_data: Path, study: str) -> list[Path]:
    files = sorted((shared_data / "cq500" / study).rglob("*.dcm"))
    if not files:
        pytest.skip(f"{study} of CQ500 is not there")
    return files


@contextmanager
def _node_and_listeners(folder: Path, orthanc: Orthanc) -> Iterator[tuple[NodeProcesses, dict[str, Peer]]]:
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    with ExitStack() as stack:
        peers = {
            kind: stack.enter_context(listener(kind, folder, taken))
            for kind, taken in (("mllp", "AA"), ("web", "200"), ("smtp", "250"))
        }
        place = {"name": "orthanc", "ae_title": "PACS", "host": "127.0.0.1", "port": orthanc.dicom_port}
        values: dict[str, Any] = settings(
            folder / "state", MODEL,
            model={"engine": "auto", "show_findings_of_untrained_model": False},
            series={"quiet_s": 3, "max_wait_s": 10},
            alert={"early": False, "maximum_age_h": 1_000_000},
            alert_hl7=[{"name": "ris", "host": "127.0.0.1", "port": peers["mllp"].port}],
            alert_webhook=[{"name": "web", "url": f"http://127.0.0.1:{peers['web'].port}/ich",
                            "secret_file": str(folder / "secret")}],
            alert_mail=[{"name": "mail", "host": "127.0.0.1", "port": peers["smtp"].port, "starttls": False,
                         "sender": "node@hospital.example", "recipients": ["ct-duty@hospital.example"]}],
            alert_rule=[{"tell": ["ris", "web", "mail"]}],
        ) | {"destination": [place | {"objects": EVERYTHING}]}  # fmt: skip
        yield stack.enter_context(NodeProcesses(folder, values)), peers


def _check_orthanc(orthanc: Orthanc, uid: str, folder: Path) -> None:
    paths = fetched(orthanc, uid, folder)
    modalities = {path: str(dcmread(path, specific_tags=["Modality"]).Modality) for path in paths}
    count = Counter(modalities.values())
    assert (count["CT"], count["SR"], count["KO"]) == (30, 1, 1)
    assert 2 <= count["OT"] <= 6, "the summary and up to five key slices"
    for path, modality in modalities.items():
        if modality != "CT":
            assert not errors("dciodvfy", "-new", path), modality
    images = [path for path, modality in modalities.items() if modality == "CT"]
    assert not errors("dcentvfy", *paths) - errors("dcentvfy", *images)


def _check_listeners(peers: dict[str, Peer]) -> None:
    (message,), (call,), (mail,) = (peers[kind].heard for kind in ("mllp", "web", "smtp"))
    parsed = hl7.parse(message["text"])
    assert (str(parsed.segment("MSH")(9)), str(parsed.segment("OBR")(25))) == ("ORU^R01^ORU_R01", "F")
    headers = {name.lower(): value for name, value in call["headers"].items()}
    stamp = headers["x-ich-timestamp"]
    signed = hmac.new(SECRET.encode(), f"{stamp}.{call['body']}".encode(), hashlib.sha256).hexdigest()
    assert headers["x-ich-signature"] == f"sha256={signed}"
    assert "Suspected intracranial hemorrhage" in mail["text"]
