"""The audit trail on disk: nothing recorded is lost or altered unseen, whoever writes and whatever ends it."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ich_node.audit import journal as journal_module
from ich_node.audit.journal import Journal
from ich_node.audit.reading import read_messages, verify
from ich_node.audit.stored import audit_files, count_unsent, delete_old_files, faults_of, read_records, write_positions
from ich_node.audit.syslog import format_message
from tests.running import wait_for

ROOT = Path(__file__).parents[2]


def numbered(number: int) -> Callable[[float], bytes]:
    return lambda at: format_message(b"<AuditMessage>%d</AuditMessage>" % number, at, "host", "test.1")


def numbers_in(directory: Path) -> list[int]:
    """What is stored, file by file."""
    messages = [record.message for path in audit_files(directory) for record in read_records(path)]
    return [int(message.partition(b"<AuditMessage>")[2].partition(b"<")[0]) for message in messages]


def write(directory: Path, count: int, start: int = 0) -> Path:
    journal = Journal(directory, "test-1")
    for number in range(start, start + count):
        journal.append(numbered(number))
    journal.close()
    return audit_files(directory)[-1]


_HEAD = """
import sys
from pathlib import Path
from ich_node.audit.journal import Journal
from ich_node.audit.syslog import format_message

def numbered(number):
    return lambda at: format_message(b"<AuditMessage>%d</AuditMessage>" % number, at, "host", "test.1")

folder = Path(sys.argv[1])
"""


def python(code: str, *words: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _HEAD + code, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_was_recorded_outlives_kill_9_of_the_process(tmp_path: Path) -> None:
    code = """
journal = Journal(folder, "x")
for n in range(10**6):
    journal.append(numbered(n))
    print(n, flush=True)
"""
    with python(code, tmp_path) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
    numbers = [int(line) for line in told if line.endswith("\n")]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 200
    stored = numbers_in(tmp_path)
    assert stored == list(range(len(stored)))
    assert len(stored) >= len(numbers), "what it said it had recorded is there"
    assert verify(tmp_path)[1] == []


def test_a_durable_record_is_on_disk_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", watch)
    journal = Journal(tmp_path, "test-1")
    journal.append(numbered(1), durable=True)
    (path,) = audit_files(tmp_path)
    assert path.stat().st_size in synced
    journal.append(numbered(2))
    wait_for(lambda: path.stat().st_size in synced, "the other record is durable soon")
    journal.close()


class FailingFsync:
    """Fails some times, of the files of a trail."""

    def __init__(self, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.durable, self._fsync = times, set[tuple[int, int]](), os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, descriptor: int) -> None:
        file = os.fstat(descriptor)
        if stat.S_ISREG(file.st_mode):
            if self.left:
                self.left -= 1
                raise OSError(errno.EIO, "Input/output error")
            self.durable.add((file.st_ino, file.st_size))
        self._fsync(descriptor)

    def has(self, path: Path) -> bool:
        """Say whether all of a file is on disk."""
        return (path.stat().st_ino, path.stat().st_size) in self.durable


@pytest.mark.parametrize("durable", [True, False])
def test_after_an_fsync_that_failed_the_record_is_made_durable_in_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, durable: bool
) -> None:
    journal = Journal(tmp_path, "test-1")
    journal.append(numbered(1), durable=True)
    disk = FailingFsync(1, monkeypatch)
    journal.append(numbered(2), durable=durable)
    wait_for(lambda: len(audit_files(tmp_path)) == 2 and disk.has(audit_files(tmp_path)[1]), "it is on disk")
    journal.append(numbered(3), durable=True)
    assert disk.has(audit_files(tmp_path)[1])
    journal.close()
    assert numbers_in(tmp_path) == [1, 2, 2, 3]
    assert len({record.message for path in audit_files(tmp_path) for record in read_records(path)}) == 3
    assert verify(tmp_path)[1] == []
    assert caplog.text.count("cannot be made durable") == 1


def test_a_disk_that_makes_nothing_durable_is_told_and_gets_each_record_twice_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path, "test-1")
    FailingFsync(1000, monkeypatch)
    for number in range(5):
        journal.append(numbered(number), durable=True)
    journal.close()
    assert numbers_in(tmp_path) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert verify(tmp_path)[1] == []
    assert "cannot be made durable" in caplog.text


def test_records_of_many_threads_keep_one_chain_and_no_two_have_one_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "test-1")

    def many(start: int) -> None:
        for number in range(start, start + 200):
            journal.append(numbered(number), durable=number % 50 == 0)

    threads = [threading.Thread(target=many, args=(1000 * one,)) for one in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert len(numbers_in(tmp_path)) == 1000
    assert verify(tmp_path)[1] == []
    messages = list(read_messages(tmp_path))
    assert len({message.split(b" ", 2)[1] for message in messages}) == 1000


def test_a_clock_set_back_makes_no_two_records_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, "test-1")
    times: list[float] = []

    def make(at: float) -> bytes:
        times.append(at)
        return numbered(0)(at)

    for now in (1000.0, 500.0, 500.0, 2000.0):
        with monkeypatch.context() as clock:
            clock.setattr(journal_module.time, "time", lambda now=now: now)
            journal.append(make)
    journal.close()
    assert times == sorted(set(times))


def test_a_new_file_is_begun_before_one_grows_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_LONGEST_FILE", 2000)
    write(tmp_path, 100)
    assert len(audit_files(tmp_path)) > 5
    assert all(path.stat().st_size < 2500 for path in audit_files(tmp_path))
    assert numbers_in(tmp_path) == list(range(100))
    assert verify(tmp_path) == (len(audit_files(tmp_path)), [], [])


def test_files_and_folder_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "audit", 1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


# ------------------------------------------------------------------------------------------ alteration


def altered(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[3].replace(b"<AuditMessage>2<", b"<AuditMessage>7<"), *lines[4:]]


SPOILED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "altered": altered,
    "taken out": lambda lines: lines[:3] + lines[4:],
    "put in": lambda lines: lines[:3] + lines[2:],
    "exchanged": lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
    "head altered": lambda lines: [lines[0].replace(b" -", b" 00"), *lines[1:]],
    "nonsense": lambda lines: [*lines, b"nonsense\n"],
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_record_that_is_altered_shows(tmp_path: Path, how: str) -> None:
    path = write(tmp_path, 5)
    assert faults_of(path) == []
    path.write_bytes(b"".join(SPOILED[how](path.read_bytes().splitlines(keepends=True))))
    assert len(faults_of(path)) == 1


def test_a_file_that_was_taken_away_shows_in_the_next_of_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_LONGEST_FILE", 1000)
    write(tmp_path, 30)
    audit_files(tmp_path)[1].unlink()
    _, faults, notes = verify(tmp_path)
    assert (faults, len(notes)) == ([], 1)


def test_a_record_cut_short_at_the_end_is_no_fault_and_hides_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, 5)
    path.write_bytes(path.read_bytes()[:-10])
    assert faults_of(path) == []
    assert numbers_in(tmp_path) == [0, 1, 2, 3]


# ------------------------------------------------------------------------------------------------ trouble


def test_what_a_full_disk_does_not_take_is_kept_and_written_later(tmp_path: Path) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
journal = Journal(folder, "x")
for n in range(60):
    journal.append(numbered(n))
print("full", flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(numbered(60), durable=True)
journal.close()
"""
    with python(code, tmp_path) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert sorted(numbers_in(tmp_path)) == list(range(61))
    assert numbers_in(tmp_path) == list(range(61)), "in their order"
    assert verify(tmp_path)[1] == []
    assert "full" in output


