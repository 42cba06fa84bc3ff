"""`make install` and the wheel: what is laid out where, and that it runs without the source."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ich_node import __version__
from ich_node.cli import EXIT_CONFIGURATION, main
from ich_node.config import Config, load_config

ROOT = Path(__file__).parents[2]
PREFIX = "/opt/ich-node"


def install(root: Path, prefix: str = PREFIX) -> None:
    subprocess.run([ROOT / "scripts/install", root, prefix], check=True, capture_output=True, timeout=60)


def test_install_puts_every_file_where_the_documents_say(tmp_path: Path) -> None:
    install(tmp_path)
    laid_out = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    documents = {f"opt/ich-node/docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert len(documents) > 4
    examples = {f"opt/ich-node/drop-ins/{path.name}" for path in (ROOT / "systemd/drop-ins").glob("*.conf")}
    assert len(examples) > 4
    assert laid_out == documents | examples | {
        "etc/ich-node/ich-node.toml",
        "etc/systemd/system/ich-node.target",
        "etc/systemd/system/ich-node-receive.service",
        "etc/systemd/system/ich-node-work.service",
        "etc/systemd/system/ich-node-deliver.service",
        "etc/systemd/system/ich-node-web.service",
        "usr/local/bin/ich-node",
        "opt/ich-node/README.md",
        "opt/ich-node/CHANGELOG.md",
        "opt/ich-node/LICENSE",
        "opt/ich-node/ich-node.toml.example",
    }


def test_patient_data_can_be_read_by_nobody_else(tmp_path: Path) -> None:
    install(tmp_path)
    assert (tmp_path / "var/lib/ich-node").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "etc/ich-node/ich-node.toml").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "usr/local/bin/ich-node").stat().st_mode & 0o777 == 0o755


def test_installed_configuration_has_no_faults_and_names_the_installed_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path)
    path = tmp_path / "etc/ich-node/ich-node.toml"
    assert main(["check-config", "--config", str(path)]) == 0
    assert "no faults" in capsys.readouterr().out
    config = load_config(path)
    assert config.state_directory == Path("/var/lib/ich-node")
    assert config.model.directory == Path(PREFIX, "models/ich-irv2")
    assert config.series == Config().series


def test_install_again_keeps_an_edited_configuration(tmp_path: Path) -> None:
    install(tmp_path)
    path, unit = tmp_path / "etc/ich-node/ich-node.toml", tmp_path / "etc/systemd/system/ich-node-work.service"
    edited = path.read_text().replace("quiet_s = 3 ", "quiet_s = 4 ")
    path.write_text(edited)
    unit.write_text("of an older version")
    (tmp_path / "var/lib/ich-node/ich-node.sqlite").write_text("a database")
    install(tmp_path)
    assert path.read_text() == edited
    assert "quiet_s = 4 " in edited
    assert "[Service]" in unit.read_text()
    assert (tmp_path / "var/lib/ich-node/ich-node.sqlite").read_text() == "a database"


def test_install_elsewhere_names_that_place_everywhere(tmp_path: Path) -> None:
    install(tmp_path, "/srv/ich")
    files = [path for path in (tmp_path / "etc").rglob("*") if path.is_file()]
    files.append(tmp_path / "usr/local/bin/ich-node")
    named = [path.name for path in files if PREFIX in path.read_text()]
    assert named == []
    assert "/srv/ich/venv/bin/ich-node" in (tmp_path / "usr/local/bin/ich-node").read_text()


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").iterdir()))
def test_scripts_are_well_formed_and_can_be_run(script: str) -> None:
    path = ROOT / "scripts" / script
    subprocess.run(["/bin/sh", "-n", path], check=True, timeout=10)
    assert path.stat().st_mode & 0o111


# ------------------------------------------------------------------------------------------------ wheel


def build(source: Path, wheels: Path) -> Path:
    """Build the wheel with uv or pip, whichever is here; both fetch hatchling."""
    if shutil.which("uv"):
        command = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(wheels), str(source)]
    else:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(wheels), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    if built.returncode != 0:
        pytest.skip(f"the wheel cannot be built here (uv or pip, and hatchling): {built.stderr.strip()[-200:]}")
    return next(wheels.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as the wheel brings it; the source it was built from is gone."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    shutil.copytree(ROOT / "ich_node", source / "ich_node", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    wheel = build(source, folder / "wheels")
    shutil.rmtree(source)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def run_installed(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in an empty place, with this environment's libraries and not its ich_node."""
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import ich_node, ich_node.cli;"
        "assert ich_node.__file__.startswith(sys.path[0]), ich_node.__file__;"
        "sys.exit(ich_node.cli.main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(installed), *arguments],
        cwd=installed.parent,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_wheel_knows_its_version_without_the_source(installed: Path) -> None:
    assert run_installed(installed, "--version").stdout == f"ich-node {__version__}\n"


def test_wheel_checks_a_configuration_without_the_source(installed: Path, tmp_path: Path) -> None:
    good = run_installed(installed, "check-config", "--config", str(ROOT / "config/ich-node.toml"))
    assert (good.returncode, "no faults" in good.stdout) == (0, True), good.stderr
    (tmp_path / "bad.toml").write_text("[node]\nport = 0\n")
    assert run_installed(installed, "check-config", "--config", str(tmp_path / "bad.toml")).returncode == (
        EXIT_CONFIGURATION
    )


def test_wheel_brings_the_migrations(installed: Path, tmp_path: Path) -> None:
    config = tmp_path / "ich-node.toml"
    config.write_text(f'[node]\nstate_directory = "{tmp_path / "state"}"\n[receiver]\nallow_any = true\n')
    made = run_installed(installed, "status", "--config", str(config))
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "state/ich-node.sqlite").stat().st_size > 0


def test_wheel_holds_the_package_alone(installed: Path) -> None:
    assert sorted(path.name for path in installed.iterdir()) == ["ich_node", f"ich_node-{__version__}.dist-info"]
    declared = (installed / f"ich_node-{__version__}.dist-info/entry_points.txt").read_text()
    assert "ich-node = ich_node.__main__:main" in declared
