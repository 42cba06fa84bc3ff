"""``ich-node rebuild``: a new database from what lies on disk, where the old one is gone or damaged.

Saved results are read first: revisions go on from them under the same UIDs, and a series is not analysed again where
the newest report on it rests on exactly the images that are here. The new database takes its place once it is whole.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Final

import pydicom
from pydicom.errors import InvalidDicomError

from ich_node.config import Config
from ich_node.database import (
    Database,
    Installation,
    check_integrity,
    database_file,
    note_installation,
    open_database,
    prepare_database,
    read_installation,
)
from ich_node.decode.identity import rejection_note
from ich_node.durable import sync_directory
from ich_node.errors import IchNodeError, StartError
from ich_node.job_queue import SavedObject, reject_instances
from ich_node.job_queue.legal_holds import HOLDS, restore_holds
from ich_node.job_queue.rebuilding import (
    FoundImage,
    FoundReport,
    FoundStudy,
    count_series,
    enter_found_images,
    enter_found_study,
    gather_into_one_file,
    is_blank,
    queue_again,
    rejection_candidates,
)
from ich_node.job_queue.retention import REBUILT
from ich_node.receive.entry import READ_SOP_CLASSES, describe_file
from ich_node.receive.statuses import RefusedDataSet
from ich_node.records import REPORT_KIND, Destination, StudySent
from ich_node.records.self_tests import SELF_TEST_AE_TITLE, is_self_test_patient
from ich_node.report.saved_results import SavedResult, read_result
from ich_node.role_lock import holding_the_folder
from ich_node.routing import destinations_for
from ich_node.saved_maps import maps_beside
from ich_node.state_folder import make_state_folder
from ich_node.stored_files import BucketFiles, FoundFile, StoredFiles, stored_files

_IMAGES_A_TRANSACTION: Final = 500
_ALERT_AGAIN_S: Final = 86400.0
_NOT_KNOWN: Final = f"{REBUILT}who sent the study is not known any more; ich-node resend sends it"
LOST: Final = (
    "which destinations had which results",
    "alerts, and who acknowledged them (of results of the last 24 hours people are told again)",
    "what a person released, rejected or requeued, and which series were quarantined (they are judged again)",
    "UIDs and hashes of images that were deleted after their days, and the record of that",
    "what destinations had committed to keep (they are asked again)",
    "addresses of senders",
    "which models people chose (the configured one answers), and what a silent one said",
    "how self-tests went",
    "measures of series, their references and looks for drift (series that are analysed again are measured again)",
    "accounts, sessions, tokens of programs, and what readers said of findings",
)
"""What no file tells of."""


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild found and made."""

    put_aside: Path | None = None
    images: int = 0
    results: int = 0
    studies: int = 0
    series: dict[str, int] = field(default_factory=dict)
    deliveries: int = 0
    holds: int = 0
    """Legal holds, lifted ones too."""
    seconds: float = 0.0
    """To read and enter the images."""
    same_installation: bool = True
    """False: who this installation was is not known, and new results carry UIDs of another."""
    unreadable: list[str] = field(default_factory=list)
    """Files that are kept and not entered, relative to the state folder."""
    of_self_tests: int = 0
    """Files that a self-test left which did not get to its end: they are deleted."""


def rebuild(config: Config, *, hold: bool = False) -> Rebuilt:
    """Make the database anew from spool and results, with the node stopped.

    Args:
        hold: nothing is sent until ``ich-node resend``.

    Raises:
        AlreadyRunning: a role of the node runs.
        StartError: the database is sound, or the new one cannot be written.
    """
    state, place = config.state_directory, database_file(config.database_url)
    if place is None:
        raise StartError("the database is on a PostgreSQL server: restore a backup of it, see docs/operation.md")
    with holding_the_folder(state):
        _refuse_where_it_is_sound(config, place)
        fresh = place.with_name(f"{place.name}.new")
        _remove(fresh)
        files = stored_files(config)
        _recover_installation(files)
        done = Rebuilt(same_installation=read_installation(state) is not None)
        database = open_database(f"sqlite:///{fresh}", config.database.busy_timeout_s)
        try:
            installation_uid = prepare_database(database, state, recover=True)
            files.claim(installation_uid)
            _fill(config, database, done, installation_uid, hold=hold)
            gather_into_one_file(database)
        finally:
            database.close()
        done.put_aside = _put_aside(place)
        fresh.rename(place)
        sync_directory(place.parent)
    return done


