"""Images and results in a bucket of an object store, with copies on this machine for those who read them."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from ich_node.errors import ConfigError, ObjectStoreAway, StartError, StorageUnavailable
from ich_node.stored_files.copies import LocalCopies
from ich_node.stored_files.files import FoundFile
from ich_node.stored_files.local import UNREADABLE
from ich_node.stored_files.s3 import PART_BYTES, Bucket

MARK: Final = "installation.json"
"""Says whose the bucket is: as the file of that name in the state folder."""
_IMAGE: Final = re.compile(
    r"spool/[0-9a-f]{2}/[0-9a-f]{2}-(?P<milliseconds>[0-9a-f]{12})-[0-9a-f]{16}(-[0-9a-f]{8})?\.dcm"
)
_FETCHED_AT_ONCE: Final = 8
_DELETED_AT_ONCE: Final = 20
_COUNT_AGAIN_S: Final = 6 * 3600.0


class BucketFiles:
    """Files of a bucket; see ``StoredFiles``."""

    def __init__(self, bucket: Bucket, state_directory: Path, copies: LocalCopies, mark: str = "") -> None:
        self._mark = mark
        self._bucket = bucket
        self._state = state_directory
        self._copies = copies

    @property
    def state_directory(self) -> Path:
        return self._state

    @property
    def deleted_at_once(self) -> int:
        return _DELETED_AT_ONCE

    @property
    def count_again_s(self) -> float:
        return _COUNT_AGAIN_S

    def prepare(self) -> None:
        """Make the folder for what is not whole yet, and see that the bucket answers."""
        try:
            (self._state / "spool").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"the state folder {self._state} cannot be written: {error.strerror}") from error
        try:
            self._is_empty()
        except ObjectStoreAway as error:
            raise StartError(f"{self._bucket}: {error}") from error

    def claim(self, installation_uid: str) -> None:
        """Write into an empty bucket whose it is, and refuse one that is another's."""
        try:
            marked = self.installation()
            if marked is None and not self._is_empty():
                raise self._not_ours(
                    f"there are objects, and no {MARK} that says whose. If they are this node's, "
                    f"copy {self._state / MARK} there"
                )
            if marked is None:
                mark = json.dumps({"installation_uid": installation_uid, "created_at": time.time()}) + "\n"
                self._bucket.put(MARK, [mark.encode()])
            elif marked[0] != installation_uid:
                raise self._not_ours(
                    f"it is that of installation {marked[0]}, and the database that of {installation_uid}: give "
                    "each node a bucket or a prefix of its own; if the database was lost: `ich-node rebuild`"
                )
        except ObjectStoreAway as error:
            raise StartError(f"{self._bucket}: {error}") from error

    def installation(self) -> tuple[str, float] | None:
        """Read whose the bucket is, and since when; None where nothing says so.

        Raises:
            ObjectStoreAway: it cannot be read now.
            ConfigError: it is damaged.
        """
        self._copies.forget(MARK)
        path = self.path(MARK)
        try:
            values = json.loads(path.read_bytes())
            return str(values["installation_uid"]), float(values["created_at"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise self._not_ours(f"its {MARK} is damaged: copy {self._state / MARK} there") from error

    def make_folder(self, folder: str) -> None:
        """A bucket has no folders."""

    def new_image(self) -> str:
        """The time is part of the name: the store keeps whole seconds, and of two versions the newer one speaks."""
        folder = secrets.token_hex(1)
        return f"spool/{folder}/{folder}-{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(8)}{self._mark}.dcm"

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        begin = bytearray()

        def passing() -> Iterator[bytes | memoryview]:
            for piece in pieces:
                if len(begin) <= PART_BYTES:
                    begin.extend(piece)
                yield piece

        self._bucket.put(name, passing())
        if len(begin) <= PART_BYTES:  # whoever reads it next need not fetch it
            with suppress(StorageUnavailable, OSError):
                self._copies.add(name, lambda part: part.write_bytes(begin) >= 0)

    def path(self, name: str) -> Path:
        if not self._copies.use(name):
            self._copies.add(name, lambda part: self._bucket.fetch(name, part))
        return self._copies.path(name)

    def paths(self, names: Iterable[str]) -> Iterator[Path]:
        wanted = list(names)
        if all(map(self._copies.use, wanted)):
            yield from map(self._copies.path, wanted)
            return
        with ThreadPoolExecutor(_FETCHED_AT_ONCE, "fetch") as threads:
            yield from threads.map(self.path, wanted)

    def name_of(self, path: Path) -> str:
        return self._copies.name_of(path)

    def size(self, name: str) -> int:
        return self._bucket.size(name) or 0

    def delete(self, name: str) -> None:
        self._bucket.delete(name)
        self._copies.forget(name)

    def put_aside(self, name: str) -> str:
        aside = str(Path(name).with_suffix(UNREADABLE))
        self._bucket.copy(name, aside)
        self.delete(name)
        return aside

    def found(self, folder: str, suffix: str) -> Iterator[FoundFile]:
        for one in self._bucket.objects(f"{folder}/"):
            if one.name.endswith(suffix):
                yield FoundFile(one.name, one.size_bytes, _received_at(one.name) or one.written_at)

    def unfinished(self, before: float) -> Iterable[Callable[[], None]]:
        return self._bucket.uploads(before)

    def check(self) -> str:
        name, content = f"doctor/{secrets.token_hex(8)}", secrets.token_bytes(1024)
        began = time.monotonic()
        self._bucket.put(name, [content])
        stored_ms = 1000 * (time.monotonic() - began)
        try:
            if self.path(name).read_bytes() != content or [one.name for one in self._bucket.objects(name)] != [name]:
                raise ObjectStoreAway(f"{self._bucket} does not give back what was stored a moment ago")
        finally:
            self.delete(name)
        if self._bucket.size(name) is not None:
            raise ObjectStoreAway(f"{self._bucket} does not delete")
        return f"{self._bucket} takes, lists, gives back and deletes objects; it took one in {stored_ms:.0f} ms"

    def close(self) -> None:
        self._bucket.close()

    def _is_empty(self) -> bool:
        return next((one for one in self._bucket.objects("", most=1)), None) is None

    def _not_ours(self, why: str) -> ConfigError:
        return ConfigError("[storage]", [f"{self._bucket}: {why}"])


def _received_at(name: str) -> float | None:
    """Read from the name of an image when it came; None where it does not say, as of one that was copied there."""
    found = _IMAGE.fullmatch(name)
    return None if found is None else int(found["milliseconds"], 16) / 1000
