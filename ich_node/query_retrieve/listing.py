"""The CT of one day that a PACS holds: its studies, and their series.

Many PACS give no more than some number of answers, and not all of them say so. An answer that is not short is therefore
asked for again in halves of its time, until each is short. Series are asked for study by study.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from typing import Final

from pydicom import Dataset
from pynetdicom.association import Association

from ich_node.association import Patience, associate
from ich_node.errors import AnswerCut
from ich_node.query_retrieve.asking import (
    STUDY_ROOT_FIND,
    Asked,
    find,
    identifier,
    number_of_instances,
    text_of,
    values_of,
)
from ich_node.query_retrieve.counting import count_images
from ich_node.records import Destination, ListedSeries

LISTED_STUDY_KEYS: Final = (
    "QueryRetrieveLevel", "StudyDate", "StudyTime", "ModalitiesInStudy", "StudyDescription", "StudyInstanceUID",
)  # fmt: skip
LISTED_SERIES_KEYS: Final = (
    "QueryRetrieveLevel", "Modality", "BodyPartExamined", "StudyInstanceUID", "SeriesInstanceUID",
    "NumberOfSeriesRelatedInstances",
)  # fmt: skip

_SHORT: Final = 20
"""Studies: fewer than the least number that a PACS cuts its answers at."""
_LONGEST_REST_S: Final = 5.0
_LAST_SECOND: Final = 24 * 3600 - 1
_UID: Final = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class WantedSeries:
    """Which CT is wanted; patterns with ``*`` and ``?`` as DICOM has them (PS3.4 C.2.2.2.4), empty: any."""

    study_description: str = ""
    body_part_examined: str = ""


@dataclass(frozen=True, slots=True)
class DayOfPacs:
    """What a PACS says that it holds of a day."""

    series: tuple[ListedSeries, ...]
    doubts: tuple[str, ...]
    """Why there may be more; without patient data."""


def list_day(
    destination: Destination, ae_title: str, day: date, wanted: WantedSeries, patience: Patience,
    asked: Asked = lambda _identifier: None, rest: Callable[[float], None] = time.sleep,
) -> DayOfPacs:  # fmt: skip
    """Ask for the CT series of the studies of a day; after each question rest as long as its answer took.

    Raises:
        DestinationUnavailable: no connection, an abort, or no complete answer in time.
        DestinationRefuses: it rejects the association, or answers no such query.
    """
    with associate(destination, ae_title, [STUDY_ROOT_FIND], patience) as association:
        listing = _Listing(association, f"{day:%Y%m%d}", wanted, asked, rest)
        studies = listing.studies()
        series = [one for study in sorted(studies) for one in listing.series_of(study)]
    return DayOfPacs(tuple(series), tuple(listing.doubts))


@dataclass(frozen=True, slots=True)
class _Studies:
    """What was answered about some time: the UIDs of all studies that it names, and of those that are wanted."""

    named: frozenset[str]
    wanted: frozenset[str]
    answers: int
    cut: bool
    """The PACS says that there are more."""

    @property
    def in_doubt(self) -> bool:
        return self.cut or self.answers >= _SHORT


@dataclass(slots=True)
class _Listing:
    association: Association
    day: str
    wanted: WantedSeries
    asked: Asked
    rest: Callable[[float], None]
    doubts: list[str] = field(default_factory=list)
    _timed: set[str] = field(default_factory=set)
    """Studies that were named where a time was asked for."""

    def studies(self) -> frozenset[str]:
        """Give the UIDs of the studies of the day that have CT."""
        said = self._studies_between()
        wanted = self._halved(0, _LAST_SECOND, said)
        if said.in_doubt and not self.doubts and said.named - self._timed:
            self.doubts.append("the PACS has studies without a StudyTime, and cuts its answers; some may be missing")
        return wanted

    def series_of(self, study: str) -> Iterator[ListedSeries]:
        """Give the CT series of a study."""
        query = identifier(
            LISTED_SERIES_KEYS, QueryRetrieveLevel="SERIES", StudyInstanceUID=study, Modality="CT",
            BodyPartExamined=self.wanted.body_part_examined,
        )  # fmt: skip
        matches, cut = self._ask(query)
        if cut:
            self.doubts.append(f"the PACS does not give all series of the study {study}")
        for one in matches:
            if self._is_wanted_series(one, study):
                series = text_of(one, "SeriesInstanceUID")
                yield ListedSeries(study, series, number_of_instances(one) or self._images(study, series))

    def _halved(self, begin: int, end: int, said: _Studies) -> frozenset[str]:
        """Ask again in halves where an answer is not short.

        Args:
            begin, end: seconds since midnight, both inclusive.
            said: the answer for all of this time.
        """
        if not said.in_doubt:
            return said.wanted
        middle = (begin + end) // 2
        if begin == end:
            self.doubts.append("the PACS cuts its answers, and has many studies of one second; some may be missing")
            return said.wanted
        first, second = self._studies_between(begin, middle), self._studies_between(middle + 1, end)
        if first.named & second.named:
            why = "cut its answer" if said.cut else f"gave {said.answers} studies, which may be cut"
            self.doubts.append(f"the PACS {why}, and does not match StudyTime; some may be missing")
            return said.wanted | first.wanted | second.wanted
        return said.wanted | self._halved(begin, middle, first) | self._halved(middle + 1, end, second)

    def _studies_between(self, begin: int | None = None, end: int = _LAST_SECOND) -> _Studies:
        between = "" if begin is None else f"{_time(begin)}-{_time(end)}.999999"
        query = identifier(
            LISTED_STUDY_KEYS, QueryRetrieveLevel="STUDY", StudyDate=self.day, StudyTime=between,
            ModalitiesInStudy="CT", StudyDescription=self.wanted.study_description,
        )  # fmt: skip
        matches, cut = self._ask(query)
        wanted = frozenset(text_of(one, "StudyInstanceUID") for one in matches if self._is_wanted(one))
        named = frozenset(text_of(one, "StudyInstanceUID") for one in matches) - {""}
        if between:
            self._timed |= named
        return _Studies(named, wanted, len(matches), cut)

    def _ask(self, query: Dataset) -> tuple[list[Dataset], bool]:
        """Give the answers, and whether the PACS says that there are more."""
        began, matches, cut = time.monotonic(), list[Dataset](), False
        try:
            for one in find(self.association, query, self.asked):
                matches.append(one)
        except AnswerCut:
            cut = True
        self.rest(min(time.monotonic() - began, _LONGEST_REST_S))
        return matches, cut

    def _is_wanted(self, match: Dataset) -> bool:
        """Look over a study: a PACS may pass over keys that it does not match."""
        modalities, day = values_of(match, "ModalitiesInStudy"), text_of(match, "StudyDate").replace(".", "")
        if (modalities and "CT" not in modalities) or (day and day != self.day):
            return False
        return _fits(match, "StudyDescription", self.wanted.study_description) and self._has_uid(match, "Study")

    def _is_wanted_series(self, match: Dataset, study: str) -> bool:
        of_study = text_of(match, "StudyInstanceUID") in ("", study)
        if not of_study or text_of(match, "Modality") not in ("", "CT"):
            return False
        return _fits(match, "BodyPartExamined", self.wanted.body_part_examined) and self._has_uid(match, "Series")

    def _has_uid(self, match: Dataset, level: str) -> bool:
        if _UID.fullmatch(text_of(match, f"{level}InstanceUID")):
            return True
        self.doubts.append(f"an answer of the PACS has no valid {level}InstanceUID")
        return False

    def _images(self, study: str, series: str) -> int:
        """Count the images of a series where the PACS leaves their number out; 0 where it does not give them all."""
        try:
            return count_images(self.association, {"StudyInstanceUID": study, "SeriesInstanceUID": series}, self.asked)
        except AnswerCut:
            return 0


def _time(second: int) -> str:
    return f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}"


def _fits(match: Dataset, keyword: str, pattern: str) -> bool:
    """Compare where the PACS says the value; where it does not, it matched it, or cannot."""
    value = text_of(match, keyword)
    return not pattern or not value or fnmatchcase(value.upper(), pattern.upper().replace("[", "[[]"))