def _refuse_where_it_is_sound(config: Config, place: Path) -> None:
    if not place.exists():
        return
    database = open_database(config.database_url, config.database.busy_timeout_s)
    try:
        check_integrity(database)
        blank = is_blank(database)
    except IchNodeError:  # damaged, or not readable as a database at all
        return
    finally:
        database.close()
    if not blank:
        raise StartError(
            f"the database {place} is sound: there is nothing to rebuild. To do it all the same, move it away"
        )


def _fill(config: Config, database: Database, done: Rebuilt, installation_uid: str, *, hold: bool) -> None:
    state, files = config.state_directory, stored_files(config)
    results = _read_results(files, done)
    done.same_installation &= all(one.is_of(installation_uid) for one in results)
    _enter_images(config, database, done)
    alert_since = time.time() - _ALERT_AGAIN_S
    for study in _studies(files, results):
        enter_found_study(database, study, alert_since=alert_since)
        done.results += len(study.objects)
    _take_back(config, database)
    done.deliveries = queue_again(database, lambda sent: _destinations(config, sent), hold=hold)
    done.holds = _restore_holds(database, state)
    done.studies, done.series = count_series(database)


def _restore_holds(database: Database, state: Path) -> int:
    try:
        return restore_holds(database, state)
    except (OSError, ValueError, TypeError) as error:
        path = state / HOLDS
        raise StartError(f"{path} cannot be read: legal holds would be lost; mend it, or move it away") from error


def _recover_installation(files: StoredFiles) -> None:
    """Where the state folder was lost, a bucket says whose it is; images and results go on under the same UIDs."""
    state = files.state_directory
    marked = files.installation() if isinstance(files, BucketFiles) and read_installation(state) is None else None
    if marked is not None:
        make_state_folder(state)
        note_installation(state, Installation(*marked))


def _read_results(files: StoredFiles, done: Rebuilt) -> list[SavedResult]:
    """Read every saved result; one that is damaged gets another ending, or the housekeeping would delete it."""
    results = []
    names = sorted(one.name for one in files.found("results", ".dcm"))
    for name, path in zip(names, files.paths(names), strict=True):
        result = read_result(path)
        if result is None:
            done.unreadable.append(files.put_aside(name))
        elif result.of_self_test:
            files.delete(str(maps_beside(Path(name))))
            files.delete(name)
            done.of_self_tests += 1
        else:
            results.append(result)
    return results


def _enter_images(config: Config, database: Database, done: Rebuilt) -> None:
    """Enter the images in their order of arrival: of several versions of one, the newest speaks."""
    began = time.monotonic()
    images = sorted(stored_files(config).found("spool", ".dcm"), key=lambda one: (one.written_at, one.name))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(images), _IMAGES_A_TRANSACTION):
            chunk = images[start : start + _IMAGES_A_TRANSACTION]
            read = list(threads.map(lambda one: _read_image(config, one), chunk))
            found = [one for one in read if isinstance(one, FoundImage)]
            enter_found_images(database, found, max_wait_s=config.series.max_wait_s)
            done.images += len(found)
            done.of_self_tests += read.count(_NotEntered.OF_SELF_TEST)
            done.unreadable += [image.name for image, one in zip(chunk, read, strict=True) if one is _NotEntered.KEPT]
    done.seconds = time.monotonic() - began


class _NotEntered(Enum):
    """Why a file of the spool is none of a patient's images."""

    KEPT = "it is damaged, or came as a self-test and is none"
    OF_SELF_TEST = "a self-test left it, and it is deleted"


