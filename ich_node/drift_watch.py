"""The look of a day, in a child process that ends with it: the libraries of statistics stay in no role's memory."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from typing import Any, Final

from ich_node.config import Config
from ich_node.database import Database, open_database
from ich_node.drift import Look, in_words, look_to_json
from ich_node.drift.wording import group_name
from ich_node.job_queue.drift import look_is_due, save_look
from ich_node.log import EventLog
from ich_node.queries.drift import SHOWN_DAYS, StoredLook, measured_groups, newest_look
from ich_node.records import DriftFinding, DriftRules

_LONGEST_S: Final = 600.0

log = EventLog("housekeeping")


def look_for_drift(config: Config, database: Database) -> StoredLook | None:
    """Make the look of today; None where it is made already, or could not be made."""
    if not look_is_due(database):
        return None
    order = {
        "database_url": config.database_url,
        "busy_timeout_s": config.database.busy_timeout_s,
        "rules": dataclasses.asdict(config.drift.rules),
    }
    if (why_not := _run_child(order)) is not None:
        log.error("the look for drift could not be made; it is tried again", why=why_not)
        return None
    return newest_look(database)


def _run_child(order: dict[str, Any]) -> str | None:
    """Run this module by itself; say why it failed, or None.

    No `multiprocessing`: its tracker of resources would stay beside the role for good.
    """
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "ich_node.drift_watch"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            env=alone,
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {_LONGEST_S:.0f} s"
    said = ended.stderr.strip().splitlines()
    return None if ended.returncode == 0 else f"status {ended.returncode}: {said[-1][:200] if said else ''}"


def look_and_keep(database_url: str, busy_timeout_s: float, rules: DriftRules) -> None:
    """Look now, and keep what was found; in a process of its own."""
    database = open_database(database_url, busy_timeout_s)
    try:
        look = look_now(database, rules)
        save_look(database, look.looked_at, look.tests, findings_of(look), look_to_json(look))
    finally:
        database.close()


def look_now(database: Database, rules: DriftRules) -> Look:
    """Compare everything as it is now, and keep nothing."""
    now = time.time()
    groups, left_out = measured_groups(database, rules, now)
    from ich_node.drift.looking import look_at  # late: scipy

    return look_at(groups, rules, now, weeks=SHOWN_DAYS // 7, left_out=left_out)


def findings_of(look: Look) -> list[DriftFinding]:
    """Put what a look found into words."""
    return [
        DriftFinding(
            group.station_name,
            group.convolution_kernel,
            one.name,
            group_name(group.station_name, group.convolution_kernel),
            in_words(group, one),
        )
        for group in look.groups
        for one in group.found
    ]


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    look_and_keep(asked["database_url"], asked["busy_timeout_s"], DriftRules(**asked["rules"]))
