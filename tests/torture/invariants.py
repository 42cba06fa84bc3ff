"""What must be true of a node whatever happened to it, seen from outside: SQLite, files and its peers' notes.

Nothing of the node is used here, so that no fault of it can hide itself.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.torture.peers import ALERTS, ANSWERS, COMMITMENTS, REPORTS, read_notes
from tests.torture.studies import SentStudy

_ENDED_WELL = ("CONCLUDED", "NOT_ANALYSED")


@dataclass
class Judgement:
    """What was found; sentences that name what was promised and did not hold."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    objects: int = 0
    """Answered with success, and found again."""
    reports: int = 0
    alerts: int = 0
    repeats: int = 0
    """Reports and alerts that came more than once, each the same: allowed."""

    @property
    def violations(self) -> list[str]:
        return self.lost + self.doubled + self.wrong


def judge(state: Path, witness: Path, studies: Sequence[SentStudy], *, settled: bool = True) -> Judgement:
    """Look at a node whose receiver was started again.

    Args:
        settled: everything was sent and worked off since; False: only what was received is judged.
    """
    found = Judgement()
    try:
        _judge(found, state, witness, studies, settled=settled)
    except sqlite3.DatabaseError as error:
        found.wrong.append(f"the database is damaged: {error}")
    return found


def _judge(found: Judgement, state: Path, witness: Path, studies: Sequence[SentStudy], *, settled: bool) -> None:
    with closing(sqlite3.connect(f"file:{state / 'ich-node.sqlite'}?mode=ro", uri=True, timeout=30)) as connection:
        _judge_integrity(found, connection)
        judge_rows(found, connection, state, witness, studies, settled=settled)


def judge_rows(
    found: Judgement,
    connection: sqlite3.Connection,
    state: Path,
    witness: Path,
    studies: Sequence[SentStudy],
    *,
    settled: bool = True,
) -> None:
    """Look at what a database says, wherever it was read from, and at files and notes."""
    connection.row_factory = sqlite3.Row
    _judge_objects(found, connection, state, read_notes(witness / ANSWERS))
    _judge_answers_of_commitment(found, connection, read_notes(witness / COMMITMENTS))
    _judge_patients(found, connection, studies)
    _judge_parts(found, state)
    if settled:
        for study in studies:
            _judge_ending(found, connection, study)
        _judge_reports(found, connection, read_notes(witness / REPORTS), studies)
        _judge_commitments(found, connection, read_notes(witness / COMMITMENTS))
        _judge_alerts(found, connection, read_notes(witness / ALERTS), studies)


def _judge_integrity(found: Judgement, connection: sqlite3.Connection) -> None:
    answer = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    if answer != ["ok"]:
        found.wrong.append(f"the database is damaged: {answer[:3]}")


def _judge_objects(
    found: Judgement, connection: sqlite3.Connection, state: Path, answers: Sequence[dict[str, Any]]
) -> None:
    """Every object answered 0x0000 has one row and one file with the bytes that were sent; no file is without a row."""
    rows: dict[tuple[str, str], list[sqlite3.Row]] = defaultdict(list)
    for row in connection.execute("SELECT sop_instance_uid, sha256, path, state, reason FROM instance"):
        rows[row["sop_instance_uid"], row["sha256"]].append(row)
    files = {str(path.relative_to(state)): _hash_of(path) for path in state.glob("spool/*/*.dcm")}
    for one in {(answer["uid"], answer["sha256"]) for answer in answers if answer["status"] == 0}:
        entered = rows.get(one, [])
        if not entered:
            found.lost.append(f"answered with success and no row: {one[0]}")
        elif len(entered) > 1:
            found.doubled.append(f"{len(entered)} rows: {one[0]}")
        elif files.get(entered[0]["path"]) != one[1]:
            found.lost.append(f"answered with success and no such file: {one[0]}")
        else:
            found.objects += 1
    of_rows = {row["path"] for entered in rows.values() for row in entered}
    found.doubled += [f"a file that no row speaks of: {path}" for path in files if path not in of_rows]
    found.doubled += [
        f"{number} files with the same bytes" for number in Counter(files.values()).values() if number > 1
    ]


def _hash_of(path: Path) -> str:
    """Of the data set in a file, by the rules of PS3.10 7.1."""
    content = path.read_bytes()
    if content[:132] != b"\0" * 128 + b"DICM":
        return "no DICOM"
    return hashlib.sha256(content[144 + int.from_bytes(content[140:144], "little") :]).hexdigest()


def _judge_patients(found: Judgement, connection: sqlite3.Connection, studies: Sequence[SentStudy]) -> None:
    """No image lies in another patient's study."""
    belongs = {path.stem: study.uid for study in studies for path in study.folder.glob("*.ds")}
    query = """SELECT sop_instance_uid, study_instance_uid FROM instance
        JOIN series ON series.id = instance.series_id JOIN study ON study.id = series.study_id"""
    found.wrong += [f"in another study: {uid}" for uid, study in connection.execute(query) if belongs.get(uid) != study]


def _judge_parts(found: Judgement, state: Path) -> None:
    found.wrong += [f"half-written file left: {path.name}" for path in state.glob("spool/**/*.part")]


