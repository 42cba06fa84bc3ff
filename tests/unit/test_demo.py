"""The demo's folder: what an earlier one left goes, the converted network and other people's files stay."""

from pathlib import Path

import pytest

from ich_node.demo import clear_folder, command_as_called
from ich_node.errors import StartError


def left_by_a_demo(folder: Path) -> None:
    clear_folder(folder)
    for name in ("sent/1.dcm", "node.log", "state/ich-node.sqlite", "state/spool/00/1.dcm", "state/cache/network.xml"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def test_what_an_earlier_demo_left_goes_but_for_the_converted_network(tmp_path: Path) -> None:
    folder = tmp_path / "var/demo"
    left_by_a_demo(folder)
    clear_folder(folder)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {".ich-node-demo", "state/cache/network.xml"}


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(StartError, match="other files"):
        clear_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("called", "named"),
    [
        (".venv/bin/ich-node", ".venv/bin/ich-node"),
        ("/opt/ich-node/venv/bin/ich-node", "/opt/ich-node/venv/bin/ich-node"),
        ("ich_node/__main__.py", "ich-node"),
    ],
)
def test_the_demo_names_commands_as_they_can_be_typed(called: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [called, "demo"])
    assert command_as_called() == named
