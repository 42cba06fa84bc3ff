"""What is to be read, and what was: the records between sources, children and the table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ich_node.training.prepare.entries import Entry
from ich_node.training.prepared import LeftOut, Pixels

Labels = tuple[int, ...]
"""Six of 0 and 1, in the order of HEMORRHAGE_CLASSES."""


@dataclass(frozen=True, slots=True)
class Item:
    """One slice of a source before it is read, with what a table says of it."""

    image_id: str
    at: Entry
    labels: Labels
    patient_id: str | None = None
    """None: as the image says."""
    study: str | None = None
    position_mm: float | None = None
    spacing_mm: float | None = None
    """Of the image as it comes."""
    lesion_mm2: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ReadSlice:
    """One slice as it goes into a shard."""

    image_id: str
    labels: Labels
    pixels: NDArray[np.uint8]
    """(side, side)."""
    regions: NDArray[np.uint8] | None = None
    """(side, side) codes of ``region_code``, of grey images."""
    perceptual_hash: int | None = None
    """None: there is no head to be recognised."""
    patient_id: str = ""
    study: str = ""
    position_mm: float | None = None
    spacing_mm: float | None = None
    lesion_mm2: float | None = None
    repairs: tuple[str, ...] = ()


class Reader(Protocol):
    """How the items of one lot are read; it travels to the children."""

    def read(self, item: Item) -> Sequence[ReadSlice]:
        """Read one item.

        Raises:
            Unreadable: the slice is left out for this reason.
        """

    def settings(self) -> str:
        """Name everything that changes what is read, but not where it lies."""


@dataclass(frozen=True, slots=True, eq=False)
class Lot:
    """Items of one source that are read in one way and fit into the same shards."""

    source: str
    kind: str
    pixels: Pixels
    side_px: int
    reader: Reader
    items: Sequence[Item]
    slices_per_item: int = 1

    @property
    def slices(self) -> int:
        """About how many slices it will give."""
        return len(self.items) * self.slices_per_item


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A data set as it was found: what to read, and what cannot be used."""

    lots: tuple[Lot, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    """What the reader of the log should know, such as how many duplicates were dropped."""
