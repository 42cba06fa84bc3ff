"""DICOM over TLS with Orthanc: it sends us images, and we send it a report, each side showing its certificate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ich_node.phantom import PhantomSettings, write_series
from tests.certificates import Authority, Issued
from tests.integration.receiving import running
from tests.orthanc import Orthanc, needs_orthanc
from tests.outbox import outbox
from tests.running import free_port, leaks_a_socket

pytestmark = [pytest.mark.slow, needs_orthanc]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def shown(authority: Authority) -> Issued:
    return authority.issue("orthanc", kind="rsa")


@pytest.fixture(scope="module")
def node_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def orthanc(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, shown: Issued, node_port: int
) -> Iterator[Orthanc]:
    """An Orthanc that takes DICOM by TLS alone, from who shows a certificate."""
    node = {"AET": "ICH_NODE", "Host": "127.0.0.1", "Port": node_port, "UseDicomTls": True}
    tls = {
        "DicomTlsEnabled": True, "DicomTlsCertificate": shown.pair[0], "DicomTlsPrivateKey": shown.pair[1],
        "DicomTlsTrustedCertificates": str(authority.file), "DicomTlsRemoteCertificateRequired": True,
    }  # fmt: skip
    with Orthanc().running(tmp_path_factory.mktemp("orthanc"), DicomModalities={"ich-node": node}, **tls) as server:
        yield server


def section(authority: Authority, port: int) -> dict[str, Any]:
    node = authority.issue("node")
    return {"certificate": node.pair[0], "key": node.pair[1], "ca_file": str(authority.file), "port": port}


def test_orthanc_sends_images_to_the_node(
    tmp_path: Path, orthanc: Orthanc, node_port: int, authority: Authority, shown: Issued
) -> None:
    images = write_series(tmp_path / "images", PhantomSettings(slices=4, rows=64))
    stored = [orthanc.ask("/instances", path.read_bytes())["ID"] for path in images]
    peers = [{"ae_title": "PACS", "address": "127.0.0.1", "certificate": shown.fingerprint}]
    closed = {"allow_any": False, "reserve_mib": 0}
    tls = section(authority, node_port)
    with running(tmp_path / "state", tls=tls, peer=peers, receiver=closed) as node:
        orthanc.ask("/modalities/ich-node/echo", {})
        orthanc.ask("/modalities/ich-node/store", {"Resources": stored})
        assert len(node.instances()) == len(images)


def test_the_node_sends_its_report_to_orthanc(tmp_path: Path, orthanc: Orthanc, authority: Authority) -> None:
    place = {"name": "orthanc", "ae_title": "PACS", "host": "127.0.0.1", "port": orthanc.dicom_port}
    with outbox(tmp_path / "state", tls=section(authority, 2762), destination=[place | {"tls": True}]) as box:
        box.add_study()
        (delivery,) = box.deliver_until_state("DELIVERED")
    assert len(orthanc.find(str(delivery.sop_instance_uid))) == 1


@leaks_a_socket
def test_orthanc_takes_nothing_from_who_shows_no_certificate_that_it_trusts(
    tmp_path: Path, orthanc: Orthanc, authority: Authority
) -> None:
    stranger = Authority(tmp_path / "stranger", "stranger")
    tls = section(stranger, 2762) | {"ca_file": str(authority.file)}
    place = {"name": "orthanc", "ae_title": "PACS", "host": "127.0.0.1", "port": orthanc.dicom_port, "tls": True}
    with outbox(tmp_path / "state", tls=tls, destination=[place]) as box:
        box.add_study()
        box.deliver_until(lambda: box.deliveries()[0].error, "it was tried")
        assert "no association" in str(box.deliveries()[0].error)
