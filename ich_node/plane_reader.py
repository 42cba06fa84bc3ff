"""Get the pixels of planes: what was just read is at hand, the rest is read again by a child process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ich_node.decode import DecodedPlane, DecoderPool, MemberFile, make_plane
from ich_node.records import HounsfieldSlices

MOST_BYTES: Final = 96 * 1024 * 1024
"""Of slices kept at hand: those of a few slabs of every series that is arriving."""


class PlaneToCome(Protocol):
    """A plane that is being read."""

    def result(self) -> DecodedPlane: ...


class _AtHand:
    def __init__(self, plane: DecodedPlane) -> None:
        self._plane = plane

    def result(self) -> DecodedPlane:
        return self._plane


class PlaneReader:
    """Read planes, and remember slices that were read for another reason."""

    def __init__(self, decoder: DecoderPool) -> None:
        self._decoder = decoder
        self._slices: OrderedDict[MemberFile, NDArray[np.float32]] = OrderedDict()
        self._bytes = 0

    def remember(self, path: Path, slices: HounsfieldSlices) -> None:
        """Keep slices of a file for the plane that they will be part of; the oldest are forgotten."""
        for one in slices:
            if (path, one.facts.frame) in self._slices:
                self._take((path, one.facts.frame))
            self._slices[path, one.facts.frame] = one.hu
            self._bytes += one.hu.nbytes
        while self._bytes > MOST_BYTES and len(self._slices) > 1:
            _, forgotten = self._slices.popitem(last=False)
            self._bytes -= forgotten.nbytes

    def read(self, members: Sequence[MemberFile]) -> PlaneToCome:
        """Begin to read a plane; slices at hand are used up."""
        if all(one in self._slices for one in members):
            return _AtHand(make_plane([self._take(one) for one in members]))
        return self._decoder.submit_plane(members)

    def _take(self, member: MemberFile) -> NDArray[np.float32]:
        hu = self._slices.pop(member)
        self._bytes -= hu.nbytes
        return hu
