"""The line from a PACS to a table: list its days ▶ what is not scored yet ▶ receive, score ▶ parts ▶ one table."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

from ich_node.archive_scoring.pace import Pace, Politeness
from ich_node.archive_scoring.progress import Progress
from ich_node.archive_scoring.retrieving import PacsAccess, Retrieval
from ich_node.archive_scoring.running import ArchiveSummary, ArchiveTask, Keeping, ScoreAll, make_ready
from ich_node.audit import AuditTrail, Peer
from ich_node.config import Config
from ich_node.database.archive_index import ArchiveIndex
from ich_node.database.pacs_list import PacsList
from ich_node.decode import DecoderPool
from ich_node.errors import BulkScoringStopped, ClassNotTaken, DestinationRefuses, DestinationUnavailable
from ich_node.query_retrieve import QUERY_SYNTAX, STUDY_ROOT_FIND, DayOfPacs, WantedSeries, list_day
from ich_node.receive.series_receiver import SeriesReceiver
from ich_node.records import BadFile, ListedSeries

_LIST: Final = "pacs.sqlite"
_RECEIVED: Final = "received"
_LONG_WAIT_S: Final = 60.0
"""Before a longer one, what was scored is kept: a run may be killed while it waits."""


@dataclass(frozen=True, slots=True)
class PacsRequest:
    """What is wanted of which PACS."""

    access: PacsAccess
    first: date
    last: date
    """Inclusive."""
    wanted: WantedSeries = field(default_factory=WantedSeries)
    politeness: Politeness = field(default_factory=Politeness)

    @property
    def days(self) -> Iterator[date]:
        for number in range((self.last - self.first).days + 1):
            yield self.first + timedelta(days=number)

    @property
    def digest(self) -> str:
        """Of what decides which series there are."""
        pacs = self.access.pacs
        said = (pacs.ae_title, pacs.host, pacs.port, self.first, self.last, self.wanted)
        return hashlib.sha256(repr(said).encode()).hexdigest()


def score_pacs(
    task: ArchiveTask, request: PacsRequest, setup_digest: str, decoder: DecoderPool, score_all: ScoreAll,
    progress: Progress, config: Config, trail: AuditTrail,
) -> ArchiveSummary:  # fmt: skip
    """Score every CT series that a PACS holds of some days and that is not scored yet, and write the table of all.

    Args:
        setup_digest: of model and settings; what was scored under another one is scored anew.
        config: how we listen, and to whom.
        trail: is told of every query and transfer.

    Raises:
        BulkScoringStopped: the PACS does not let us ask, or has trouble for too long; series after series fails.
        StartError: our port is taken.
        IchNodeError: model, processor or disk failed. What was scored until then is kept.
    """
    make_ready(task)
    received = task.work / _RECEIVED
    shutil.rmtree(received, ignore_errors=True)  # of a run that was killed
    received.mkdir()
    access = request.access
    receiver = SeriesReceiver(config, access.ae_title, access.port, access.pacs, received, trail)
    receiver.start()
    try:
        with PacsList(task.work / _LIST) as listed, ArchiveIndex(task.index) as index:
            return _Line(task, request, decoder, progress, trail).run(listed, index, receiver, setup_digest, score_all)
    finally:
        receiver.stop()
        shutil.rmtree(received, ignore_errors=True)


class _Line:
    def __init__(
        self, task: ArchiveTask, request: PacsRequest, decoder: DecoderPool, progress: Progress, trail: AuditTrail
    ) -> None:
        self._task = task
        self._request = request
        self._decoder = decoder
        self._progress = progress
        self._trail = trail
        self._pace = Pace(request.politeness, self._waiting)
        self._keeping: Keeping | None = None

    def run(
        self, listed: PacsList, index: ArchiveIndex, receiver: SeriesReceiver, setup_digest: str, score_all: ScoreAll
    ) -> ArchiveSummary:
        self._list(listed)
        index.set_fingerprints(
            (one.study_instance_uid, one.series_instance_uid, _fingerprint(setup_digest, one))
            for one in listed.every_series()
        )
        self._keeping = keeping = Keeping(self._task, index, self._progress)
        retrieval = Retrieval(self._request.access, receiver, self._pace, self._task.work / _RECEIVED, self._decoder)
        wanted = ((listed.series(study, series), mark) for study, series, mark in index.unscored())
        keeping.take_in(retrieval.until_scored(score_all(retrieval.retrieve(wanted))))
        summary = keeping.join(self._doubts(listed))
        listed.end()
        return summary

    def _list(self, listed: PacsList) -> None:
        """Ask day by day; days that a run which was stopped has asked about are not asked about again."""
        known = listed.begin(self._request.digest)
        days = list(self._request.days)
        for done, day in enumerate(days, start=1):
            if f"{day}" not in known:
                found = self._ask(day)
                listed.add_day(f"{day}", found.series, found.doubts)
            self._progress.day_listed(done, len(days), listed.count())

    def _ask(self, day: date) -> DayOfPacs:
        access = self._request.access
        while True:
            self._pace.wait_for_query()
            try:
                found = list_day(access.pacs, access.ae_title, day, self._request.wanted, access.queries, self._asked)
            except ClassNotTaken as error:
                what = f"{access.pacs.ae_title} does not take queries (C-FIND, Study Root)"
                raise BulkScoringStopped(what) from error
            except (DestinationUnavailable, DestinationRefuses) as error:
                self._pace.rest(f"{error}; {access.pacs.ae_title} at {access.pacs.host}:{access.pacs.port}")
                continue
            self._pace.well()
            return found

    def _asked(self, identifier: bytes) -> None:
        pacs = self._request.access.pacs
        self._trail.queried(Peer(pacs.ae_title, pacs.host), STUDY_ROOT_FIND, identifier, QUERY_SYNTAX)

    def _waiting(self, why: str, seconds: float) -> None:
        if self._keeping is not None and seconds >= _LONG_WAIT_S:
            self._keeping.save()
        self._progress.waits(why, seconds)

    def _doubts(self, listed: PacsList) -> Iterable[BadFile]:
        for day, why in listed.doubts():
            yield BadFile(self._request.access.name_of(day), why)


def _fingerprint(setup_digest: str, series: ListedSeries) -> str:
    """Digest setup and series: with another number of images it is scored again."""
    return hashlib.sha256(repr((setup_digest, "pacs", series)).encode()).hexdigest()
