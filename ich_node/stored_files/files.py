"""What can be done with the files of images and results, wherever they lie.

A file is named as the database names it: ``spool/..`` or ``results/..``, relative to the state folder. None is ever
written twice. Readers get a path of this machine; where the file is gone, nothing is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that is there."""

    name: str
    size_bytes: int
    written_at: float
    """Seconds since 1970. Of an image, when it was received."""


class StoredFiles(Protocol):
    """Images and results of one node."""

    @property
    def state_directory(self) -> Path:
        """The state folder, where everything else lies."""

    @property
    def deleted_at_once(self) -> int:
        """Results that are forgotten in one transaction, before which each is asked for its size."""

    @property
    def count_again_s(self) -> float:
        """How often it may be counted how much there is."""

    def prepare(self) -> None:
        """Make ready for writing, once, by the first process that receives; remove what an interrupted write left.

        Raises:
            StartError: nothing can be written.
        """

    def claim(self, installation_uid: str) -> None:
        """See that the files are those of this installation.

        Raises:
            ConfigError: they are another's.
            StartError: that cannot be told now.
        """

    def make_folder(self, folder: str) -> None:
        """Make a folder durably, before the first file is written there."""

    def new_image(self) -> str:
        """Make up the name of a file for an image."""

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a file, whole or not at all; it is safe once this has returned.

        Raises:
            StorageUnavailable: it cannot be written now.
            StorageFailed: the disk failed.
        """

    def path(self, name: str) -> Path:
        """Give a path to read a file at; where it is gone, nothing is there.

        Raises:
            StorageUnavailable: it cannot be fetched now.
        """

    def paths(self, names: Iterable[str]) -> Iterator[Path]:
        """Give paths to read several files at, in their order.

        Raises:
            StorageUnavailable: one cannot be fetched now.
        """

    def name_of(self, path: Path) -> str:
        """Give the name of a file by the path that ``path`` gave."""

    def size(self, name: str) -> int:
        """Give the bytes of a file; 0 where it is gone.

        Raises:
            StorageUnavailable: it cannot be looked at now.
        """

    def delete(self, name: str) -> None:
        """Delete a file; one that is gone is well.

        Raises:
            OSError: it cannot be deleted.
            StorageUnavailable: it cannot be deleted now.
        """

    def put_aside(self, name: str) -> str:
        """Keep a file that cannot be read under another name, which nothing looks for; give that."""

    def found(self, folder: str, suffix: str) -> Iterator[FoundFile]:
        """List the files of a folder, and of those in it, whose names end so.

        Raises:
            StorageUnavailable: they cannot be listed now.
        """

    def unfinished(self, before: float) -> Iterable[Callable[[], None]]:
        """Give what deletes each thing that an interrupted write left before a time.

        Raises:
            StorageUnavailable: they cannot be listed now.
        """

    def check(self) -> str:
        """Write, read, list and delete a file, and say in words that all went well.

        Raises:
            ObjectStoreAway: something did not; the text says what.
        """

    def close(self) -> None:
        """Let go of connections: before a fork, or for good."""
