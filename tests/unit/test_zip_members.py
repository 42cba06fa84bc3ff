"""Zip files are read member by member, and none of them can do harm by what it announces."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ich_node import zip_members
from ich_node.archive_scoring import unpacking
from ich_node.archive_scoring.finding import find_files, shown
from ich_node.archive_scoring.unpacking import on_disk
from ich_node.errors import SpoolFull, ZipRefused
from ich_node.records import ArchivedFile, BadFile
from ich_node.zip_members import copy_member, list_members, open_member

MIB = 1024 * 1024


def packed(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/"), content)
    return path


def test_members_are_listed_and_read_by_number_and_folders_are_none(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", __a=b"one", folder__=b"", b=b"two")
    assert [(one.number, one.name, one.size, one.why) for one in list_members(path, MIB)] == [
        (0, "/a", 3, ""),
        (2, "b", 3, ""),
    ]
    with open_member(path, 2) as stream:
        assert stream.read() == b"two"


def test_two_members_of_one_name_are_two(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("same", b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("same", b"two")
    for number, content in enumerate((b"one", b"two")):
        with open_member(tmp_path / "a.zip", number) as stream:
            assert stream.read() == content


def test_what_is_not_read_is_said_why(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", bomb=bytes(2 * MIB), inner=b"x")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_BZIP2) as file:
        file.writestr("bz", b"x")
        file.writestr("nested.ZIP", b"x", zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    content[directory + 8] |= 1  # the flag of encryption, of the second member
    path.write_bytes(content)
    assert [one.why for one in list_members(path, MIB)] == [
        "unpacks to more than 1 MiB",
        "encrypted in the zip file",
        "packed by another method than deflate",
        "a zip file within a zip file is not read",
    ]


def test_a_member_that_is_larger_than_it_says_is_not_unpacked_beyond_that(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", bomb=bytes(8 * MIB))
    content = path.read_bytes()
    assert path.stat().st_size < MIB
    path.write_bytes(content.replace(struct.pack("<I", 8 * MIB), struct.pack("<I", 100)))
    assert [one.size for one in list_members(path, MIB)] == [100]
    with pytest.raises(ZipRefused, match="damaged"):
        copy_member(path, 0, tmp_path / "out", MIB)
    assert (tmp_path / "out").stat().st_size <= 100


def test_a_limit_holds_whatever_the_directory_says(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", bomb=bytes(8 * MIB))
    with pytest.raises(ZipRefused, match="unpacks to more than 1 MiB"):
        copy_member(path, 0, tmp_path / "out", MIB)
    assert (tmp_path / "out").stat().st_size <= MIB


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_zip_file_that_was_cut_off_is_damaged(tmp_path: Path, cut: int) -> None:
    path = packed(tmp_path / "a.zip", one=b"1" * 100, two=b"2" * 100)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ZipRefused, match="damaged"):
        list(list_members(path, MIB))


def test_too_large_a_directory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.zip", one=b"1", two=b"2")
    monkeypatch.setattr(zip_members, "MOST_MEMBERS", 1)
    with pytest.raises(ZipRefused, match="has more than 1 members"):
        list(list_members(path, MIB))


def test_members_are_unpacked_under_names_of_ours_and_deleted_after(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", **{"..__..__evil": b"one", "__etc__b": b"two"})
    files = [ArchivedFile(0, path, number, f"name {number}", 3, 0) for number in range(2)]
    (tmp_path / "in").mkdir()
    with on_disk(files, tmp_path / "in", MIB) as (names, refused):
        assert refused == []
        assert list(names.values()) == ["name 0", "name 1"]
        assert [one.read_bytes() for one in names] == [b"one", b"two"]
        assert all((tmp_path / "in") in one.parents for one in names)
    assert list((tmp_path / "in").iterdir()) == []


def test_a_series_that_unpacks_to_too_much_is_unpacked_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_UNPACKED_BYTES", 5)
    path = packed(tmp_path / "a.zip", one=b"one", two=b"two")
    files = [ArchivedFile(0, path, number, f"name {number}", 3, 0) for number in range(2)]
    with on_disk(files, tmp_path, MIB) as (names, refused):
        assert list(names.values()) == ["name 0"]
        assert [one.name for one in refused] == ["name 1"]
        assert refused[0].why.startswith("its series unpacks to more than")


def test_a_bad_place_on_the_disk_of_an_archive_costs_the_member_that_lies_there_and_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "a.zip", one=b"one", two=b"two")
    files = [ArchivedFile(0, path, number, f"name {number}", 3, 0) for number in range(2)]
    real = zipfile.ZipExtFile.read

    def read(stream: zipfile.ZipExtFile, n: int = -1) -> bytes:
        if stream.name == "one":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(stream, n)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", read)
    with on_disk(files, tmp_path, MIB) as (names, refused):
        assert list(names.values()) == ["name 1"]
        assert refused == [BadFile("name 0", "cannot be read: Input/output error")]


def test_no_room_to_unpack_into_is_no_fault_of_a_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.zip", one=b"one")
    real = Path.open

    def open_it(file: Path, mode: str = "r", *others: Any) -> Any:
        if mode == "xb":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, mode, *others)

    monkeypatch.setattr(Path, "open", open_it)
    with pytest.raises(SpoolFull), on_disk([ArchivedFile(0, path, 0, "name", 3, 0)], tmp_path, MIB):
        pass


def test_what_a_killed_process_had_unpacked_goes_a_day_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = packed(tmp_path / "a.zip", one=b"one")
    with on_disk([ArchivedFile(0, path, 0, "name", 3, 0)], None, MIB) as (names, _):
        (image,) = names
        left = shutil.copytree(image.parent, image.parent.with_name(f"{image.parent.name}0"))
        os.utime(left, (time.time() - 2 * 86400,) * 2)
        unpacking.delete_left_over()
        assert image.read_bytes() == b"one"
        assert not left.exists()


def test_files_are_found_in_order_and_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"x")
    packed(tmp_path / "a.dcm", one=b"1")
    (tmp_path / "c").symlink_to(tmp_path / "gone")
    (tmp_path / "left").write_bytes(b"x")
    (tmp_path / "b" / "left").symlink_to(tmp_path, target_is_directory=True)
    found = list(find_files([tmp_path / "b" / ".."], {tmp_path / "left", tmp_path / "b" / "left"}))
    assert [(one.file.path.name, one.is_zip, one.why) for one in found] == [
        ("a.dcm", True, ""),
        ("c", False, "cannot be read: No such file or directory"),
        ("x", False, ""),
    ]


def test_names_are_shown_as_text() -> None:
    assert shown("a\x1b[31m\udcff") == "a?[31m\\xff"
