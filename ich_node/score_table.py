"""Rows of bulk scoring as Parquet: one for each series. The only module that knows pyarrow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ich_node.durable import sync_directory, troubles_are_named, write_durably
from ich_node.errors import DamagedTable, StartError
from ich_node.records import HEMORRHAGE_CLASSES

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    raise StartError("pyarrow is missing, which writes and reads Parquet: pip install 'ich-node[scale]'") from missing

ScoreRow = dict[str, Any]
"""One series, by the names of ``SCHEMA``."""

_SHARES: Final = [(name, pa.float64()) for name in HEMORRHAGE_CLASSES]
_SLICE: Final = pa.struct(
    [("sop_instance_uid", pa.string()), ("frame", pa.int32()), ("position_mm", pa.float64()), *_SHARES]
)
SCHEMA: Final = pa.schema(
    [
        ("study_instance_uid", pa.string()),
        ("series_instance_uid", pa.string()),
        ("analysed", pa.bool_()),
        ("not_analysed_reason", pa.string()),
        ("complete", pa.bool_()),
        ("triage", pa.string()),
        *((f"probability_{name}", pa.float64()) for name in HEMORRHAGE_CLASSES),
        *((f"threshold_{end}_{name}", pa.float64()) for name in HEMORRHAGE_CLASSES for end in ("low", "high")),
        ("slices", pa.list_(_SLICE)),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("model_sha256", pa.string()),
        ("test_model", pa.bool_()),
        ("seconds", pa.float64()),
        ("station_name", pa.string()),
        ("slice_thickness_mm", pa.float64()),
        ("age_years", pa.int32()),
        ("sex", pa.string()),
        ("convolution_kernel", pa.string()),
        ("files", pa.int32()),
        ("not_received", pa.int32()),
        ("unread", pa.list_(pa.struct([("name", pa.string()), ("why", pa.string())]))),
        ("failed", pa.bool_()),
        ("fingerprint", pa.string()),
    ]
)
KEY: Final = ("study_instance_uid", "series_instance_uid", "fingerprint")
_NOT_WHOLE: Final = ("failed", "not_received")
_ROWS_AT_ONCE: Final = 2000
_NOT_FOR_READERS: Final = ("slices", "unread")


def write_part(path: Path, rows: Sequence[ScoreRow]) -> None:
    """Write some rows as a file that is whole or absent.

    Raises:
        StorageUnavailable: there is no room, or the disk is read-only.
        StorageFailed: the disk failed.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), sink, compression="zstd")
    write_durably(path, [memoryview(sink.getvalue())])


def read_keys(path: Path) -> list[tuple[str, str, str, bool]]:
    """Read of each row of a part which series it is of, under which fingerprint, and whether it is to be tried again.

    Raises:
        DamagedTable: the file is damaged, or of another version.
    """
    table = _read(path, (*KEY, *_NOT_WHOLE))
    return [(*(one[name] for name in KEY), any(one[name] for name in _NOT_WHOLE)) for one in table.to_pylist()]


def join_parts(
    parts: Sequence[Path], counts: Callable[[Path, int, str, str], bool], to: Path, beside: Path
) -> Iterator[ScoreRow]:
    """Write the rows that count into one file, and give of each what is told of it and which files were not read.

    The file is replaced when the last row was taken, and never half.

    Args:
        counts: told part, position in it, study and series, whether the row is the one that counts.
        beside: file to write to first, on the same disk.

    Raises:
        DamagedTable: a part is damaged.
        StorageUnavailable: there is no room, or the disk is read-only.
        StorageFailed: the disk failed.
    """
    with troubles_are_named():
        with beside.open("wb") as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
            for table in _batches(parts, counts):
                writer.write_table(table)
                yield from table.select(["analysed", "unread", "failed", "not_received"]).to_pylist()
        _sync(beside)
        beside.replace(to)
        sync_directory(to.parent)


def read_entries(path: Path) -> Iterator[dict[str, Any]]:
    """Give the rows as ``ich-node score --json`` prints entries, without slices, with what a validation groups by.

    Raises:
        DamagedTable: the file is damaged, or no table of scores.
    """
    wanted = [name for name in SCHEMA.names if name not in _NOT_FOR_READERS]
    with _readable(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted):
            for row in batch.to_pylist():
                yield _entry(row)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _entry(row: ScoreRow) -> dict[str, Any]:
    model = {name: row[f"model_{name}"] for name in ("name", "version", "sha256")}
    shares, limits = None, None
    if row["triage"] is not None:
        shares = {name: row[f"probability_{name}"] for name in HEMORRHAGE_CLASSES}
        limits = {name: {end: row[f"threshold_{end}_{name}"] for end in ("low", "high")} for name in HEMORRHAGE_CLASSES}
    return row | {"model": model, "probabilities": shares, "thresholds": limits}


def _batches(parts: Sequence[Path], counts: Callable[[Path, int, str, str], bool]) -> Iterator[pa.Table]:
    """Gather rows until there are some thousands: a row group for each part would make the file slow to read."""
    waiting: list[pa.Table] = []
    for part in parts:
        table = _read(part)
        keys = zip(*(table[name].to_pylist() for name in KEY[:2]), strict=True)
        kept = [counts(part, position, study, series) for position, (study, series) in enumerate(keys)]
        waiting.append(table.filter(pa.array(kept, pa.bool_())))
        if sum(one.num_rows for one in waiting) >= _ROWS_AT_ONCE:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    with _readable(path) as file:
        return file.read(columns=None if columns is None else list(columns))


def _readable(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DamagedTable(path, f"damaged, or no Parquet file ({type(error).__name__})") from error
    if not file.schema_arrow.equals(SCHEMA):
        file.close()
        raise DamagedTable(path, "no table of `ich-node score-archive`, or one of another version")
    return file
