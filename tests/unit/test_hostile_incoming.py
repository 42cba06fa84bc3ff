"""Data sets as they come: in memory, then in a file without a name; and where the disk is full."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ich_node.errors import SpoolFull
from ich_node.receive.incoming import IN_MEMORY, IncomingDataSet

PIECE = bytes(range(256)) * 500


def grown(folder: Path, size: int, reserve: int = 0) -> IncomingDataSet:
    data_set = IncomingDataSet(folder, reserve)
    data_set.may_be_long = True
    for _ in range(size // len(PIECE)):
        data_set.write(PIECE)
    return data_set


@pytest.mark.parametrize("size", [len(PIECE), IN_MEMORY - len(PIECE), IN_MEMORY + len(PIECE), 5 * IN_MEMORY])
def test_what_was_written_is_read_again_and_no_name_is_ever_seen(tmp_path: Path, size: int) -> None:
    data_set = grown(tmp_path, size)
    expected = PIECE * (size // len(PIECE))
    assert not list(tmp_path.iterdir())
    data_set.check_kept()
    assert data_set.size == len(expected)
    assert data_set.with_mark(b"END").read() == expected + b"END"
    assert b"".join(data_set.pieces()) == expected, "the mark is no part of it"
    assert data_set.sha256() == hashlib.sha256(expected).hexdigest()
    data_set.close()
    data_set.close()


def test_a_message_that_stores_nothing_is_never_long(tmp_path: Path) -> None:
    data_set = IncomingDataSet(tmp_path)
    data_set.write(bytes(IN_MEMORY))
    with pytest.raises(OSError, match="longer than allowed"):
        data_set.write(b"x")
    assert not list(tmp_path.iterdir())


def test_a_disk_at_its_reserve_keeps_nothing_and_says_so_in_the_end(tmp_path: Path) -> None:
    data_set = grown(tmp_path, 3 * IN_MEMORY, reserve=2**62)
    assert data_set.size == 3 * IN_MEMORY // len(PIECE) * len(PIECE)
    with pytest.raises(SpoolFull):
        data_set.check_kept()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(SpoolFull):
        grown(tmp_path / "absent", 2 * IN_MEMORY).check_kept()
