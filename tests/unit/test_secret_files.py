"""Secrets are read from files that nobody else can read; the state folder is the node's alone."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ich_node.alert_channels import make_channels, without_credentials
from ich_node.cli import main
from ich_node.config import Config, parse_config
from ich_node.doctor import examine
from ich_node.errors import ConfigError, SecretFileError, StartError
from ich_node.secret_files import check_private, read_or_make_key, read_secret, read_trusted
from ich_node.state_folder import make_state_folder

SECRET = b"a secret of more than sixteen bytes"
NOBODY = 65534
ROOT = Path(__file__).parents[2]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_a_secret_of_the_owner_and_the_group_is_read(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    assert read_secret(secret) == SECRET
    assert check_private(secret) == secret


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o660, 0o666, 0o641, 0o777])
def test_a_secret_that_others_can_read_or_change_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    for look in (read_secret, check_private):
        with pytest.raises(SecretFileError, match=f"has mode {mode:04o}: others can read or change it; chmod 640"):
            look(secret)


def test_a_secret_behind_a_link_is_looked_at_itself(secret: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(secret)
    assert read_secret(link) == SECRET
    secret.chmod(0o644)
    with pytest.raises(SecretFileError, match="has mode 0644"):
        read_secret(link)


@needs_root
def test_a_secret_of_another_user_is_refused(secret: Path) -> None:
    os.chown(secret, NOBODY, 0)
    with pytest.raises(SecretFileError, match=f"belongs to user {NOBODY}"):
        read_secret(secret)


def test_a_secret_in_a_folder_where_everybody_can_put_another_is_refused(secret: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(SecretFileError, match="everybody can change its folder"):
        read_secret(secret)
    tmp_path.chmod(0o1777)  # as /tmp: nobody can rename what is another's
    assert read_secret(secret) == SECRET


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, why in (
        (tmp_path / "pipe", "is no file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(SecretFileError, match=why):
            read_secret(path)


@pytest.mark.parametrize(("mode", "good"), [(0o644, True), (0o600, True), (0o664, False), (0o646, False)])
def test_what_trust_rests_on_may_be_read_by_all_and_changed_by_none(secret: Path, mode: int, good: bool) -> None:
    secret.chmod(mode)
    if good:
        assert read_trusted(secret) == SECRET
    else:
        with pytest.raises(SecretFileError, match="others can change it"):
            read_trusted(secret)


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "web.key"
    key = read_or_make_key(path)
    assert (len(key), path.stat().st_mode & 0o777, read_or_make_key(path)) == (32, 0o600, key)
    path.chmod(0o644)
    with pytest.raises(StartError, match="has mode 0644"):
        read_or_make_key(path)


# ---------------------------------------------------------------------------------------- credentials


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as systemd gives it to a unit: read-only, with files of mode 0400."""
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "hook").write_bytes(SECRET + b"\n")
    (folder / "hook").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


def hook(secret_file: str) -> Config:
    channel = {"name": "hook", "url": "http://127.0.0.1/", "secret_file": secret_file}
    return parse_config({"receiver": {"allow_any": True}, "alert_webhook": [channel]})


def test_a_credential_of_the_unit_is_a_secret(credentials: Path) -> None:
    assert check_private("credential:hook") == credentials / "hook"
    assert set(make_channels(hook("credential:hook"))) == {"hook"}


@pytest.mark.parametrize("name", ["none", "../secret", "..", "", "a/b"])
def test_a_credential_that_is_not_there_is_refused(credentials: Path, secret: Path, name: str) -> None:
    with pytest.raises(SecretFileError, match="credential"):
        read_secret(f"credential:{name}")
    with pytest.raises(ConfigError, match="alert channel hook: secret_file credential:"):
        make_channels(hook(f"credential:{name}"))


def test_checking_the_configuration_leaves_credentials_to_the_unit_that_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert make_channels(without_credentials(hook("credential:hook"))) == {}
    file = tmp_path / "node.toml"
    text = '[receiver]\nallow_any = true\n[[alert_webhook]]\nname = "hook"\nurl = "http://127.0.0.1/"\n'
    file.write_text(f'{text}secret_file = "credential:hook"\n')
    assert main(["check-config", "--config", str(file)]) == 0
    assert (
        "1 alert channels\n1 with credentials of a unit, which are looked at when it starts" in capsys.readouterr().out
    )


def test_a_configuration_that_everybody_can_change_is_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[receiver]\nallow_any = true\n")
    file.chmod(0o646)
    assert main(["check-config", "--config", str(file)]) == 78
    assert "everybody can change it: chmod 644" in capsys.readouterr().err


def test_no_key_of_the_configuration_holds_a_secret_itself() -> None:
    keys = {key for section in Config.model_json_schema()["$defs"].values() for key in section["properties"]}
    named = {key for key in keys if re.search("secret|password|token|passphrase", key)}
    assert named >= {"secret_file", "password_file"}
    assert {key for key in named if not key.endswith("_file")} == set()


def test_doctor_says_which_secret_others_can_read(secret: Path, tmp_path: Path) -> None:
    def look() -> dict[str, tuple[bool, str]]:
        channel = {"name": "hook", "url": "http://127.0.0.1:1/", "secret_file": str(secret)}
        values = {"receiver": {"allow_any": True, "reserve_mib": 0}, "alert_webhook": [channel],
                  "node": {"state_directory": str(tmp_path / "state")}}  # fmt: skip
        found = {}
        for one in examine(parse_config(values)):
            found[one.what] = (one.well, one.says)
            if one.what == "secrets":
                return found
        return found

    assert look()["secrets"] == (True, "1 files, read by nobody else")
    assert look()["state folder"] == (True, f"{tmp_path / 'state'} is the node's alone (mode 0700)")
    secret.chmod(0o644)
    assert look()["secrets"][0] is False


# ---------------------------------------------------------------------------------------- state folder


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_new_state_folder_is_the_nodes_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_state_folder(tmp_path / "state")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "state") == 0o700


@pytest.mark.parametrize("name", ["", "receive.lock", "ich-node.sqlite", "spool"])
def test_a_state_folder_that_was_open_is_closed(tmp_path: Path, name: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o755)
    if name:
        (state / name).touch()
    make_state_folder(state)
    assert mode_of(state) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o1777, 0o2770])
def test_a_folder_that_holds_what_is_not_the_nodes_is_refused_and_stays_as_it_is(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").touch()
    home.chmod(mode)
    with pytest.raises(StartError, match=f"is open to others .mode {mode:04o}. and holds what is not the node's"):
        make_state_folder(home)
    assert mode_of(home) == mode


def test_roles_make_files_that_others_cannot_read_and_leave_no_core(tmp_path: Path) -> None:
    code = """
        import ctypes, resource, sys
        from pathlib import Path
        from ich_node.service import keep_to_ourselves
        keep_to_ourselves()
        Path(sys.argv[1]).touch()
        Path(sys.argv[2]).mkdir()
        print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
    """
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    lines = "\n".join(line.strip() for line in code.splitlines())
    command = [sys.executable, "-c", lines, str(tmp_path / "file"), str(tmp_path / "folder")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout
    assert said == "(0, 0) 0\n", limit
    assert (mode_of(tmp_path / "file"), mode_of(tmp_path / "folder")) == (0o600, 0o700)
