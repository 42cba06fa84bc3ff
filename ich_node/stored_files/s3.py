"""Requests to one bucket of an object store that speaks S3. This is the home of fsspec and s3fs.

A request that gets no answer, or one that another try may mend, is made again with growing pauses until ``give_up_s``
have passed. Then nothing more is asked for a moment: who waits for many files is not to wait for each.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from ich_node.errors import ObjectStoreAway, StartError

PART_BYTES: Final = 8 * 1024 * 1024
"""What is longer is uploaded in parts of this size. A store allows 10,000, and none but the last below 5 MiB."""
_LONGEST_FETCH_S: Final = 100.0
"""Of one object, however long it is."""
_CONNECT_S: Final = 5.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_REST_S: Final = 2.0
"""Without requests, after one was given up."""
_GONE: Final = ("NoSuchKey", "NoSuchUpload", "404")
_FINAL: Final = (
    "NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidDigest", "301",
)  # fmt: skip
_OF_THIS_MACHINE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""The disk that something is fetched to takes no more."""
_NEEDS: Final = "storage.url needs more packages: pip install 'ich-node[s3]'"

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and how it is reached."""

    bucket: str
    prefix: str
    """Of every key; empty, or with a slash at its end."""
    endpoint: str
    """Empty for Amazon's."""
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    ca_file: str
    """PEM; empty for the authorities that come with the client."""
    request_timeout_s: float
    give_up_s: float


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object of the bucket."""

    name: str
    """Its key, without the prefix."""
    size_bytes: int
    written_at: float
    """Seconds since 1970, by the clock of the store, which may tell whole seconds."""


class Bucket:
    """Objects by name; safe for threads, and for a process that was forked once ``close`` was called."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._filesystem: Any = None
        self._owner = 0
        self._lock = threading.Lock()
        self._rests_until = 0.0
        self._why = ""

    def __str__(self) -> str:
        at = f" at {self._place.endpoint}" if self._place.endpoint else ""
        return f"s3://{self._place.bucket}/{self._place.prefix}{at}"

    # ---------------------------------------------------------------------------------- requests

    def put(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Store an object, whole or not at all.

        The store is told the digest of what it gets (Content-MD5), and refuses what arrives otherwise.

        Raises:
            ObjectStoreAway: it is not known whether it is stored.
        """
        parts = _in_parts(pieces)
        first = next(parts, b"")
        second = next(parts, None)
        if second is None:
            self._ask("put_object", name, **_body(first))
        else:
            self._put_in_parts(name, _chain(first, second, parts))

    def _put_in_parts(self, name: str, parts: Iterator[bytes]) -> None:
        upload = self._ask("create_multipart_upload", name)["UploadId"]
        try:
            done = [
                {"PartNumber": number, "ETag": self._etag("upload_part", name, number, upload, part)}
                for number, part in enumerate(parts, 1)
            ]
            self._ask("complete_multipart_upload", name, UploadId=upload, MultipartUpload={"Parts": done})
        except FileNotFoundError as error:
            raise ObjectStoreAway("an upload in parts was ended by somebody else, or by an earlier answer") from error
        except BaseException:
            self._abort(name, upload)
            raise

    def _etag(self, method: str, name: str, number: int, upload: str, part: bytes) -> str:
        return str(self._ask(method, name, PartNumber=number, UploadId=upload, **_body(part))["ETag"])

    def _abort(self, name: str, upload: str) -> None:
        try:
            self._ask("abort_multipart_upload", name, UploadId=upload)
        except (ObjectStoreAway, FileNotFoundError):
            return  # housekeeping does it

    def fetch(self, name: str, to: Path) -> bool:
        """Write an object into a file; False where it is gone.

        Raises:
            ObjectStoreAway: it cannot be read now.
        """
        place = f"{self._place.bucket}/{self._place.prefix}{name}"
        try:
            self._again(lambda store: store.get_file(place, str(to), max_concurrency=1, timeout=_LONGEST_FETCH_S))
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int | None:
        """Give the bytes of an object; None where it is gone.

        Raises:
            ObjectStoreAway: it cannot be looked at now.
        """
        try:
            return int(self._ask("head_object", name)["ContentLength"])
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        """Delete an object; one that is gone is well.

        Raises:
            ObjectStoreAway: it is not known whether it is gone.
        """
        self._ask("delete_object", name)

    def copy(self, name: str, other: str) -> None:
        """Store what is in one object as another.

        Raises:
            FileNotFoundError: the object is gone.
            ObjectStoreAway: it is not known whether the other is stored.
        """
        source = {"Bucket": self._place.bucket, "Key": self._place.prefix + name}
        self._ask("copy_object", other, CopySource=source)

    def objects(self, begin: str, most: int = 1000) -> Iterator[FoundObject]:
        """List the objects whose names begin so, a page at a time.

        Args:
            most: in one page, of which each is one request.

        Raises:
            ObjectStoreAway: they cannot be listed now.
        """
        prefix = self._place.prefix
        for page in self._pages("list_objects_v2", begin, "ContinuationToken", MaxKeys=most):
            for one in page.get("Contents", []):
                name = one["Key"].removeprefix(prefix)
                yield FoundObject(name, int(one["Size"]), one["LastModified"].timestamp())

    def uploads(self, before: float) -> list[Callable[[], None]]:
        """Give what ends each upload in parts that began before a time and never came to its end.

        Raises:
            ObjectStoreAway: they cannot be listed now.
        """
        answer = self._ask("list_multipart_uploads", None, Prefix=self._place.prefix)
        old = [one for one in answer.get("Uploads", []) if one["Initiated"].timestamp() < before]
        return [partial(self._abort, one["Key"].removeprefix(self._place.prefix), one["UploadId"]) for one in old]

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            store, self._filesystem = self._filesystem, None
            if store is not None and self._owner == os.getpid() and store._s3 is not None:
                store.close_session(store.loop, store._s3creator)

    # --------------------------------------------------------------------------- how they are made

    def _pages(self, method: str, begin: str, token: str, **values: Any) -> Iterator[dict[str, Any]]:
        more: dict[str, Any] = {}
        while True:
            page = self._ask(method, None, Prefix=self._place.prefix + begin, **values, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more = {token: page[f"Next{token}"]}

    def _ask(self, method: str, name: str | None, **values: Any) -> dict[str, Any]:
        if name is not None:
            values["Key"] = self._place.prefix + name
        timeout_s = self._place.request_timeout_s

        def ask(store: Any) -> dict[str, Any]:
            answer: dict[str, Any] = store.call_s3(method, Bucket=self._place.bucket, timeout=timeout_s, **values)
            if method in ("put_object", "upload_part") and not answer.get("ETag"):
                raise OSError("the answer is not that of an object store")
            return answer

        return self._again(ask)

    def _again(self, request: Callable[[Any], Answer]) -> Answer:
        """Make a request, and again where that may help.

        Raises:
            FileNotFoundError: there is no such object.
            ObjectStoreAway: it was given up.
            OSError: the disk of this machine takes no more.
        """
        if time.monotonic() < self._rests_until:
            raise ObjectStoreAway(self._why)
        store, until, pause_s = self._open(), time.monotonic() + self._place.give_up_s, _FIRST_PAUSE_S
        while True:
            try:
                return request(store)
            except self._troubles() as error:
                code = _code_of(error)
                if getattr(error, "errno", None) in _OF_THIS_MACHINE:
                    raise
                if isinstance(error, FileNotFoundError) and code in _GONE:
                    raise FileNotFoundError(code) from None
                if isinstance(error, PermissionError) or code in _FINAL:
                    raise self._given_up(
                        f"the object store refuses ({code}): see [storage] of the configuration"
                    ) from error
                if time.monotonic() + pause_s > until:
                    raise self._given_up(f"the object store does not answer as it should ({code})") from error
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _given_up(self, why: str) -> ObjectStoreAway:
        self._why, self._rests_until = why, time.monotonic() + _REST_S
        return ObjectStoreAway(why)

    @staticmethod
    def _troubles() -> tuple[type[Exception], ...]:
        """What s3fs, and what it is made of, raise where a request fails."""
        from aiohttp import ClientError as ConnectionTrouble
        from botocore.exceptions import BotoCoreError, ClientError

        return OSError, TimeoutError, ConnectionTrouble, BotoCoreError, ClientError

    def _open(self) -> Any:
        """Give the client of this process.

        Raises:
            StartError: the packages that it needs are not installed.
        """
        with self._lock:
            if self._filesystem is None or self._owner != os.getpid():
                self._filesystem, self._owner = _client(self._place), os.getpid()
            return self._filesystem


def _client(place: Place) -> Any:
    try:
        import fsspec
        import s3fs  # noqa: F401 - what fsspec needs for s3
    except ImportError as error:
        raise StartError(_NEEDS) from error
    store = fsspec.filesystem(
        "s3",
        key=place.access_key,
        secret=place.secret_key,
        endpoint_url=place.endpoint or None,
        client_kwargs={"region_name": place.region, "verify": place.ca_file or None},
        config_kwargs={
            "connect_timeout": min(_CONNECT_S, place.request_timeout_s),
            "read_timeout": place.request_timeout_s,
            "retries": {"total_max_attempts": 1},
            "s3": {"addressing_style": "path" if place.endpoint else "virtual"},
            # only what every store that speaks S3 knows: Content-MD5 says whether it got what was sent
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    store.retries = 1  # tries are counted in one place, and that is here
    store.connect()  # makes no request, and takes its time: no part of the first one's
    return store


def _code_of(error: BaseException) -> str:
    """Name what went wrong: by the store's own code, else by the type of the error. Texts may quote anything."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict) and (code := response.get("Error", {}).get("Code")):
            return str(code)[:64]
    return type(error).__name__


def _body(part: bytes) -> dict[str, Any]:
    digest = hashlib.md5(part, usedforsecurity=False).digest()
    return {"Body": part, "ContentMD5": base64.b64encode(digest).decode("ascii")}


def _in_parts(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Put pieces together to parts of ``PART_BYTES``, but for the last."""
    part = bytearray()
    for piece in pieces:
        part += piece
        while len(part) >= PART_BYTES:
            yield bytes(part[:PART_BYTES])
            del part[:PART_BYTES]
    if part:
        yield bytes(part)


def _chain(first: bytes, second: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield second
    yield from rest
