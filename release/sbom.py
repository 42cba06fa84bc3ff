"""Write the parts list of a built wheel as CycloneDX, ``dist/ich-node.cdx.json``: ``python -m release.sbom [WHEEL]``.

The parts are what ``requirements.txt`` pins; licences and what needs what come from the packages as they are installed
here. The wheel is named with its hash, so that a list belongs to one file.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from release.parts import ROOT, normal, pinned

DIST: Final = ROOT / "dist"
SBOM: Final = DIST / "ich-node.cdx.json"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel; hatchling is fetched for it.

    Raises:
        RuntimeError: it cannot be built here.
    """
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if built.returncode:
        raise RuntimeError(f"the wheel cannot be built here (pip and hatchling): {built.stderr.strip()[-300:]}")
    return max(folder.glob("ich_node-*.whl"), key=lambda path: path.stat().st_mtime)


def describe_parts(wheel: Path) -> dict[str, Any]:
    """Describe a wheel and everything that is installed with it.

    Raises:
        RuntimeError: what is installed here is not what is pinned.
    """
    listed = _what_is_installed()
    pins, about = pinned(), _metadata_of(wheel)
    parts = {normal(one["name"]): one for one in listed["components"]}
    if missing := {name for name, version in pins.items() if parts.get(name, {}).get("version") != version}:
        raise RuntimeError(f"not installed here as pinned, run make setup: {', '.join(sorted(missing))}")
    whole = _component_of(wheel, about)
    kept = {parts[name]["bom-ref"] for name in pins}
    needs = {one["ref"]: [ref for ref in one.get("dependsOn", ()) if ref in kept] for one in listed["dependencies"]}
    listed["metadata"]["component"] = whole
    listed["components"] = [parts[name] for name in sorted(pins)]
    direct = {normal(name) for name in _direct(about)}
    listed["dependencies"] = [
        {"ref": whole["bom-ref"], "dependsOn": sorted(parts[name]["bom-ref"] for name in direct & set(pins))},
        *({"ref": ref, "dependsOn": sorted(needs.get(ref, ()))} for ref in sorted(kept)),
    ]
    return listed


def check_form(text: str) -> None:
    """See that this is CycloneDX 1.6.

    Raises:
        RuntimeError: it is not.
    """
    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise RuntimeError(f"no CycloneDX: {fault}")


def _what_is_installed() -> dict[str, Any]:
    command = [Path(sys.executable).with_name("cyclonedx-py"), "environment", "--output-reproducible", "--no-validate"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "environment.json")
        subprocess.run([*command, "--output-file", out, sys.executable], check=True, capture_output=True, timeout=300)
        listed: dict[str, Any] = json.loads(out.read_text())
        return listed


def _metadata_of(wheel: Path) -> Any:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def _direct(about: Any) -> list[str]:
    """Name what the wheel itself asks for, without versions and without the extras of training and development."""
    asked = [one for one in about.get_all("Requires-Dist", ()) if "extra ==" not in one]
    return [found[0] for one in asked if (found := _NAME.match(one))]


def _component_of(wheel: Path, about: Any) -> dict[str, Any]:
    name, version = about["Name"], about["Version"]
    return {
        "type": "application",
        "bom-ref": f"{name}=={version}",
        "name": name,
        "version": version,
        "description": about["Summary"],
        "licenses": [{"license": {"id": about["License-Expression"]}}],
        "purl": f"pkg:pypi/{name}@{version}",
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}],
        "properties": [{"name": "ich-node:wheel", "value": wheel.name}],
    }


def main(arguments: list[str]) -> int:
    """Write the parts list of a wheel, which is built where none is named."""
    DIST.mkdir(exist_ok=True)
    try:
        wheel = Path(arguments[0]) if arguments else build_wheel(ROOT, DIST)
        text = json.dumps(describe_parts(wheel), indent=1) + "\n"
        check_form(text)
    except RuntimeError as error:
        sys.stderr.write(f"sbom: {error}\n")
        return 1
    SBOM.write_text(text)
    sys.stdout.write(f"{SBOM.relative_to(ROOT)}: {wheel.name} and {len(pinned())} parts\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
