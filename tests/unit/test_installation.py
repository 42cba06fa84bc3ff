"""Two nodes never make the same UID; a restored node goes on with its own."""

import json
import shutil
from pathlib import Path

import pytest

from ich_node.cli import main
from ich_node.database import installation as installation_module
from ich_node.database import open_database, prepare_database, read_installation
from ich_node.errors import ConfigError, StartError
from ich_node.records import ReportIdentity
from ich_node.report.identity import result_sop_instance_uid

MACHINE = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def machine_id(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("etc") / "machine-id"
    path.write_text(f"{MACHINE}\n")
    monkeypatch.setattr(installation_module, "_MACHINE_ID", path)
    return path


def start(state: Path, *, recover: bool = False) -> str:
    """Do what every role does first."""
    state.parent.mkdir(exist_ok=True)
    state.mkdir(mode=0o700, exist_ok=True)
    database = open_database(f"sqlite:///{state / 'ich-node.sqlite'}")
    try:
        return prepare_database(database, state, recover=recover)
    finally:
        database.close()


def run(state: Path, *arguments: str) -> int:
    config = state.with_suffix(".toml")
    config.write_text(f'[node]\nstate_directory = "{state}"\n[receiver]\nallow_any = true\n')
    return main(["installation", *arguments, "--config", str(config)])


def report_uid(installation_uid: str) -> str:
    """Of the first report on one and the same study."""
    return result_sop_instance_uid(ReportIdentity(installation_uid, "1.2.3", 1), "SR", "enhanced")


def test_two_nodes_of_one_site_never_make_the_same_uid(tmp_path: Path) -> None:
    uids = [start(tmp_path / name) for name in ("one", "two")]
    assert len({report_uid(uid) for uid in uids}) == 2


def test_the_installation_is_kept_in_a_file_beside_the_database(tmp_path: Path) -> None:
    uid = start(tmp_path / "state")
    path = tmp_path / "state/installation.json"
    filed = json.loads(path.read_text())
    assert (filed["installation_uid"], filed["directory"]) == (uid, str(tmp_path / "state"))
    assert filed["created_at"] > 0
    assert MACHINE not in path.read_text(), "machine-id(5): it is not to be shown as it is"
    assert start(tmp_path / "state") == uid


def test_the_file_is_written_again_where_it_is_missing(tmp_path: Path) -> None:
    uid = start(tmp_path / "state")
    (tmp_path / "state/installation.json").unlink()
    assert start(tmp_path / "state") == uid
    installation = read_installation(tmp_path / "state")
    assert installation is not None
    assert installation.installation_uid == uid


def test_a_copy_beside_its_original_does_not_start(tmp_path: Path) -> None:
    start(tmp_path / "state")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    with pytest.raises(ConfigError, match=rf"is a copy of {tmp_path / 'state'}; .*installation --here.*--new"):
        start(tmp_path / "copy")
    start(tmp_path / "state")


def test_a_copy_that_became_another_installation_starts_and_shares_no_uid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = start(tmp_path / "state")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    assert run(tmp_path / "copy", "--new") == 0
    other = start(tmp_path / "copy")
    assert other in capsys.readouterr().out
    assert report_uid(other) != report_uid(uid)
    assert start(tmp_path / "state") == uid


def test_a_folder_that_was_moved_on_its_machine_starts_as_before(tmp_path: Path) -> None:
    uid = start(tmp_path / "state")
    (tmp_path / "state").rename(tmp_path / "disk")
    assert start(tmp_path / "disk") == uid
    shutil.copytree(tmp_path / "disk", tmp_path / "state")
    with pytest.raises(ConfigError, match="is a copy of"):
        start(tmp_path / "state")


def test_one_folder_under_two_names_is_no_copy(tmp_path: Path) -> None:
    uid = start(tmp_path / "state")
    (tmp_path / "link").symlink_to(tmp_path / "state")
    assert start(tmp_path / "link") == uid


def test_a_folder_from_another_machine_waits_for_a_person_and_goes_on_as_the_same(
    tmp_path: Path, machine_id: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = start(tmp_path / "state")
    machine_id.write_text(MACHINE[::-1])
    with pytest.raises(ConfigError, match="comes from another machine"):
        start(tmp_path / "state")
    assert run(tmp_path / "state") == 78
    assert run(tmp_path / "state", "--here") == 0
    assert uid in capsys.readouterr().out
    assert start(tmp_path / "state") == uid


@pytest.mark.parametrize("before", [None, "", "uninitialized"], ids=["absent", "empty", "uninitialized"])
def test_a_machine_that_gets_its_identifier_later_starts(tmp_path: Path, machine_id: Path, before: str | None) -> None:
    machine_id.unlink() if before is None else machine_id.write_text(f"{before}\n")
    uid = start(tmp_path / "state")
    machine_id.write_text(MACHINE)
    assert start(tmp_path / "state") == uid
    machine_id.write_text(MACHINE[::-1])
    with pytest.raises(ConfigError, match="comes from another machine"):
        start(tmp_path / "state")


def test_a_database_of_another_installation_is_told(tmp_path: Path) -> None:
    production, test = start(tmp_path / "production"), start(tmp_path / "test")
    for path in (tmp_path / "test").glob("ich-node.sqlite*"):
        path.unlink()
    shutil.copy(tmp_path / "production/ich-node.sqlite", tmp_path / "test")
    with pytest.raises(ConfigError, match=f"is of installation {production}, and this folder of {test}"):
        start(tmp_path / "test")
    assert run(tmp_path / "test", "--new") == 0
    assert start(tmp_path / "test") not in (production, test)


def test_a_database_that_is_gone_is_not_made_anew_under_uids_that_were_given_out(tmp_path: Path) -> None:
    uid = start(tmp_path / "state")
    for path in (tmp_path / "state").glob("ich-node.sqlite*"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"the database is empty.*ich-node rebuild"):
        start(tmp_path / "state")
    with pytest.raises(ConfigError, match="the database is empty"):
        start(tmp_path / "state")
    assert run(tmp_path / "state", "--here") == 1
    assert start(tmp_path / "state", recover=True) == uid
    assert start(tmp_path / "state") == uid


def test_who_begins_anew_after_a_loss_shares_no_uid(tmp_path: Path) -> None:
    uid = start(tmp_path / "state")
    for path in (tmp_path / "state").glob("ich-node.sqlite*"):
        path.unlink()
    assert run(tmp_path / "state", "--new") == 0
    assert start(tmp_path / "state") != uid


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    start(tmp_path / "state")
    (tmp_path / "state/installation.json").write_text("{")
    with pytest.raises(StartError, match=r"installation\.json is damaged; delete it"):
        start(tmp_path / "state")


def test_an_older_or_shorter_file_is_understood(tmp_path: Path) -> None:
    uid = start(tmp_path / "state")
    (tmp_path / "state/installation.json").write_text(json.dumps({"installation_uid": uid, "created_at": 1.0, "x": 1}))
    assert start(tmp_path / "state") == uid
