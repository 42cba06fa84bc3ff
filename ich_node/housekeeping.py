"""Repair what the others missed, and delete what is past its days. Every job may run twice or not at all."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from ich_node.audit import open_trail
from ich_node.audit.stored import FOLDER, delete_old_files
from ich_node.config import Config
from ich_node.database import Database, read_installation
from ich_node.drift_watch import look_for_drift
from ich_node.failpoint import reach
from ich_node.forgotten_files import size_of, unlink_forgotten
from ich_node.job_queue import (
    free_leases_of_the_dead,
    known_reports,
    quiet_studies,
    rescue_expired_leases,
)
from ich_node.job_queue.legal_holds import save_holds
from ich_node.job_queue.retention import (
    Deletion,
    forget_expired_images,
    forget_expired_results,
    what_stays,
)
from ich_node.log import EventLog
from ich_node.routing import calls_by_tls
from ich_node.saved_maps import MAPS_SUFFIX, report_beside
from ich_node.stored_files import stored_files
from ich_node.tls import log_state

_STRAY_AGE_S = 3600.0
_NAMES_AT_ONCE = 1000
_SILENCE_S = 600.0
_JOBS_AT_ONCE = 2
_FIRST_S = 120
"""After the start each job runs once, whatever its interval: a node that is restarted every hour keeps house, too."""
_MEBIBYTE = 1024 * 1024

_Job = Callable[[Config, Database], object]

log = EventLog("housekeeping")


@contextmanager
def start_housekeeping(
    config: Config, database: Database, is_our_turn: Callable[[], bool] = lambda: True
) -> Iterator[BackgroundScheduler]:
    """Run the jobs in the background until the block ends. A missed run is made up once, not many times.

    Args:
        is_our_turn: says whether this host keeps the house of all; jobs about the host itself run anyway.
    """
    scheduler = BackgroundScheduler(
        timezone="UTC",
        # few threads: each keeps a database connection and memory of its own for good
        executors={"default": ThreadPoolExecutor(_JOBS_AT_ONCE)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600},
    )
    scheduler.add_listener(_on_trouble, EVENT_JOB_ERROR | EVENT_JOB_MISSED)
    of_each_host: list[tuple[_Job, int]] = [(rescue_leases, 30), (watch_disk, 60), (watch_certificate, 6 * 3600)]
    of_all: list[tuple[_Job, int]] = [
        (watch_silence, 60),
        (delete_expired, 900),
        (watch_retention, 3600),
        (remove_strays, 3600),
        (delete_old_audit, 3600),
        (watch_drift, 3600),
    ]

    def in_turn(job: _Job) -> None:
        if is_our_turn():
            job(config, database)

    def add(job: _Job, seconds: int, run: Callable[..., object], *arguments: object) -> None:
        first = datetime.now(UTC) + timedelta(seconds=min(seconds, _FIRST_S))
        scheduler.add_job(run, "interval", seconds=seconds, args=arguments, id=job.__name__, next_run_time=first)

    for job, seconds in of_each_host:
        add(job, seconds, job, config, database)
    for job, seconds in of_all:
        add(job, seconds, in_turn, job)
    scheduler.start()
    try:
        yield scheduler
    finally:
        scheduler.shutdown(wait=True)


def wake_housekeeping(scheduler: BackgroundScheduler) -> None:
    """Run every job now: the clock was set, and the scheduler would wait by the old one."""
    for job in scheduler.get_jobs():
        job.modify(next_run_time=datetime.now(UTC))


def rescue_leases(_config: Config, database: Database) -> int:
    """Free the leases of processes that vanished."""
    freed = free_leases_of_the_dead(database) + rescue_expired_leases(database)
    if freed:
        log.warning("leases of vanished processes freed", count=freed)
    return freed


def delete_expired(config: Config, database: Database) -> int:
    """Delete images and reports past their days; rows with UIDs and hashes stay. Return how many files went."""
    rules, files = config.retention_rules, stored_files(config)
    count = _unlink_listed(config, database)  # what a kill left
    while gone := forget_expired_images(database, rules):
        reach("images-forgotten")
        count += _delete(config, database, gone)
    while gone := forget_expired_results(database, rules, lambda name: size_of(files, name), files.deleted_at_once):
        reach("results-forgotten")
        count += _delete(config, database, gone)
    if count:
        log.info("expired files deleted", count=count)
        database.let_idle_connections_go()
    return count


def _delete(config: Config, database: Database, gone: list[Deletion]) -> int:
    for one in gone:
        log.info("deleted after its days", **asdict(one))
    return _unlink_listed(config, database)


def _unlink_listed(config: Config, database: Database) -> int:
    trail = open_trail(config, "housekeeping")
    count = unlink_forgotten(stored_files(config), database, trail)
    trail.close()
    return count


def watch_retention(config: Config, database: Database) -> int:
    """Warn of what is not committed in time, and of what is kept past its days: the disk fills up."""
    save_holds(database, config.state_directory)  # a kill may have come between database and file
    found = what_stays(database, config.retention_rules)
    for what in found.values():
        log.warning("a person should look", what=what)
    return len(found)


def remove_strays(config: Config, database: Database) -> int:
    """Delete half-written files, and reports that no row speaks of, with their maps: no conclusion was saved.

    Image files without a row are not strays: the receiver adopts them when it starts.
    """
    before = time.time() - _STRAY_AGE_S
    files = stored_files(config)
    files.claim(_installation_of(config))
    strays: list[Callable[[], None]] = list(files.unfinished(before))
    old = (one.name for one in files.found("results", "") if one.written_at < before)
    while names := list(islice(old, _NAMES_AT_ONCE)):
        reports = {name: name for name in names if name.endswith(".dcm")}
        maps = {name: str(report_beside(Path(name))) for name in names if name.endswith(MAPS_SUFFIX)}
        needed = reports | maps
        known = known_reports(database, set(needed.values()))
        strays += [partial(files.delete, name) for name, report in needed.items() if report not in known]
    for delete in strays:
        reach("stray-before-unlink")
        delete()
    if strays:
        log.warning("stray files deleted", count=len(strays))
    return len(strays)


def _installation_of(config: Config) -> str:
    """Say whose results these are: those of another installation are no strays."""
    installation = read_installation(config.state_directory)
    return "" if installation is None else installation.installation_uid


def watch_disk(config: Config, _database: Database) -> int:
    """Warn before the disk is full; return the MiB that are free."""
    free_mib = shutil.disk_usage(config.state_directory).free // _MEBIBYTE
    if free_mib < config.receiver.reserve_mib:
        log.error("disk filled up to its reserve: senders get 0xA700", free_mib=free_mib)
    elif free_mib < 2 * config.receiver.reserve_mib:
        log.warning("disk nearly filled up to its reserve", free_mib=free_mib)
    return free_mib


def watch_silence(_config: Config, database: Database) -> int:
    """Warn of studies whose series stay open: a worker that is down is not to be noticed by luck."""
    quiet = quiet_studies(database, _SILENCE_S)
    if quiet:
        log.error("studies wait without a result; is `ich-node work` running?", count=len(quiet))
    return len(quiet)


def watch_certificate(config: Config, _database: Database) -> None:
    """Warn before our TLS certificate expires, and say what others refuse it for."""
    if (files := config.tls.files) is not None:
        log_state(files, serves=bool(config.tls.port), calls=calls_by_tls(config))


def delete_old_audit(config: Config, _database: Database) -> int:
    """Delete what is past its days of the audit trail, once the server has it; return how many files went."""
    audit = config.audit
    return delete_old_files(config.state_directory / FOLDER, audit.keep_days, must_be_sent=bool(audit.host))


def watch_drift(config: Config, database: Database) -> int:
    """Look once a day whether series differ from those of the reference; return how many things do."""
    look = look_for_drift(config, database) if config.drift.enabled else None
    if look is None:
        return 0
    for finding in look.found:
        log.warning("drift found", what=finding.text)
    log.info("looked for drift", comparisons=look.tests, found=len(look.found))
    return len(look.found)


def _on_trouble(event: Any) -> None:
    missed = isinstance(event, JobExecutionEvent) and event.code == EVENT_JOB_MISSED
    log.error(
        "housekeeping missed" if missed else "housekeeping failed", getattr(event, "exception", None), job=event.job_id
    )