def _judge_ending(found: Judgement, connection: sqlite3.Connection, study: SentStudy) -> None:
    """Every eligible series ends with a result or a visible reason; a whole one with a result."""
    query = """SELECT series.state, series.reason, series.complete, series.triage, study.revision,
            (SELECT count(*) FROM instance WHERE series_id = series.id AND current AND state = 'DECODED') AS read
        FROM study JOIN series ON series.study_id = study.id WHERE study_instance_uid = ?"""
    rows = connection.execute(query, [study.uid]).fetchall()
    if len(rows) != 1:
        found.wrong.append(f"{len(rows)} series in {study.uid}")
        return
    (row,) = rows
    if row["state"] not in _ENDED_WELL:
        found.wrong.append(f"{row['state']} ({row['reason']}): {study.uid}")
    elif study.is_whole and (row["triage"] is None or not row["complete"] or row["read"] != study.slices):
        found.wrong.append(f"a whole series says {row['triage']}, complete {row['complete']}, {row['read']} slices")
    elif not study.is_whole and row["reason"] != "TOO_FEW_SLICES":
        found.wrong.append(f"a short series says {row['reason']}")
    if not row["revision"]:
        found.lost.append(f"no report: {study.uid}")


def _judge_reports(
    found: Judgement, connection: sqlite3.Connection, received: Sequence[dict[str, Any]], studies: Sequence[SentStudy]
) -> None:
    """One report per revision has come to the PACS, of one patient; a repeat is the same object, bit for bit."""
    by_uid: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in received:
        by_uid[one["uid"]].append(one)
    patients = {study.uid: study for study in studies}
    came: dict[tuple[str, int], set[str]] = defaultdict(set)
    revisions = {
        row["sop_instance_uid"]: (row["study_instance_uid"], row["revision"])
        for row in connection.execute(
            "SELECT sop_instance_uid, study_instance_uid, result.revision FROM result JOIN study ON study.id = study_id"
        )
    }
    for uid, repeats in by_uid.items():
        found.repeats += len(repeats) - 1
        if len({one["sha256"] for one in repeats}) > 1:
            found.doubled.append(f"the same UID with other content: {uid}")
        if uid not in revisions:
            found.lost.append(f"sent, and no row speaks of it: {uid}")
            continue
        came[revisions[uid]].add(uid)
        study = patients[repeats[0]["study"]]
        own = {path.stem for path in study.folder.glob("*.ds")}
        if repeats[0]["patient"] != study.patient_id or not set(repeats[0]["images"]) <= own:
            found.wrong.append(f"a report about another patient: {uid}")
    found.doubled += [f"{len(uids)} reports of one revision: {one}" for one, uids in came.items() if len(uids) > 1]
    current = connection.execute("SELECT study_instance_uid, revision FROM study WHERE revision > 0").fetchall()
    found.lost += [f"no report in the PACS: {tuple(row)}" for row in current if tuple(row) not in came]
    found.reports += len(came)


def _judge_answers_of_commitment(
    found: Judgement, connection: sqlite3.Connection, said: Sequence[dict[str, Any]]
) -> None:
    """An answer of storage commitment that was taken with success is in the database, as it was given."""
    query = """SELECT commitment_report.committed FROM commitment_report
        JOIN commitment ON commitment.id = commitment_id WHERE transaction_uid = ?"""
    for one in said:
        if one["status"] != 0:
            continue
        kept = [json.loads(row["committed"]) for row in connection.execute(query, [one["transaction"]])]
        if one["committed"] not in [[uid for _, uid in committed] for committed in kept]:
            found.lost.append(f"an answer of storage commitment was taken and is not there: {one['transaction']}")


def _judge_commitments(found: Judgement, connection: sqlite3.Connection, said: Sequence[dict[str, Any]]) -> None:
    """Every delivery ends committed, or a later revision took its place; committed is what the PACS committed to."""
    promised = {uid for one in said for uid in one["committed"]}
    for row in connection.execute("SELECT sop_instance_uid, state FROM delivery"):
        if row["state"] == "COMMITTED" and row["sop_instance_uid"] not in promised:
            found.wrong.append(f"COMMITTED, and the PACS never said so: {row['sop_instance_uid']}")
        if row["state"] not in ("COMMITTED", "SUPERSEDED"):
            found.lost.append(f"not committed but {row['state']}: {row['sop_instance_uid']}")


def _judge_alerts(
    found: Judgement, connection: sqlite3.Connection, heard: Sequence[dict[str, Any]], studies: Sequence[SentStudy]
) -> None:
    """Every study was told of at least once; a repeat has the same identifier; nobody is told of another patient."""
    patients = {study.uid: study.patient_id for study in studies}
    query = """SELECT identifier, study_instance_uid, alert.revision, kind, step, state FROM alert
        JOIN study ON study.id = alert.study_id"""
    rows = connection.execute(query).fetchall()
    of_identifier = {row["identifier"]: row for row in rows}
    times = Counter(one["identifier"] for one in heard)
    found.repeats += sum(number - 1 for number in times.values())
    for one in heard:
        row = of_identifier.get(one["identifier"])
        if row is None:
            found.lost.append(f"told, and no row speaks of it: {one['identifier']}")
        elif one["patient"] != patients[row["study_instance_uid"]]:
            found.wrong.append(f"told of another patient: {one['identifier']}")
    found.lost += [
        f"never told: {row['identifier']}"
        for row in rows
        if row["state"] != "SUPERSEDED" and not times[row["identifier"]]
    ]
    told = {row["study_instance_uid"] for row in rows}
    found.lost += [f"nobody was to be told of {study.uid}" for study in studies if study.uid not in told]
    found.alerts += len(times)
