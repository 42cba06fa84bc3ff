"""The parts list says what is installed, and the audit of the parts neither hides a weakness nor passes for one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ich_node import __version__
from release import audit, sbom
from release.parts import ROOT, pinned

CLEAN: dict[str, Any] = {"name": "numpy", "version": "2.4.6", "vulns": []}
WEAK: dict[str, Any] = {
    "name": "torch", "version": "2.5.0", "vulns": [{"id": "CVE-2025-32434", "fix_versions": ["2.6.0"]}],
}  # fmt: skip
UNKNOWN: dict[str, Any] = {"name": "private", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        ([CLEAN], 0, ["no known weakness in 1 parts"]),
        ([CLEAN, WEAK], 1, ["torch 2.5.0: CVE-2025-32434 (mended in: 2.6.0)"]),
        ([CLEAN, UNKNOWN], 0, ["no known weakness in 1 parts", "not audited, unknown to the database: private"]),
        ([UNKNOWN, UNKNOWN], 0, [audit.NOT_REACHED]),
        ([], 0, [audit.NOT_REACHED]),
        (None, 0, [audit.NOT_REACHED]),
    ],
    ids=["clean", "weak", "partly unknown", "all unknown", "empty", "no answer"],
)
def test_the_audit_fails_by_what_it_finds_and_says_what_it_could_not_ask(
    found: list[dict[str, Any]] | None, status: int, said: list[str]
) -> None:
    assert audit.judge(found) == (status, said)


def test_an_audit_without_a_network_says_so_and_stops_nobody() -> None:
    nowhere = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), "http://127.0.0.1:9") | {
        "NO_PROXY": "",
        "no_proxy": "",
    }
    command = [sys.executable, "-m", "release.audit"]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | nowhere, capture_output=True, text=True, check=False, timeout=200
    )
    assert (ended.returncode, ended.stdout) == (0, f"audit: {audit.NOT_REACHED}\n"), ended.stderr


def test_an_audit_that_fails_by_itself_is_no_lack_of_a_network(tmp_path: Path) -> None:
    (tmp_path / "loose.txt").write_text("torch>=2\n")
    with pytest.raises(RuntimeError, match=r"(?s)pip-audit failed.*not pinned to an exact version"):
        audit.ask(tmp_path / "loose.txt")


def test_every_part_is_pinned_to_one_version(tmp_path: Path) -> None:
    pins = pinned()
    assert len(pins) > 50
    assert {"torch", "pydicom", "pynetdicom", "cryptography"} <= set(pins)
    (tmp_path / "loose.txt").write_text("torch>=2\n")
    with pytest.raises(ValueError, match="not pinned: torch>=2"):
        pinned(tmp_path / "loose.txt")


def test_what_is_no_parts_list_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no CycloneDX"):
        sbom.check_form('{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "torch"}]}')


@pytest.mark.slow
def test_the_parts_list_of_the_built_wheel_names_every_pin_with_its_licence(tmp_path: Path) -> None:
    try:
        wheel = sbom.build_wheel(ROOT, tmp_path)
    except RuntimeError as error:
        pytest.skip(str(error))
    parts = sbom.describe_parts(wheel)
    sbom.check_form(json.dumps(parts))
    assert {(one["name"].lower().replace("_", "-"), one["version"]) for one in parts["components"]} == {
        (name, version) for name, version in pinned().items()
    }
    whole = parts["metadata"]["component"]
    assert (whole["name"], whole["version"]) == ("ich-node", __version__)
    assert whole["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    assert whole["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    unlicensed = {one["name"] for one in parts["components"] if not one.get("licenses")}
    assert unlicensed <= {"cuda-toolkit", "nvidia-cusparselt-cu13", "torchvision"}, "their packages declare none"
    (direct,) = [one["dependsOn"] for one in parts["dependencies"] if one["ref"] == whole["bom-ref"]]
    assert any(ref.startswith("pydicom==") for ref in direct)
    assert not any(ref.startswith("scikit") for ref in direct), "of training alone"
    assert str(ROOT) not in json.dumps(parts)
