"""Reading the trail back: records in their order, whether they are as they were written, and what may be deleted."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ich_node.audit.journal import HEAD, SUFFIX, chain, start_of
from ich_node.durable import replace_durably

FOLDER: Final = "audit"
"""In the state folder."""
_POSITIONS: Final = "sent.json"
_HASH: Final = 64
_SECONDS_A_DAY: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it stands in a file."""

    message: bytes
    """A syslog message."""
    digest: str
    end: int
    """Where the next record begins, in bytes from the start of the file."""


def audit_files(directory: Path) -> list[Path]:
    """List the files of a trail, those begun first first."""
    return sorted(directory.glob(f"*{SUFFIX}"))


def read_records(path: Path, start: int = 0) -> Iterator[Record]:
    """Give the whole records of a file from a place on, without looking at their hashes; pass over what is none.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(start)
        end = start
        for line in file:
            end += len(line)
            if record := _record(line, end):
                yield record


def _record(line: bytes, end: int) -> Record | None:
    digest, _, rest = line.partition(b" ")
    length, _, message = rest.partition(b" ")
    whole = len(digest) == _HASH and length.isdigit() and message == message[: int(length)] + b"\n"
    return Record(message[:-1], digest.decode("ascii", "replace"), end) if whole else None


def faults_of(path: Path) -> list[str]:
    """Check every record of a file against the chain of hashes; say what is wrong.

    A record cut short at the end of a file whose process is gone is no fault: it was never complete.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        before, end = "", 0
        for number, line in enumerate(file):
            end += len(line)
            if number == 0:
                if not _is_head_of(path, line):
                    return ["its first line is not its own"]
                before = start_of(line)
            elif (record := _record(line, end)) and chain(before, record.message) == record.digest:
                before = record.digest
            elif record is not None or line.endswith(b"\n"):  # else it was cut short
                return [f"record {number} is not as it was written, or the one before it is gone"]
    return []


def _is_head_of(path: Path, line: bytes) -> bool:
    words = line.split()
    return len(words) == 3 and words[:2] == [HEAD, path.name.encode()]


def last_digest(path: Path) -> str:
    """Give what the next file of the same process is chained to."""
    with path.open("rb") as file:
        digest = start_of(file.readline())
    for record in read_records(path):
        digest = record.digest
    return digest


def predecessors(paths: list[Path]) -> Mapping[str, str]:
    """Give the hash that each file says the file before it of the same process ended with."""
    found = {}
    for path in paths:
        with path.open("rb") as file:
            words = file.readline().split()
        if len(words) == 3 and words[2] != b"-":
            found[path.name] = words[2].decode("ascii", "replace")
    return found


# ------------------------------------------------------------------------------------------- what was sent


def read_positions(directory: Path) -> dict[str, int]:
    """Give up to where each file was sent, in bytes; nothing where that cannot be read: sent twice is not lost."""
    try:
        positions = json.loads((directory / _POSITIONS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    fit = isinstance(positions, dict) and all(isinstance(one, int) for one in positions.values())
    return positions if fit else {}


def write_positions(directory: Path, positions: Mapping[str, int]) -> None:
    """Note durably up to where each file was sent.

    Raises:
        SpoolFull: there is no room.
        OSError: it cannot be written.
    """
    there = {path.name for path in audit_files(directory)}
    kept = {name: end for name, end in sorted(positions.items()) if name in there}
    replace_durably(directory / _POSITIONS, [json.dumps(kept).encode()])


def count_unsent(directory: Path) -> int:
    """Count the records that the server has not got."""
    positions = read_positions(directory)
    return sum(1 for path in audit_files(directory) for _ in read_records(path, positions.get(path.name, 0)))


def delete_old_files(directory: Path, keep_days: float, *, must_be_sent: bool) -> int:
    """Delete files past their days that no process writes, once all of them was sent; return how many went."""
    before = time.time() - keep_days * _SECONDS_A_DAY
    positions = read_positions(directory) if must_be_sent else {}
    count = 0
    for path in audit_files(directory):
        old = path.stat().st_mtime < before and not _is_written(path)
        if old and not (must_be_sent and any(read_records(path, positions.get(path.name, 0)))):
            path.unlink()
            count += 1
    return count


def _is_written(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
