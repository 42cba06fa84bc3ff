"""UIDs that pynetdicom has looked at before: it looks at each three times, and a request may propose thousands.

dcmtk's storescu proposes 128 presentation contexts. To read and answer that took 45 ms of the processor, as long as
storing ten images; most of it went into the same few hundred UIDs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom import pdu_items, presentation

_LONGEST_UID: Final = 64
_MOST: Final = 4096

SetUid = Callable[..., UID | None]


def look_at_each_uid_once() -> None:
    """Let the reading and writing of association requests remember the UIDs that are valid; may be called again."""
    for module in (pdu_items, presentation):
        known: Any = module
        if not hasattr(known.set_uid, "__wrapped__"):
            known.set_uid = remembering(known.set_uid)


def remembering(set_uid: SetUid) -> SetUid:
    """Give a function that does as pynetdicom's ``utils.set_uid``, and remembers what it said of valid UIDs.

    What is longer than any UID, or is none, is not remembered: it is looked at, and logged, each time.
    """

    @lru_cache(_MOST)
    def valid(value: str | bytes, name: str, *rules: bool, **more: bool) -> UID:
        uid = set_uid(value, name, *rules, **more)
        if uid is None or not uid.is_valid:
            raise _NotValid
        return uid

    @wraps(set_uid)
    def looked_at(value: Any, name: str, *rules: bool, **more: bool) -> UID | None:
        if isinstance(value, (str, bytes)) and 0 < len(value) <= _LONGEST_UID:
            try:
                return valid(value, name, *rules, **more)
            except _NotValid:
                pass
        return set_uid(value, name, *rules, **more)

    return looked_at


class _NotValid(Exception):
    """It is for pynetdicom to say what is wrong with it."""
