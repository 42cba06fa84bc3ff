"""Pass over sequences of undefined length without building anything of them (PS3.5 7.5).

pydicom makes a data set of every item, 20 us each, and one call inside the other for each level: eight megabytes of
empty items took it 22 s. Here an item costs 1 us, and depth and number have an end.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from pydicom.uid import UID
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from ich_node.receive import statuses
from ich_node.receive.statuses import RefusedDataSet

MOST_ELEMENTS: Final = 500_000
"""Elements and items of one data set; an Enhanced CT of 2,000 frames has 200,000."""
DEEPEST: Final = 64
"""Levels of sequences; structured reports have some ten."""

_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ENDS: Final = (_ITEM_END, _SEQUENCE_END)
LONG_VRS: Final = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32)


class Budget:
    """What one data set may hold."""

    def __init__(self) -> None:
        self._left = MOST_ELEMENTS

    def spend(self, elements: int) -> None:
        """Count elements.

        Raises:
            RefusedDataSet: there are more than in any image.
        """
        self._left -= elements
        if self._left < 0:
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the data set holds more elements than any")


class SequenceWalk:
    """Finds where sequences of undefined length end."""

    def __init__(self, file: BinaryIO, total: int, syntax: UID, budget: Budget) -> None:
        self._file = file
        self._total = total
        self._budget = budget
        order = "<" if syntax.is_little_endian else ">"
        self._tag, self._long, self._short = (struct.Struct(order + form).unpack_from for form in ("HH", "L", "H"))
        self._explicit = not syntax.is_implicit_VR

    def end_of(self, start: int) -> int:
        """Give where a sequence ends whose value begins at ``start``.

        Raises:
            RefusedDataSet: it is damaged, has no end, or holds more or deeper items than any.
        """
        in_items = [False]
        """Innermost last: whether elements of an item follow, or the items of a sequence."""
        position = start
        while in_items:
            self._budget.spend(1)
            self._file.seek(position)
            head = self._file.read(12)
            if position + 8 > self._total or len(head) < 8:
                raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the data set ends inside a sequence")
            group, element = self._tag(head)
            tag = group << 16 | element
            self._check_place(tag, in_items[-1])
            length, header = self._length(head, tag, in_items[-1])
            position += header
            if tag in _ENDS:
                in_items.pop()
            elif length != _UNDEFINED_LENGTH:
                position += length
            elif len(in_items) == 2 * DEEPEST:
                raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "the data set is nested deeper than any")
            else:
                in_items.append(not in_items[-1])
        return position

    @staticmethod
    def _check_place(tag: int, in_item: bool) -> None:
        allowed = tag not in (_ITEM, _SEQUENCE_END) if in_item else tag in (_ITEM, _SEQUENCE_END)
        if not allowed:
            raise RefusedDataSet(statuses.CANNOT_UNDERSTAND, "a sequence of the data set is damaged")

    def _length(self, head: bytes, tag: int, in_item: bool) -> tuple[int, int]:
        """Give the length of an element's value and of what stands before it (PS3.5 7.1)."""
        if tag in _ENDS:
            return 0, 8
        vr = head[4:6]
        if not in_item or not self._explicit or not b"AA" <= vr <= b"ZZ":  # pydicom, too, takes what is no VR so
            return int(self._long(head, 4)[0]), 8
        if vr in LONG_VRS and len(head) == 12:
            return int(self._long(head, 8)[0]), 12
        return int(self._short(head, 6)[0]), 8