def test_a_folder_that_cannot_be_written_stops_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "audit").write_bytes(b"")  # a file where the folder is to be
    journal = Journal(tmp_path / "audit", "test-1")
    for number in range(20):
        journal.append(numbered(number), durable=True)
    told = [one for one in caplog.records if "cannot be written" in one.getMessage()]
    assert len(told) == 1
    assert sum(thread.name == "audit" for thread in threading.enumerate()) <= 1
    (tmp_path / "audit").unlink()
    journal.append(numbered(20), durable=True)
    assert numbers_in(tmp_path / "audit") == list(range(21))
    journal.close()


def test_what_does_not_fit_in_memory_either_is_counted_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_MOST_WAITING", 10)
    (tmp_path / "audit").write_bytes(b"")
    journal = Journal(tmp_path / "audit", "test-1")
    for number in range(25):
        journal.append(numbered(number))
    assert journal.take_lost() == 0, "it is told when the disk takes it"
    (tmp_path / "audit").unlink()
    journal.append(numbered(25))
    assert journal.take_lost() == 15
    assert numbers_in(tmp_path / "audit") == list(range(15, 26))
    journal.close()


# ----------------------------------------------------------------------------------------------- deletion


def grow_old(path: Path) -> None:
    long_ago = time.time() - 20 * 86400
    os.utime(path, (long_ago, long_ago))


def test_old_files_are_deleted_when_they_were_sent(tmp_path: Path) -> None:
    path = write(tmp_path, 5)
    assert delete_old_files(tmp_path, 10, must_be_sent=True) == 0, "it is not old"
    grow_old(path)
    assert delete_old_files(tmp_path, 10, must_be_sent=True) == 0, "it was not sent"
    ends = [record.end for record in read_records(path)]
    write_positions(tmp_path, {path.name: ends[3]})
    assert count_unsent(tmp_path) == 1
    assert delete_old_files(tmp_path, 10, must_be_sent=True) == 0, "one record was not"
    write_positions(tmp_path, {path.name: ends[4]})
    assert delete_old_files(tmp_path, 10, must_be_sent=True) == 1
    assert audit_files(tmp_path) == []


def test_without_a_server_old_files_are_deleted_but_never_one_that_is_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "test-1")
    journal.append(numbered(1))
    (path,) = audit_files(tmp_path)
    grow_old(path)
    assert delete_old_files(tmp_path, 10, must_be_sent=False) == 0
    journal.close()
    grow_old(path)
    assert delete_old_files(tmp_path, 10, must_be_sent=False) == 1


def test_positions_that_cannot_be_read_mean_that_nothing_was_sent(tmp_path: Path) -> None:
    write(tmp_path, 3)
    for content in (b"", b"[1]", b'{"a": "b"}', b"\xff"):
        (tmp_path / "sent.json").write_bytes(content)
        assert count_unsent(tmp_path) == 3
    (tmp_path / "sent.json").write_text(json.dumps({audit_files(tmp_path)[0].name: 10**9}))
    assert count_unsent(tmp_path) == 0
