"""Series come from a PACS one by one, each into a folder that is deleted when the series is scored."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ich_node.archive_scoring.pace import Pace
from ich_node.association import Patience
from ich_node.decode import DecoderPool
from ich_node.errors import (
    BulkScoringStopped,
    ClassNotTaken,
    DestinationRefuses,
    DestinationUnavailable,
    MoveDestinationUnknown,
)
from ich_node.query_retrieve import MoveOutcome, move_series
from ich_node.receive.series_receiver import ArrivingSeries, SeriesReceiver
from ich_node.records import ArchivedFile, ArchivedSeries, BadFile, Destination, ListedSeries
from ich_node.score_table import ScoreRow

_MOST_TRIES: Final = 3
"""Of a series whose move breaks off, or that the PACS has no resources for."""
_SUCCESS: Final = 0x0000
_SOME_FAILED: Final = 0xB000
_OUT_OF_RESOURCES: Final = range(0xA700, 0xA800)


@dataclass(frozen=True, slots=True)
class PacsAccess:
    """Whom we ask, and as whom."""

    pacs: Destination
    ae_title: str
    """Ours, under which we ask and receive."""
    port: int
    """Ours."""
    queries: Patience
    moves: Patience

    def name_of(self, *what: str) -> str:
        """Name something of the PACS, as a list of bad files shows it."""
        return "/".join((f"pacs://{self.pacs.ae_title}", *what))


class Retrieval:
    """Has series sent, one at a time, and deletes them when they are scored.

    Args:
        folder: for what comes; on Ray every machine must find it under the same path.
    """

    def __init__(
        self, access: PacsAccess, receiver: SeriesReceiver, pace: Pace, folder: Path, decoder: DecoderPool
    ) -> None:
        self._access = access
        self._receiver = receiver
        self._pace = pace
        self._folder = folder
        self._decoder = decoder
        self._folders: dict[tuple[str, str], Path] = {}
        self._anything_came = False

    def retrieve(self, series: Iterable[tuple[ListedSeries, str]]) -> Iterator[ArchivedSeries]:
        """Give series with their fingerprints as they have come; also those of which nothing did.

        Raises:
            BulkScoringStopped: the PACS has had trouble for too long, or does not know us.
            StorageUnavailable: our disk takes no more.
            StorageFailed: it failed.
        """
        for listed, fingerprint in series:
            yield self._retrieve(listed, fingerprint)

    def until_scored(self, rows: Iterable[ScoreRow]) -> Iterator[ScoreRow]:
        """Pass rows on, and delete the images that each is of."""
        for row in rows:
            shutil.rmtree(self._folders.pop((row["study_instance_uid"], row["series_instance_uid"])))
            yield row

    def _retrieve(self, listed: ListedSeries, fingerprint: str) -> ArchivedSeries:
        uids = (listed.study_instance_uid, listed.series_instance_uid)
        folder = self._folder / uuid.uuid4().hex
        folder.mkdir()
        self._folders[uids] = folder
        with self._receiver.expecting(*uids, folder) as came:
            outcome = self._move(listed, came)
        self._judge(outcome, came)
        files = tuple(self._file(uids, sop_instance_uid, path) for sop_instance_uid, path in sorted(came.files.items()))
        lost = [BadFile(self._access.name_of(*uids, uid), why) for uid, why in sorted(came.damaged.items())]
        not_received = len(lost)
        if absent := _absent(listed, outcome, len(files) + len(lost)):
            lost.insert(0, BadFile(self._access.name_of(*uids), self._in_words(absent, listed, outcome, came)))
        about = self._decoder.submit_header(files[0].path).result() if files else None
        station, sex = ("", "") if about is None else (about.station_name, about.sex)
        return ArchivedSeries(*uids, fingerprint, files, station, sex, not_received + absent, tuple(lost))

    def _judge(self, outcome: MoveOutcome, came: ArrivingSeries) -> None:
        """Rest where the PACS could not send something, but for what was refused here."""
        self._anything_came |= bool(came.files)
        if outcome.status == _SOME_FAILED and outcome.failed > came.refused.total():
            self._pace.rest(_status_in_words(outcome))
        elif outcome.status in (_SUCCESS, _SOME_FAILED):
            self._pace.well()

    def _file(self, uids: tuple[str, str], sop_instance_uid: str, path: Path) -> ArchivedFile:
        status = path.stat()
        name = self._access.name_of(*uids, sop_instance_uid)
        return ArchivedFile(0, path, None, name, status.st_size, status.st_mtime_ns)

    def _in_words(self, absent: int, listed: ListedSeries, outcome: MoveOutcome, came: ArrivingSeries) -> str:
        of = f" of {listed.images}" if listed.images else ", at least,"
        refused = "".join(f"; {number} refused here: {why}" for why, number in came.refused.items())
        unknown = "" if self._anything_came else f"; does it know {self._access.ae_title}, at port {self._access.port}?"
        return f"{absent}{of} images did not come ({_status_in_words(outcome)}{refused}{unknown})"

    def _move(self, listed: ListedSeries, came: ArrivingSeries) -> MoveOutcome:
        """Have a series sent; again where the move breaks off, or the PACS has no resources now."""
        outcome = MoveOutcome(None)
        for number in range(_MOST_TRIES):
            if number:
                self._pace.rest(_status_in_words(outcome))
            outcome = self._ask_for(listed)
            if came.trouble is not None:
                raise came.trouble
            if not _is_worth_another_try(outcome):
                break
        return outcome

    def _ask_for(self, listed: ListedSeries) -> MoveOutcome:
        """Ask once the PACS is there."""
        access = self._access
        uids = (listed.study_instance_uid, listed.series_instance_uid)
        while True:
            self._pace.wait_for_move()
            try:
                outcome = move_series(access.pacs, access.ae_title, access.ae_title, *uids, access.moves)
            except (MoveDestinationUnknown, ClassNotTaken) as error:
                what = f"{access.pacs.ae_title} sends us nothing: {error}. {_what_to_enter(access)}"
                raise BulkScoringStopped(what) from error
            except (DestinationUnavailable, DestinationRefuses) as error:
                self._pace.rest(str(error))
                continue
            self._pace.met()
            return outcome


def _what_to_enter(access: PacsAccess) -> str:
    by = "by TLS" if access.pacs.tls is not None else "without TLS"
    return (
        f"Enter in it the AE title {access.ae_title} with the address of this machine and port {access.port}, {by}, "
        "and let it query and retrieve; then run this again (docs/scaling.md)"
    )


def _is_worth_another_try(outcome: MoveOutcome) -> bool:
    return outcome.status is None or outcome.status in _OUT_OF_RESOURCES


def _absent(listed: ListedSeries, outcome: MoveOutcome, came: int) -> int:
    """Count the images that the PACS holds and that did not come; where it does not say how many, at least one."""
    if outcome.status == _SUCCESS and outcome.failed == 0 and came >= max(1, listed.images):
        return 0
    if outcome.status == _SOME_FAILED and outcome.failed == 0 and came >= listed.images > 0:
        return 0
    return max(listed.images - came, outcome.failed, 1)


def _status_in_words(outcome: MoveOutcome) -> str:
    if outcome.status is None:
        return "the PACS broke the C-MOVE off, or did not answer in time"
    failed = f", {outcome.failed} failed" if outcome.failed else ""
    return f"the C-MOVE ended with status 0x{outcome.status:04X}{failed}"
