"""What all queries share: one C-FIND, and how its answers are read (PS3.4 C.4.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.dsutils import encode

from ich_node.errors import AnswerCut, DestinationRefuses, DestinationUnavailable

STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
QUERY_SYNTAX: Final = str(ExplicitVRLittleEndian)
"""In which ``Asked`` is told of a query."""

Asked = Callable[[bytes], None]
"""Is told the identifier of each query before it is sent, encoded in ``QUERY_SYNTAX``."""

_SUCCESS: Final = 0x0000
_PENDING: Final = (0xFF00, 0xFF01)
_REFUSED: Final = (0x0122, 0x0124, 0xA900)
"""SOP Class not supported, not authorised, identifier does not match SOP Class (PS3.4 C.4.1.1.4, PS3.7 C.5)."""
_CUT: Final = (0xA700, 0xFE00)
"""Out of resources, cancelled: behind answers, the way in which some PACS say that there are more."""
_MOST_ANSWERS: Final = 20_000
"""More than a series can have: a PACS that sends them ignores our keys."""


def identifier(keys: tuple[str, ...], **values: str) -> Dataset:
    """Make the identifier of a query: the keys in their order, empty where no value is given."""
    made = Dataset()
    for keyword in keys:
        setattr(made, keyword, values.get(keyword, ""))
    if not all(value.isascii() for value in values.values()):
        made.SpecificCharacterSet = "ISO_IR 192"
    return made


def find(association: Association, query: Dataset, asked: Asked) -> Iterator[Dataset]:
    """Give the matches of one C-FIND. Ends by itself only where all of them came.

    Raises:
        AnswerCut: the PACS says behind some matches that it does not give the others.
        DestinationUnavailable: an abort, or no complete answer in time.
        DestinationRefuses: it answers no such query.
    """
    asked(encode(query, is_implicit_vr=False, is_little_endian=True) or b"")
    try:
        for number, (response, match) in enumerate(association.send_c_find(query, STUDY_ROOT_FIND)):
            status = response.get("Status")
            if status == _SUCCESS:
                return
            _check_status(status, answers=number)
            if match is None or number >= _MOST_ANSWERS:
                association.abort()
                raise DestinationUnavailable("the answers to the C-FIND cannot be read, or do not end")
            yield match
    except (RuntimeError, OSError) as error:
        raise DestinationUnavailable("the association ended before the C-FIND was sent") from error
    raise DestinationUnavailable("the C-FIND was not answered to its end")


def _check_status(status: int | None, answers: int) -> None:
    """Let pending answers pass (PS3.4 C.4.1.1.4)."""
    if status is None:
        raise DestinationUnavailable("the PACS aborted or did not answer the C-FIND in time")
    if status in _REFUSED:
        raise DestinationRefuses(f"the C-FIND was refused with status 0x{status:04X}")
    if status in _CUT and answers:
        raise AnswerCut(f"the C-FIND ended after {answers} answers with status 0x{status:04X}")
    if status not in _PENDING:
        raise DestinationUnavailable(f"the C-FIND failed with status 0x{status:04X}")


def values_of(match: Dataset, keyword: str) -> list[str]:
    """Read an element of several values; none where it is absent."""
    value = match.get(keyword) or []
    return [value] if isinstance(value, str) else [str(one) for one in value]


def number_of_instances(match: Dataset) -> int:
    """Read NumberOfSeriesRelatedInstances; 0 where it is absent, empty or no number."""
    try:
        return max(0, int(match.get("NumberOfSeriesRelatedInstances") or 0))
    except (ValueError, TypeError):
        return 0


def text_of(match: Dataset, keyword: str) -> str:
    """Read an element as text; empty where it is absent."""
    return str(match.get(keyword) or "").strip(" \0")
