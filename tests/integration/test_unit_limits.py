"""The roles do their work under the limits of their units: a hardened unit that does not work is worth nothing."""

from __future__ import annotations

import ctypes
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import dcmread

from ich_node.pacs import SmallPacs
from ich_node.phantom import PhantomSettings, write_series
from tests.integration.test_systemd import ANALYZE, ROOT, UNITS
from tests.running import NodeProcesses, free_port, settings, storescu
from tests.unit_limits import CANNOT, SECCOMP, allowed_calls, directives

LAUNCH = [sys.executable, "-m", "tests.unit_limits"]


def there_are_limits() -> str:
    """Say what is missing here to set the limits of a unit without systemd; empty where all is there."""
    if not ANALYZE.exists():
        return "systemd-analyze is not installed"
    try:
        ctypes.CDLL(SECCOMP)
    except OSError:
        return "libseccomp is not installed"
    if os.geteuid() != 0:
        return "only root can make namespaces"
    return ""


def under(unit: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    whole = [*LAUNCH, ROOT / "systemd" / unit, *command]
    ended = subprocess.run(whole, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    if ended.returncode == CANNOT:
        pytest.skip(f"namespaces cannot be made here: {ended.stderr.strip()[-100:]}")
    return ended


class LimitedProcesses(NodeProcesses):
    """Each role under the limits of its unit."""

    def command(self, role: str) -> list[str]:
        return [*LAUNCH, str(ROOT / "systemd" / UNITS[role]), *super().command(role)]


needs_limits = pytest.mark.skipif(bool(there_are_limits()), reason=there_are_limits() or "-")


@needs_limits
@pytest.mark.parametrize("role", UNITS)
def test_the_limits_are_really_set(role: str) -> None:
    """Or the tests below would show nothing."""
    code = """
        import ctypes, errno, mmap, os, resource, socket
        def refused(what, *arguments):
            try:
                what(*arguments)
            except OSError as error:
                return errno.errorcode[error.errno]
        print(refused(os.unshare if hasattr(os, "unshare") else os.chroot, 0x20000 if hasattr(os, "unshare") else "/"))
        print(refused(socket.socket, socket.AF_PACKET, socket.SOCK_RAW))
        print(refused(socket.socket, socket.AF_INET))
        print(refused(mmap.mmap, -1, 4096, mmap.MAP_PRIVATE, mmap.PROT_WRITE | mmap.PROT_EXEC))
        print(refused(os.sched_setaffinity, 0, os.sched_getaffinity(0)))
        print(resource.getrlimit(resource.RLIMIT_CORE), os.path.exists("/proc/meminfo"), os.umask(0))
    """
    said = under(UNITS[role], sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines()))
    network = role == "work"
    assert said.stdout.splitlines() == [
        "EPERM",
        "EAFNOSUPPORT",
        "EAFNOSUPPORT" if network else "None",
        "None" if role == "work" else "EPERM",
        "None" if role == "work" else "EPERM",
        f"(0, 0) {role == 'work'} {0o077}",
    ], said.stderr


@pytest.mark.slow
@needs_limits
def test_a_study_goes_through_three_roles_under_the_limits_of_their_units(tmp_path: Path, tiny_bundle: Path) -> None:
    under(UNITS["work"], "/bin/true")  # skips where it cannot be
    head = write_series(tmp_path / "head", PhantomSettings(lesion="subdural", slices=12, rows=64, slice_spacing_mm=11))
    uid = str(dcmread(head[0], stop_before_pixels=True).StudyInstanceUID)
    with SmallPacs(tmp_path / "pacs") as pacs:
        values = settings(tmp_path / "state", tiny_bundle, destinations=[("pacs", pacs.port)])
        values["model"]["engine"] = "openvino"  # as on a machine without a GPU: it compiles while it runs
        with LimitedProcesses(tmp_path, values) as node:
            assert storescu([tmp_path / "head"], node.port).returncode == 0
            study = node.wait_settled(uid)
        assert [one.state for one in study.deliveries] == ["DELIVERED"]
        assert [one.returncode for one in node.processes.values()] == [0, 0, 0]
    assert list((tmp_path / "state/cache").glob("*.xml"))


@needs_limits
def test_what_talks_to_others_starts_answers_and_stops_under_the_limits_of_its_unit(tmp_path: Path) -> None:
    under(UNITS["web"], "/bin/true")
    values = settings(tmp_path / "state", Path("unused"), web={"enabled": True, "port": free_port()})
    with LimitedProcesses(tmp_path, values, roles=("receive", "deliver", "web")) as node:
        echo = ["/usr/bin/echoscu", "-aec", "ICH_NODE", "127.0.0.1", str(node.port)]
        assert subprocess.run(echo, capture_output=True, check=False, timeout=60).returncode == 0
        asked = ["/usr/bin/python3", "-c", "import sys, urllib.request as u; u.urlopen(sys.argv[1])"]
        url = f"http://127.0.0.1:{values['web']['port']}/alerts/x?token=y"
        ended = subprocess.run([*asked, url], capture_output=True, text=True, check=False, timeout=60)
        assert "HTTP Error 404" in ended.stderr
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        with closing(sqlite3.connect(tmp_path / "state/ich-node.sqlite")) as database:
            known = database.execute("SELECT boot FROM clock").fetchall()
        assert known == [(boot,)], "or no step of the clock would be seen"
    assert [one.returncode for one in node.processes.values()] == [0, 0, 0]
    made = [path for path in (tmp_path / "state").rglob("*") if path.stat().st_mode & 0o077]
    assert (tmp_path / "state/web.key").exists()
    assert made == [], "umask 0077 in every role"


# ---------------------------------------------------------------------------------------------- systemd


@pytest.mark.skipif(not Path("/run/systemd/system").exists(), reason="systemd does not run here")
@pytest.mark.parametrize("role", UNITS)
def test_a_unit_really_starts_under_systemd(role: str, tmp_path: Path, tiny_bundle: Path) -> None:
    """As a transient unit with every directive of the file; needs root, and a Python that services can read."""
    if os.geteuid() != 0 or str(Path(sys.executable).resolve()).startswith(("/root", "/home")):
        pytest.skip("needs root, and a Python outside the homes")
    values = settings(Path("/var/lib/ich-node-test"), tiny_bundle, web={"enabled": True, "port": free_port()})
    del values["node"]["state_directory"]
    folder = Path("/run/ich-node-test")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copytree(tiny_bundle, folder / "model")
    values["model"]["directory"], values["node"]["state_directory"] = str(folder / "model"), "/var/lib/ich-node-test"
    node = NodeProcesses(folder, values, roles=())
    with node:
        leave_out = ("ExecStart", "ExecStartPre", "User", "Group", "StateDirectory", "WorkingDirectory", "Restart")
        options = [
            f"--property={name}={value}"
            for name, value in directives(ROOT / "systemd" / UNITS[role])
            if name and value and not name.startswith("[") and name not in (*leave_out, "Description", "Documentation",
               "PartOf", "After", "WantedBy", "StartLimitIntervalSec", "StartLimitBurst", "RestartPreventExitStatus")
        ]  # fmt: skip
        name = f"ich-node-test-{role}"
        run = ["systemd-run", "--unit", name, "--property=StateDirectory=ich-node-test", "--property=DynamicUser=yes"]
        command = [sys.executable, "-m", "ich_node", role, "--config", str(node.config_path)]
        try:
            # Type=notify: it returns when the role has said that it is ready
            subprocess.run([*run, *options, f"--setenv=PYTHONPATH={ROOT}", *command], check=True, timeout=300)
            state = subprocess.run(["systemctl", "is-active", name], capture_output=True, text=True, check=False)
            assert state.stdout.strip() == "active"
        finally:
            subprocess.run(["systemctl", "stop", name], check=False, timeout=100)
            shutil.rmtree(folder, ignore_errors=True)


# --------------------------------------------------------------------------------------------- drop-ins


@pytest.mark.skipif(not ANALYZE.exists(), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("example", sorted(path.stem for path in (ROOT / "systemd/drop-ins").glob("*.conf")))
def test_the_examples_of_drop_ins_are_well_formed_and_open_no_more_than_they_say(example: str, tmp_path: Path) -> None:
    role = example.split("-")[0]
    unit = tmp_path / UNITS[role]
    text = (ROOT / "systemd" / UNITS[role]).read_text()
    text = text.replace("/opt/ich-node/venv/bin/ich-node", "/bin/true")
    drop_in = (ROOT / "systemd/drop-ins" / f"{example}.conf").read_text()
    assert f"/etc/systemd/system/{UNITS[role]}.d/" in drop_in
    service, install = text.split("[Install]")
    unit.write_text(service + "\n".join(drop_in.split("[Service]")[1].splitlines()) + "\n[Install]" + install)
    found = subprocess.run(
        [ANALYZE, "verify", "--recursive-errors=no", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    threshold = 10 if role == "work" and "network" not in example else 15
    secure = [ANALYZE, "security", "--offline=true", "--no-pager", f"--threshold={threshold}", unit]
    assert subprocess.run(secure, capture_output=True, check=False).returncode == 0


def test_the_filters_take_away_what_they_name() -> None:
    allowed = allowed_calls(["read write mount", "~mount"])
    assert "mount" not in allowed
    assert {"read", "write"} <= allowed
