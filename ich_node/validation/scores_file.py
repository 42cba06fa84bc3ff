"""What ``ich-node score --json`` printed, or ``ich-node score-archive`` wrote → one answer of each study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ich_node.errors import DamagedTable, TableFaults
from ich_node.records import HEMORRHAGE_CLASSES, TRIAGE_RANKS, ClassThresholds, StudyResult, Triage
from ich_node.triage import presence_of

_LARGEST: Final = 2 * 1024 * 1024 * 1024
_MOST_FAULTS: Final = 50
PARQUET: Final = ".parquet"
_GROUPED_BY: Final = ("station_name", "slice_thickness_mm", "age_years", "sex")
"""In a table alone."""


def read_scores(path: Path) -> tuple[StudyResult, ...]:
    """Read a list of series, a file with one such entry or list per line (``.jsonl``), or a table (``.parquet``).

    Of several series of a study that with the highest answer counts, and among these the highest probability: the rule
    that the node has for a study, but for its choice among series, which ``score`` does not make.

    Raises:
        TableFaults: with every fault and the entry that it is in.
        StartError: it is a table, and what reads these is not installed.
    """
    faults: list[str] = []
    best: dict[str, StudyResult] = {}
    entries = _rows(path) if path.suffix.lower() == PARQUET else _entries(path, faults)
    for where, entry in entries:
        try:
            one = _result(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            faults.append(f"{where}: no entry of `ich-node score --json` ({type(error).__name__}: {error})")
            continue
        before = best.get(one.study_instance_uid)
        if before is None or _rank(one) > _rank(before):
            best[one.study_instance_uid] = one
    if not faults and not best:
        faults.append("no series is in it")
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise TableFaults(path, faults[:_MOST_FAULTS] + more)
    return tuple(best.values())


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    from ich_node.score_table import read_entries  # asks for pyarrow, which not everybody installs

    try:
        for number, entry in enumerate(read_entries(path), 1):
            yield f"row {number}", entry
    except DamagedTable as error:
        raise TableFaults(path, [error.why]) from None


def _entries(path: Path, faults: list[str]) -> Iterator[tuple[str, Any]]:
    try:
        if path.stat().st_size > _LARGEST:
            raise TableFaults(path, ["larger than 2 GiB"])
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise TableFaults(path, [str(why)]) from None
    lines = enumerate(text.splitlines(), 1) if path.suffix.lower() == ".jsonl" else [(0, text)]
    for line, part in lines:
        if not part.strip():
            continue
        where = f"line {line}, " if line else ""
        try:
            found = json.loads(part)
        except (ValueError, RecursionError) as error:
            faults.append(f"{where}no JSON: {str(error)[:100]}")
            continue
        for number, entry in enumerate(found if isinstance(found, list) else [found], 1):
            yield f"{where}entry {number}", entry


def _result(entry: dict[str, Any]) -> StudyResult:
    uid, model = str(entry["study_instance_uid"]), entry["model"]
    identity = (str(model["name"]), str(model["version"]), str(model["sha256"]))
    about = {name: entry[name] for name in _GROUPED_BY if entry.get(name) is not None}
    if entry["triage"] is None:
        return StudyResult(uid, None, str(entry["not_analysed_reason"] or "not analysed"), model=identity, **about)
    triage, complete = Triage(entry["triage"]), bool(entry["complete"])
    probabilities = {name: _share(entry["probabilities"][name]) for name in HEMORRHAGE_CLASSES}
    pairs = {name: entry["thresholds"][name] for name in HEMORRHAGE_CLASSES}
    thresholds = {name: ClassThresholds(_share(one["low"]), _share(one["high"])) for name, one in pairs.items()}
    return StudyResult(
        uid,
        triage,
        probabilities=probabilities,
        presence=presence_of(probabilities, thresholds, triage, complete=complete),
        thresholds=thresholds,
        complete=complete,
        model=identity,
        test_model=bool(entry.get("test_model")),
        **about,
    )


def _share(value: Any) -> float:
    share = float(value)
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{share} is no probability")
    return share


def _rank(one: StudyResult) -> tuple[int, float]:
    return TRIAGE_RANKS[one.triage], one.probabilities.get("any", -1.0)
