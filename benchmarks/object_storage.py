"""One image on its way to safety: a folder of this machine beside a bucket of an S3 server on the same machine."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.tables import print_table
from ich_node.config import parse_config
from ich_node.stored_files import LocalFiles, StoredFiles, stored_files
from tests.object_store import delete_copies, object_store, storage
from tests.running import settings

IMAGE_BYTES = 512 * 512 * 2 + 2000
_TIMES = 200
_SIDE_BY_SIDE = 8


def measure() -> int:
    """Measure and print the table; there are no targets: the store decides."""
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name, object_store(Path(name) / "moto") as store:
        folder = Path(name)
        values = storage(folder, store.url, request_timeout_s=30.0, give_up_s=60.0)
        bucket = stored_files(parse_config(settings(folder / "bucket", folder, storage=values)))
        rows = [
            _row("folder, with fsync", LocalFiles(folder / "local"), lambda: 0),
            _row("bucket (moto, loopback)", bucket, lambda: delete_copies(folder / "bucket")),
        ]
        bucket.close()
    head = ("where", "write ms, median", "longest", f"images/s, {_SIDE_BY_SIDE} at once", "fetch ms, median")
    return print_table(f"Images of {IMAGE_BYTES // 1024} KiB, {_TIMES} of them", head, rows)


def _row(where: str, files: StoredFiles, forget: Callable[[], int]) -> tuple[object, ...]:
    files.state_directory.mkdir(parents=True, exist_ok=True)
    files.prepare()
    image = os.urandom(IMAGE_BYTES)
    files.write(files.new_image(), [image])
    names = [files.new_image() for _ in range(_TIMES)]
    written = [_ms(partial(files.write, name, [image])) for name in names]
    forget()
    fetched = [_ms(partial(_read, files, name)) for name in names]
    more = [files.new_image() for _ in range(_TIMES)]
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as threads:
        together_ms = _ms(lambda: list(threads.map(lambda name: files.write(name, [image]), more)))
    rate = 1000 * _TIMES / together_ms
    return (
        where, f"{statistics.median(written):.1f}", f"{max(written):.0f}", f"{rate:.0f}",
        f"{statistics.median(fetched):.1f}",
    )  # fmt: skip


def _read(files: StoredFiles, name: str) -> bytes:
    return files.path(name).read_bytes()


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)
