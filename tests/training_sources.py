"""Sources of labelled slices, small and synthetic: the layout of RSNA 2019, tables of images, readers that fail."""

from __future__ import annotations

import csv
import io
import os
import signal
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

from ich_node.phantom import PhantomSettings, draw_volume, make_series
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.prepare.entries import Entry
from ich_node.training.prepare.lot import Item, Lot, ReadSlice, Source
from ich_node.training.prepared import Pixels

NEGATIVE = (0, 0, 0, 0, 0, 0)
SUBDURAL = (1, 0, 0, 0, 0, 1)
SIDE = 64


def heads(patients: int = 3, slices: int = 4) -> list[Dataset]:
    """Return CT objects of several patients, in the order of patients and slices."""
    return [
        instance
        for number in range(patients)
        for instance in make_series(
            PhantomSettings(slices=slices, rows=SIDE, seed=number, patient_id=f"P{number}", slice_spacing_mm=20.0)
        )
    ]


def write_rsna(folder: Path, instances: Sequence[Dataset], more_rows: Iterable[str] = ()) -> list[str]:
    """Write objects in the layout of RSNA 2019, every second one subdural; return their image ids."""
    images = folder / "stage_2_train"
    images.mkdir(parents=True)
    lines, ids = ["ID,Label"], []
    for number, instance in enumerate(instances):
        ids.append(f"ID_{number:09x}")
        instance.save_as(images / f"{ids[-1]}.dcm", enforce_file_format=True)
        lines += label_rows(ids[-1], SUBDURAL if number % 2 else NEGATIVE)
    (folder / "stage_2_train.csv").write_text("\n".join([*lines, *more_rows]) + "\n")
    return ids


def label_rows(image_id: str, labels: Sequence[int]) -> list[str]:
    return [f"{image_id}_{name},{label}" for name, label in zip(HEMORRHAGE_CLASSES, labels, strict=True)]


def zip_folder(folder: Path, archive: Path) -> Path:
    """Pack a folder, half of its files compressed."""
    with zipfile.ZipFile(archive, "w") as file:
        for number, path in enumerate(sorted(one for one in folder.rglob("*") if one.is_file())):
            method = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            file.write(path, path.relative_to(folder), compress_type=method)
    return archive


def as_12_bit_wrap(instance: Dataset) -> Dataset:
    """Store Hounsfield units as 12 bits that lost their sign, as some files of RSNA 2019 do: air is 3096."""
    stored = np.frombuffer(instance.PixelData, "<u2").astype(np.int32) + int(instance.RescaleIntercept)
    stored = np.maximum(stored, -1000)
    instance.RescaleIntercept = "0"
    instance.PixelData = (stored % 4096).astype("<u2").tobytes()
    return instance


def gray_window(hu: NDArray[np.floating], level_hu: float) -> NDArray[np.uint8]:
    """Show Hounsfield units in a window 80 HU wide."""
    return np.rint(np.clip((hu - level_hu + 40) / 80, 0, 1) * 255).astype(np.uint8)


def three_windows(hu: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Show Hounsfield units in brain, subdural and soft tissue window."""
    ends = ((0, 80), (-20, 200), (-150, 380))
    channels = [np.clip((hu - low) / width, 0, 1) for low, width in ends]
    return np.rint(np.stack(channels, axis=-1) * 255).astype(np.uint8)


def head_hu(seed: int = 0, rows: int = 128, lesion: str | None = None) -> NDArray[np.float32]:
    """Draw one slice of the middle of a head."""
    return draw_volume(PhantomSettings(slices=1, rows=rows, seed=seed, lesion=lesion))[0]


def as_image(pixels: NDArray[np.uint8], form: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form, lossless=True)
    return content.getvalue()


def write_table(path: Path, records: Sequence[dict[str, object]]) -> Path:
    """Write a table of images or studies; what a record does not say stays empty."""
    columns = list(dict.fromkeys(column for record in records for column in record))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    return path


def labelled(positive: bool = False) -> dict[str, object]:
    """Return the columns of the five subtypes."""
    labels = SUBDURAL if positive else NEGATIVE
    return dict(zip(HEMORRHAGE_CLASSES[1:], labels[1:], strict=True))


@dataclass(frozen=True, slots=True)
class FatalReader:
    """Make small slices; some items end the process, or never end."""

    fatal: frozenset[str] = frozenset()
    endless: frozenset[str] = frozenset()

    def read(self, item: Item) -> tuple[ReadSlice, ...]:
        if item.image_id in self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if item.image_id in self.endless:
            time.sleep(600)
        return (ReadSlice(item.image_id, item.labels, np.zeros((8, 8), np.uint8)),)

    def settings(self) -> str:
        return "fatal"


def fatal_source(count: int, reader: FatalReader) -> Source:
    """Return a source of ``count`` items that this reader reads."""
    items = [Item(f"image-{number}", Entry(str(number)), NEGATIVE) for number in range(count)]
    return Source((Lot("fatal", "dicom", Pixels.HU, 8, reader, items),))
