"""Images and results in folders of this machine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from ich_node.durable import PART_SUFFIX, sync_directory, write_durably
from ich_node.errors import StartError
from ich_node.stored_files.files import FoundFile

UNREADABLE: Final = ".unreadable"
"""What a file is called that cannot be read, and is kept for a person."""
_AT_ONCE: Final = 500
_COUNT_AGAIN_S: Final = 600.0


class LocalFiles:
    """Files of the state folder; see ``StoredFiles``.

    Args:
        mark: ends the names of images that this host writes, where others write into the same folders.
    """

    def __init__(self, state_directory: Path, mark: str = "") -> None:
        self._state = state_directory
        self._mark = mark

    @property
    def state_directory(self) -> Path:
        return self._state

    @property
    def deleted_at_once(self) -> int:
        return _AT_ONCE

    @property
    def count_again_s(self) -> float:
        return _COUNT_AGAIN_S

    def prepare(self) -> None:
        """Make the folders, and remove what an interrupted write left."""
        spool = self._state / "spool"
        try:
            for number in range(256):
                (spool / f"{number:02x}").mkdir(parents=True, exist_ok=True)
            sync_directory(spool)
            sync_directory(self._state)
            for part in spool.glob(f"*/*{self._mark}{PART_SUFFIX}"):
                part.unlink()
            (probe := spool / f"probe{self._mark}{PART_SUFFIX}").write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise StartError(f"the state folder {self._state} cannot be written: {error.strerror}") from error

    def claim(self, installation_uid: str) -> None:
        """The state folder says itself whose it is: ``installation.json``."""

    def make_folder(self, folder: str) -> None:
        (self._state / folder).mkdir(exist_ok=True)
        sync_directory(self._state)

    def new_image(self) -> str:
        name = uuid.uuid4().hex
        return f"spool/{name[:2]}/{name}{self._mark}.dcm"

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        write_durably(f"{self._state}/{name}", pieces)

    def path(self, name: str) -> Path:
        return self._state / name

    def paths(self, names: Iterable[str]) -> Iterator[Path]:
        return map(self.path, names)

    def name_of(self, path: Path) -> str:
        return str(path.relative_to(self._state))

    def size(self, name: str) -> int:
        path = self._state / name
        return path.stat().st_size if path.exists() else 0

    def delete(self, name: str) -> None:
        (self._state / name).unlink(missing_ok=True)

    def put_aside(self, name: str) -> str:
        path = self._state / name
        return self.name_of(path.rename(path.with_suffix(UNREADABLE)))

    def found(self, folder: str, suffix: str) -> Iterator[FoundFile]:
        for path in files_in(self._state / folder):
            with suppress(FileNotFoundError):  # it was deleted meanwhile
                if path.name.endswith(suffix):
                    about = path.stat(follow_symlinks=False)
                    yield FoundFile(self.name_of(Path(path.path)), about.st_size, about.st_mtime)

    def unfinished(self, before: float) -> Iterator[Callable[[], None]]:
        # not by `Path.glob`, which holds all entries of a folder at once: megabytes, which leave gaps for good
        for folder in self._state.iterdir():
            if folder.is_dir():
                with suppress(PermissionError):  # lost+found of a disk of its own
                    for file in files_in(folder):
                        if file.name.endswith(PART_SUFFIX) and _is_older(file, before):
                            yield partial(Path(file.path).unlink, missing_ok=True)

    def check(self) -> str:
        """Nothing to say: whether the state folder can be written is looked at anyhow."""
        return "in the state folder"

    def close(self) -> None:
        """Nothing is open."""


def _is_older(file: os.DirEntry[str], than: float) -> bool:
    """Look how old a file is; one that its writer has renamed meanwhile is not left over."""
    try:
        return file.stat().st_mtime < than
    except FileNotFoundError:
        return False


def files_in(folder: Path) -> Iterator[os.DirEntry[str]]:
    """List the files of a folder, and of those in it; what is deleted meanwhile is no trouble."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from files_in(Path(entry.path))
                else:
                    yield entry
    except FileNotFoundError:
        return
