"""The spool: a file is there whole or not at all, under a name of ours."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from ich_node.durable import write_durably
from ich_node.errors import SpoolFull, SpoolReadOnly, StartError, StorageFailed
from ich_node.receive.spool import Spool, file_head, split_file
from ich_node.stored_files import LocalFiles

HEAD = file_head("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1", "CT1")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(LocalFiles(tmp_path), reserve_mib=0)
    spool.prepare()
    return spool


def everything_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def fail_with(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_what_is_written_is_there_whole(spool: Spool, tmp_path: Path) -> None:
    path = spool.write((b"head", memoryview(b"body")))
    assert (tmp_path / path).read_bytes() == b"headbody"
    assert [one.name for one in spool.files()] == [path]


def test_names_are_ours_and_differ(spool: Spool) -> None:
    names = {spool.write((b"x",)) for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("spool/") and name.endswith(".dcm") and name.count("/") == 2 for name in names)


def test_file_and_folder_are_synced_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(descriptor: int) -> None:
        seen.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_sync(descriptor)

    def rename(part: str, whole: str) -> None:
        seen.append("rename")
        real_rename(part, whole)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    write_durably(tmp_path / "x.dcm", [b"x"])
    assert seen == ["file", "rename", "folder"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["fsync of the file", "fsync of the folder"])
def test_no_room_leaves_nothing_behind(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: str
) -> None:
    if step == "fsync of the file":
        monkeypatch.setattr(os, "fsync", fail_with(number))
    else:
        monkeypatch.setattr("ich_node.durable.sync_directory", fail_with(number))
    with pytest.raises(SpoolFull):
        spool.write((b"x" * 1000,))
    assert everything_in(tmp_path) == []


def test_another_fault_of_the_disk_leaves_nothing_behind_either(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.EIO))
    with pytest.raises(StorageFailed, match="the disk failed: Input/output error"):
        spool.write((b"x",))
    assert everything_in(tmp_path) == []


def test_a_disk_that_is_mounted_read_only_is_named(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.EROFS))
    with pytest.raises(SpoolReadOnly, match="mounted read-only"):
        spool.write((b"x",))


def test_the_reserve_of_the_disk_is_not_touched(tmp_path: Path) -> None:
    spool = Spool(LocalFiles(tmp_path), reserve_mib=10**9)
    spool.prepare()
    with pytest.raises(SpoolFull, match="reserve"):
        spool.write((b"x",))
    assert everything_in(tmp_path) == []


def test_what_an_interrupted_write_left_is_removed_at_the_start(spool: Spool, tmp_path: Path) -> None:
    kept = spool.write((b"x",))
    (tmp_path / "spool/00/half.part").write_bytes(b"half")
    spool.prepare()
    assert everything_in(tmp_path) == [tmp_path / kept]


def test_a_state_folder_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=f"the state folder {tmp_path}/file/state cannot be written: Not a directory"):
        Spool(LocalFiles(tmp_path / "file/state"), 0).prepare()


def test_the_head_of_a_file_is_what_ps3_10_wants(spool: Spool, tmp_path: Path) -> None:
    path = tmp_path / spool.write((HEAD, b"\x08\x00\x60\x00CS\x02\x00CT"))
    meta = pydicom.dcmread(path).file_meta
    assert path.read_bytes()[:132] == b"\0" * 128 + b"DICM"
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert meta.SourceApplicationEntityTitle == "CT1"
    assert meta.ImplementationClassUID.startswith("2.25.")


def test_a_file_of_ours_comes_apart_into_syntax_and_data_set() -> None:
    syntax, data_set = split_file(HEAD + b"the data set")
    assert (syntax, bytes(data_set)) == ("1.2.840.10008.1.2.1", b"the data set")
