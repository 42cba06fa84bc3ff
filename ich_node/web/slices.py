"""Pixels for the viewer, decoded by a child process: what takes that down takes no page down."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

import numpy as np

from ich_node.database import Database
from ich_node.decode import DecodedPlane, DecoderPool
from ich_node.errors import StorageUnavailable
from ich_node.stored_files import StoredFiles
from ich_node.viewable import ViewableSeries, ViewableSlice, viewable_series

_MOST_BYTES: Final = 192 * 1024 * 1024
_MOST_LISTS: Final = 64
_LONGEST_LIST_S: Final = 30.0
"""What was rejected or deleted meanwhile is shown for no longer than this."""
_LOWEST_HU: Final = -32768
_HIGHEST_HU: Final = 32767

_Key = tuple[str, int | None]
"""A file, as the database names it, and a frame."""


class SliceGone(Exception):
    """A slice cannot be decoded; the text says why."""


def shown_first(series: Sequence[ViewableSeries]) -> tuple[ViewableSlice, ...]:
    """Give the slices that the viewer of a page shows first and asks for next: it begins at a key slice."""
    slices = series[0].slices if series else ()
    at = next((index for index, one in enumerate(slices) if one.is_key), len(slices) // 2)
    return slices[at : at + 1] + slices[max(at - 1, 0) : at] + slices[at + 1 : at + 2]


class SliceLists:
    """Says which slices a study has, and remembers it for a moment: a browser asks for them one by one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, dict[tuple[str, int | None], ViewableSlice]]] = OrderedDict()

    def read(self, study_instance_uid: str) -> tuple[ViewableSeries, ...]:
        """List the slices of a study, as they are now."""
        began = time.monotonic()
        series = viewable_series(self._database, study_instance_uid)
        slices = {(two.sop_instance_uid, two.frame): two for one in series for two in one.slices}
        with self._lock:
            self._kept[study_instance_uid] = began, slices
            self._kept.move_to_end(study_instance_uid)
            while len(self._kept) > _MOST_LISTS:
                self._kept.popitem(last=False)
        return series

    def find(self, study_instance_uid: str, sop_instance_uid: str, frame: int | None) -> ViewableSlice | None:
        """Find a slice of a study; None where the study has none such."""
        key = (sop_instance_uid, frame)
        if (kept := self._slices(study_instance_uid)) is not None and key in kept:
            return kept[key]
        self.read(study_instance_uid)
        return (self._slices(study_instance_uid) or {}).get(key)

    def _slices(self, study_instance_uid: str) -> dict[tuple[str, int | None], ViewableSlice] | None:
        with self._lock:
            read_at, slices = self._kept.get(study_instance_uid, (-_LONGEST_LIST_S, None))
        return slices if time.monotonic() - read_at < _LONGEST_LIST_S else None


class SliceReader:
    """Gives slices as bytes, and keeps the last ones: a series is looked through to and fro.

    Args:
        decoder: child processes that decode.
    """

    def __init__(self, files: StoredFiles, decoder: DecoderPool) -> None:
        self._files = files
        self._decoder = decoder
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0
        self._coming: dict[_Key, Future[bytes]] = {}

    def pixels(self, file: str, frame: int | None) -> bytes:
        """Give the Hounsfield units of a slice: int16, little endian, (rows, columns).

        Raises:
            SliceGone: the file is gone, or cannot be decoded.
            StorageUnavailable: it cannot be fetched now.
        """
        member = (file, frame)
        with self._lock:
            if member in self._kept:
                self._kept.move_to_end(member)
                return self._kept[member]
            future = self._coming.get(member)
            mine = future is None
            if future is None:
                future = self._coming[member] = Future()
        if mine:
            self._decode(member, future)
        return future.result()

    def read_ahead(self, slices: Sequence[ViewableSlice]) -> None:
        """Begin to decode slices that somebody will ask for in a moment."""

        def read(one: ViewableSlice) -> None:
            with suppress(SliceGone, StorageUnavailable):
                self.pixels(one.file, one.frame)

        for one in slices:
            threading.Thread(target=read, args=(one,), name="read ahead", daemon=True).start()

    def _decode(self, member: _Key, future: Future[bytes]) -> None:
        try:
            path = self._files.path(member[0])
            if not path.exists():
                raise SliceGone("its file was deleted after its days")
            encoded = _encode(self._decoder.submit_plane([(path, member[1])]).result())
        except (SliceGone, StorageUnavailable) as gone:
            future.set_exception(gone)
        else:
            self._keep(member, encoded)
            future.set_result(encoded)
        finally:
            with self._lock:
                del self._coming[member]
            future.cancel()  # where something unforeseen happened: nobody waits for ever

    def _keep(self, member: _Key, encoded: bytes) -> None:
        with self._lock:
            self._kept[member] = encoded
            self._bytes += len(encoded)
            while self._bytes > _MOST_BYTES and len(self._kept) > 1:
                _, forgotten = self._kept.popitem(last=False)
                self._bytes -= len(forgotten)


def _encode(plane: DecodedPlane) -> bytes:
    if plane.unreadable:
        why = plane.unreadable[0]
        raise SliceGone(why.reason.text)
    return np.rint(np.clip(plane.hu, _LOWEST_HU, _HIGHEST_HU)).astype("<i2").tobytes()
