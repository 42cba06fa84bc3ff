"""Files whose meta information (PS3.10 7.1) names what leads elsewhere: nothing is written but where it belongs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from sqlalchemy import func, select

from ich_node.config import parse_config
from ich_node.database import InstanceRow, ResultRow, open_database
from ich_node.rebuild import rebuild
from tests.ct_series import as_file, ct_slice
from tests.hostile_objects import traversals
from tests.outbox import save_report
from tests.running import settings

COUNT = 500
_UID_OF_THE_OBJECT = b"\x02\x00\x03\x00UI"
"""Media Storage SOP Instance UID (0002,0003)."""
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, so deep that a name with some ``..`` is still found; it is the current one."""
    deep = tmp_path / "a/b/c/d/e/f"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    return deep


def names(place: Path) -> list[bytes]:
    """Names for (0002,0003), whole paths among them."""
    whole = [f"{place.parents[depth]}/written{depth}".encode() for depth in range(6)]
    up = [b"../" * depth + b"written" for depth in range(1, 7)]
    return [*whole, *up, *traversals(COUNT - 12)]


def with_name(part10: bytes, name: bytes) -> bytes:
    """Put a name in the place of a file's (0002,0003)."""
    at = part10.index(_UID_OF_THE_OBJECT, 132) + 6
    (length,) = struct.unpack_from("<H", part10, at)
    padded = name + b"\0" * (len(name) % 2)
    changed = part10[:at] + struct.pack("<H", len(padded)) + padded + part10[at + 2 + length :]
    (of_group,) = struct.unpack_from("<I", part10, 140)
    return changed[:140] + struct.pack("<I", of_group + len(padded) - length) + changed[144:]


def small(number: int, **values: str) -> bytes:
    """An image of 4 x 4 pixels as a file of ours, with who sent it."""
    ds = ct_slice(1, SOPInstanceUID=f"2.25.9.1.{number}", Rows=4, Columns=4, PixelData=bytes(32), **values)
    part10 = as_file(ds)
    sender = b"\x02\x00\x16\x00AE" + struct.pack("<H", 8) + b"SCANNER1"
    (of_group,) = struct.unpack_from("<I", part10, 140)
    end = 144 + of_group
    return part10[:140] + struct.pack("<I", of_group + len(sender)) + part10[144:end] + sender + part10[end:]


def everything(place: Path) -> set[str]:
    """Every file and folder around the place of work, up to the folder of the test, and beside that."""
    top = place.parents[5]
    return {str(path) for path in (*top.rglob("*"), *top.parent.glob("written*"), *Path("/").glob("written*"))}


def test_rebuild_enters_the_files_where_they_are_whatever_they_call_themselves(place: Path) -> None:
    state = place / "state"
    spool = state / "spool"
    for number, name in enumerate(names(place)):
        part10 = small(number, SeriesInstanceUID="2.25.9.1")
        path = spool / f"{number % 16:02x}" / f"{number:032x}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(with_name(part10, name))
    saved = [(name, one) for number, name in enumerate(names(place)[:10])
             for one in save_report(state, f"2.25.{number}", 1)]  # fmt: skip
    assert len(saved) > 10, "each report in several encodings"
    for name, one in saved:
        path = state / one.path
        path.write_bytes(with_name(path.read_bytes(), name))
    before = everything(place)
    config = parse_config(settings(state, place))

    done = rebuild(config)

    assert (done.images, done.unreadable) == (COUNT, [])
    database = open_database(config.database_url)
    try:
        with database.reading() as connection:
            paths = set(connection.scalars(select(InstanceRow.path)))
            results = connection.scalar(select(func.count()).select_from(ResultRow))
    finally:
        database.close()
    assert paths == {str(path.relative_to(state)) for path in spool.rglob("*.dcm")}
    assert results == done.results == len(saved)
    new = {Path(path).relative_to(state) for path in everything(place) - before}
    assert {path.parts[0].split(".sqlite")[0] for path in new} <= {
        "ich-node",
        "installation.json",
        "migrate.lock",
        "installation.lock",
        "node.lock",
    }
