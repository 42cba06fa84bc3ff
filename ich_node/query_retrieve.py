"""Query SCU: ask a PACS how many instances of a series it holds (PS3.4 C.4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydicom import Dataset
from pynetdicom.association import Association

from ich_node.association import Patience, associate
from ich_node.errors import DestinationRefuses, DestinationUnavailable
from ich_node.records import Destination

STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
SERIES_KEYS: Final = ("QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "NumberOfSeriesRelatedInstances")
IMAGE_KEYS: Final = ("QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

_SUCCESS: Final = 0x0000
_PENDING: Final = (0xFF00, 0xFF01)
_REFUSED: Final = (0x0122, 0x0124, 0xA900)
"""SOP Class not supported, not authorised, identifier does not match SOP Class (PS3.4 C.4.1.1.4, PS3.7 C.5)."""
_MOST_ANSWERS: Final = 20_000
"""More than a series can have: a PACS that sends them ignores our keys."""


def count_instances(
    destination: Destination, ae_title: str, study_instance_uid: str, series_instance_uid: str, patience: Patience
) -> int | None:
    """Ask how many instances a series has; None where the PACS does not know it.

    Asks at SERIES level; where the PACS leaves the number out, which is an optional key, its answers at IMAGE level are
    counted.

    Raises:
        DestinationUnavailable: no connection, an abort, or no complete answer in time.
        DestinationRefuses: it rejects the association, or answers no such query.
    """
    uids = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series_instance_uid}
    with associate(destination, ae_title, [STUDY_ROOT_FIND], patience) as association:
        asked = _identifier(SERIES_KEYS, QueryRetrieveLevel="SERIES", **uids)
        known = [one for one in _find(association, asked) if _text(one, "SeriesInstanceUID") == series_instance_uid]
        if not known:
            return None
        return max(map(_number, known)) or _count_images(association, uids) or None


def _count_images(association: Association, uids: dict[str, str]) -> int:
    asked = _identifier(IMAGE_KEYS, QueryRetrieveLevel="IMAGE", **uids)
    series_instance_uid = uids["SeriesInstanceUID"]
    of_the_series = (
        one for one in _find(association, asked) if _text(one, "SeriesInstanceUID") in ("", series_instance_uid)
    )
    return len({_text(one, "SOPInstanceUID") for one in of_the_series} - {""})


def _identifier(keys: tuple[str, ...], **values: str) -> Dataset:
    identifier = Dataset()
    for keyword in keys:
        setattr(identifier, keyword, values.get(keyword, ""))
    return identifier


def _find(association: Association, identifier: Dataset) -> Iterator[Dataset]:
    """Give the matches of one C-FIND. Ends by itself only where all of them came."""
    try:
        for number, (response, match) in enumerate(association.send_c_find(identifier, STUDY_ROOT_FIND)):
            status = response.get("Status")
            if status == _SUCCESS:
                return
            _check_status(status)
            if match is None or number >= _MOST_ANSWERS:
                association.abort()
                raise DestinationUnavailable("the answers to the C-FIND cannot be read, or do not end")
            yield match
    except (RuntimeError, OSError) as error:
        raise DestinationUnavailable("the association ended before the C-FIND was sent") from error
    raise DestinationUnavailable("the C-FIND was not answered to its end")


def _check_status(status: int | None) -> None:
    """Let pending answers pass (PS3.4 C.4.1.1.4)."""
    if status is None:
        raise DestinationUnavailable("the PACS aborted or did not answer the C-FIND in time")
    if status in _REFUSED:
        raise DestinationRefuses(f"the C-FIND was refused with status 0x{status:04X}")
    if status not in _PENDING:
        raise DestinationUnavailable(f"the C-FIND failed with status 0x{status:04X}")


def _number(match: Dataset) -> int:
    """Read NumberOfSeriesRelatedInstances; 0 where it is absent, empty or no number."""
    try:
        return max(0, int(match.get("NumberOfSeriesRelatedInstances") or 0))
    except (ValueError, TypeError):
        return 0


def _text(match: Dataset, keyword: str) -> str:
    return str(match.get(keyword) or "").strip(" \0")
