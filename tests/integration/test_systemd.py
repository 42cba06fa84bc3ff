"""The units are well formed, hardened, and say the same as the program."""

import re
import subprocess
from pathlib import Path

import pytest

from ich_node.supervisor import EXIT_CONFIGURATION, WEB
from ich_node.supervisor import ROLES as ROLES_OF_THE_TARGET

ROOT = Path(__file__).parents[2]
ANALYZE = Path("/usr/bin/systemd-analyze")
ROLES = (*ROLES_OF_THE_TARGET, WEB)
UNITS = {role: f"ich-node-{role}.service" for role in ROLES}
MOST_EXPOSED = {"receive": 1.5, "deliver": 1.5, "web": 1.5, "work": 1.0}

needs_systemd = pytest.mark.skipif(not ANALYZE.exists(), reason="systemd-analyze is not installed")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as `make install` writes them, for a program that is there."""
    prefix = tmp_path / "prefix"
    program = prefix / "venv/bin/ich-node"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    command = [ROOT / "scripts/install", tmp_path / "root", prefix]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return tmp_path / "root/etc/systemd/system"


def verify(units: Path) -> subprocess.CompletedProcess[str]:
    paths = sorted(str(path) for path in units.glob("ich-node*"))
    assert len(paths) == len(ROLES) + 1
    command = [str(ANALYZE), "verify", "--recursive-errors=no", "--man=no", *paths]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@needs_systemd
def test_systemd_finds_no_fault_in_the_units(units: Path) -> None:
    found = verify(units)
    assert (found.returncode, found.stderr) == (0, "")


@needs_systemd
def test_a_fault_in_a_unit_would_be_found(units: Path) -> None:
    unit = units / UNITS["work"]
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=strict\nProtectSytem=yes"))
    assert "ProtectSytem" in verify(units).stderr


@needs_systemd
@pytest.mark.parametrize("role", ROLES)
def test_units_are_hardened(units: Path, role: str) -> None:
    threshold = round(10 * MOST_EXPOSED[role])
    command = [str(ANALYZE), "security", "--offline=true", "--no-pager", f"--threshold={threshold}"]
    found = subprocess.run(
        [*command, str(units / UNITS[role])], capture_output=True, text=True, check=False, timeout=60
    )
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", found.stdout)
    assert level is not None, found.stderr
    assert found.returncode == 0, f"exposure {level[1]}"
    assert float(level[1]) <= MOST_EXPOSED[role]


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_runs_its_role_and_stops_where_a_restart_would_not_help(role: str) -> None:
    unit = (ROOT / "systemd" / UNITS[role]).read_text()
    program, config = "/opt/ich-node/venv/bin/ich-node", "--config /etc/ich-node/ich-node.toml"
    for line in (
        f"ExecStart={program} {role} {config}",
        f"ExecStartPre={program} check-config {config}",
        "Type=notify",
        "Restart=on-failure",
        f"RestartPreventExitStatus={EXIT_CONFIGURATION}",
    ):
        assert line in unit.splitlines()
    assert re.search(r"^WatchdogSec=\d+$", unit, re.MULTILINE)


def test_the_target_holds_every_role_but_the_pages_which_a_site_enables() -> None:
    target = (ROOT / "systemd/ich-node.target").read_text()
    wanted = re.search(r"^Wants=(ich-node.*)$", target, re.MULTILINE)
    assert wanted is not None
    assert set(wanted[1].split()) == {UNITS[role] for role in ROLES_OF_THE_TARGET}
    unit = (ROOT / "systemd" / UNITS[WEB]).read_text()
    assert "\nWantedBy=ich-node.target\n" in unit
    assert "\nPartOf=ich-node.target\n" in unit


def test_only_the_worker_has_no_network_and_may_make_code() -> None:
    texts = {role: (ROOT / "systemd" / unit).read_text() for role, unit in UNITS.items()}
    assert [role for role, text in texts.items() if "\nPrivateNetwork=yes" in text] == ["work"]
    assert [role for role, text in texts.items() if "\nMemoryDenyWriteExecute=yes" not in text] == ["work"]