def _read_image(config: Config, image: FoundFile) -> FoundImage | _NotEntered:
    """Read one file of the spool; delete it where a self-test left it that did not get to its end."""
    try:
        received = describe_file(config, image.name)
        if received.calling_ae_title == SELF_TEST_AE_TITLE:
            return _drop_of_self_test(stored_files(config), image.name)
    except (RefusedDataSet, OSError):
        return _NotEntered.KEPT
    return FoundImage(received, image.written_at, received.sop_class_uid in READ_SOP_CLASSES)


def _drop_of_self_test(files: StoredFiles, name: str) -> _NotEntered:
    """Delete an image of the reserved patient; the receiver itself wrote into it that it came from this node."""
    try:
        keys = ["PatientID", "IssuerOfPatientID"]
        header = pydicom.dcmread(files.path(name), stop_before_pixels=True, specific_tags=keys)
        of_test = is_self_test_patient(str(header.get("PatientID")), str(header.get("IssuerOfPatientID")))
    except (ValueError, KeyError, AttributeError, InvalidDicomError):
        of_test = False
    if not of_test:
        return _NotEntered.KEPT
    files.delete(name)
    return _NotEntered.OF_SELF_TEST


def _studies(files: StoredFiles, results: Sequence[SavedResult]) -> Iterator[FoundStudy]:
    """Put results together by study, those of studies with a report."""
    of_study: defaultdict[str, list[SavedResult]] = defaultdict(list)
    for one in results:
        of_study[one.study_instance_uid].append(one)
    for uid, objects in of_study.items():
        objects.sort(key=lambda one: (one.revision, one.kind != REPORT_KIND, one.kind, one.preference))
        reports = {one.revision: _report(one) for one in reversed(objects) if one.kind == REPORT_KIND}
        if reports:
            saved = [(one.revision, one.created_at, _saved(files, one)) for one in objects]
            yield FoundStudy(uid, [reports[number] for number in sorted(reports, reverse=True)], saved)


def _report(one: SavedResult) -> FoundReport:
    return FoundReport(one.revision, one.created_at, one.triage, one.reason, one.withdrawn, one.images)


def _saved(files: StoredFiles, one: SavedResult) -> SavedObject:
    name = files.name_of(one.path)
    return SavedObject(
        kind=one.kind,
        encoding=one.encoding,
        preference=one.preference,
        sop_class_uid=one.sop_class_uid,
        sop_instance_uid=one.sop_instance_uid,
        series_instance_uid=one.series_instance_uid,
        sha256=hashlib.sha256(files.path(name).read_bytes()).hexdigest(),
        path=name,
    )


def _take_back(config: Config, database: Database) -> None:
    """Heed the rejection notes among the images before anything is analysed."""
    for path in rejection_candidates(database):
        try:
            note = rejection_note(pydicom.dcmread(stored_files(config).path(path), stop_before_pixels=True))
        except (ValueError, OSError, KeyError, AttributeError):
            continue  # the worker reads it again, and says so
        if note is not None:
            reject_instances(database, note)


def _destinations(config: Config, sent: StudySent) -> list[Destination]:
    """Say where results go; held where rules for single senders might say otherwise and the sender is not known."""
    results = destinations_for(config, sent)
    narrowed = any(peer.destinations is not None or peer.mode is not None for peer in config.peer)
    if sent.remote_address or not narrowed:
        return results
    return [replace(one, held=one.held or _NOT_KNOWN) for one in results]


def _put_aside(place: Path) -> Path | None:
    """Keep the old database, with its log, under another name."""
    if not place.exists():
        _remove(place)  # a log without its database would be taken for that of the new one
        return None
    aside = place.with_name(f"{place.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    for suffix in ("-wal", "-shm"):
        if (log := place.with_name(place.name + suffix)).exists():
            log.rename(aside.with_name(aside.name + suffix))
    place.rename(aside)
    return aside


def _remove(place: Path) -> None:
    """Remove what an interrupted rebuild left."""
    for suffix in ("", "-wal", "-shm"):
        place.with_name(place.name + suffix).unlink(missing_ok=True)
