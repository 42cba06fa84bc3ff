"""From files to scores: decoding per transfer syntax, windowing, and the engines.

Decoding runs in one process here, as in one of the worker's children.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from benchmarks.tables import median_and_range, print_table
from ich_node.decode import DecodeLimits
from ich_node.decode.instance import read_instance
from ich_node.model.bundle import load_bundle
from ich_node.model.engine import EngineName, open_engine
from ich_node.phantom import PhantomSettings, write_series
from ich_node.records import HounsfieldSlices, InstanceState, SliceFacts
from ich_node.windowing import Preprocessing, Windowing

MODEL = Path("models/ich-irv2")
SLICES = 30
RUNS = 3
ENGINE_SLICES = 10
_DCMCJPEG = "/usr/bin/dcmcjpeg"
_BY_DCMCJPEG = {"JPEG Lossless SV1 (.70)": "+e1", "JPEG Lossless (.57)": "+el", "JPEG Extended 12 bit (.51)": "+ee",
                "JPEG Baseline 8 bit (.50)": "+eb"}  # fmt: skip


def measure() -> None:
    """Measure and print the tables."""
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name:
        folder = Path(name)
        files = write_series(folder / "explicit", PhantomSettings(lesion="subdural", slices=SLICES))
        with libraries_quiet():
            slices = _measure_decoding({"Explicit VR Little Endian": files} | transcode(files, folder))
        _measure_windowing(slices)
        if (MODEL / "manifest.json").exists():
            _measure_engines(slices, folder / "cache")
        else:
            print(f"engines: skipped, {MODEL} is missing (make model)")


@contextmanager
def libraries_quiet() -> Iterator[None]:
    """Send standard error nowhere: GDCM's libjpeg writes a line there for every slice of 12 bits."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _timed(work: Callable[[], object], count: int) -> list[float]:
    """Return what was done per second, in several runs."""
    rates = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        rates.append(count / (time.perf_counter() - began))
    return rates


def _decline_nothing(_facts: SliceFacts) -> None:
    """Decode lossy copies too, which a program that compressed them calls derived."""


# ------------------------------------------------------------------------------------------ decoding


def _measure_decoding(by_syntax: dict[str, list[Path]]) -> HounsfieldSlices:
    limits, rows = DecodeLimits(), []
    for syntax, files in by_syntax.items():
        decoded = [read_instance(path, limits, _decline_nothing) for path in files]
        if any(one.state is not InstanceState.DECODED for one in decoded):
            raise RuntimeError(f"{syntax}: not every slice was decoded")

        def work(files: list[Path] = files) -> None:
            for path in files:
                read_instance(path, limits, _decline_nothing)

        size = sum(path.stat().st_size for path in files) / len(files)
        rates = _timed(work, len(files))
        rows.append((syntax, f"{size / 1e3:.0f}", median_and_range(rates), f"{1000 / np.median(rates):.1f}"))
    title = f"File to Hounsfield units with tissue measures: {SLICES} slices of 512 x 512, one process, {RUNS} runs"
    print_table(title, ("transfer syntax", "kB/slice", "slices/s", "ms/slice"), rows)
    plain = [read_instance(path, limits, _decline_nothing) for path in next(iter(by_syntax.values()))]
    return tuple(one for instance in plain for one in instance.slices)


def transcode(files: list[Path], folder: Path) -> dict[str, list[Path]]:
    made = {
        "Implicit VR Little Endian": _convert(files, folder / "implicit", _as_implicit),
        "RLE Lossless": _convert(files, folder / "rle", lambda image: _compressed(image, RLELossless)),
        "JPEG-LS Lossless": _convert(files, folder / "jls", lambda image: _compressed(image, JPEGLSLossless)),
        "JPEG-LS Near-Lossless": _convert(files, folder / "jlsn", lambda image: _compressed(image, JPEGLSNearLossless)),
        "JPEG 2000 Lossless": _convert(files, folder / "j2k", lambda image: _as_jpeg_2000(image, None)),
        "JPEG 2000, 10:1": _convert(files, folder / "j2kl", lambda image: _as_jpeg_2000(image, 10.0)),
        "HTJ2K Lossless": _convert(files, folder / "htj2k", _as_htj2k),
    }
    if not Path(_DCMCJPEG).exists():
        print("JPEG: skipped, dcmcjpeg is missing (package dcmtk)")
        return made
    return made | {name: list(_by_dcmcjpeg(files, folder / f"jpeg{option}", option)) for name, option in
                   _BY_DCMCJPEG.items()}  # fmt: skip


def _convert(files: list[Path], folder: Path, change: Callable[[Dataset], None]) -> list[Path]:
    folder.mkdir()
    paths = []
    for path in files:
        image = dcmread(path)
        change(image)
        paths.append(folder / path.name)
        image.save_as(paths[-1])
    return paths


def _as_implicit(image: Dataset) -> None:
    _ = [element.value for element in image]  # read while the encoding is still the old one
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def _compressed(image: Dataset, transfer_syntax: str) -> None:
    options = {"jls_error": 2} if transfer_syntax == JPEGLSNearLossless else {}
    image.compress(transfer_syntax, generate_instance_uid=False, **options)


def _as_jpeg_2000(image: Dataset, ratio: float | None) -> None:
    options = {} if ratio is None else {"compression_ratios": [ratio]}
    codestream = encode_array(_stored(image), bits_stored=image.BitsStored, **options)
    _encapsulate(image, codestream, JPEG2000Lossless if ratio is None else JPEG2000)


def _as_htj2k(image: Dataset) -> None:
    _encapsulate(image, imagecodecs.htj2k_encode(_stored(image), reversible=True), HTJ2KLossless)


def _stored(image: Dataset) -> NDArray[np.uint16]:
    return np.frombuffer(image.PixelData, "<u2").reshape(image.Rows, image.Columns)


def _encapsulate(image: Dataset, codestream: bytes, transfer_syntax: str) -> None:
    image.PixelData = encapsulate([codestream])
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    image.file_meta.TransferSyntaxUID = transfer_syntax


def _by_dcmcjpeg(files: list[Path], folder: Path, option: str) -> Iterator[Path]:
    folder.mkdir()
    for path in files:
        command = [_DCMCJPEG, option, path, folder / path.name]
        subprocess.run(command, check=True, capture_output=True)
        yield folder / path.name


# ------------------------------------------------------------------------------- windowing and engines


def _measure_windowing(slices: HounsfieldSlices) -> None:
    windowing = Windowing(Preprocessing())
    images = [torch.from_numpy(one.hu).unsqueeze(0) for one in slices]
    rows = []
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)

        def work() -> None:
            with torch.inference_mode():
                for image in images:
                    windowing(image)

        work()
        rates = _timed(work, len(images))
        rows.append((threads, median_and_range(rates), f"{1000 / np.median(rates):.1f}"))
    print_table("Windowing, one slice of 512 x 512 at a time", ("threads", "slices/s", "ms/slice"), rows)


def _measure_engines(slices: HounsfieldSlices, cache: Path) -> None:
    bundle = load_bundle(MODEL)
    windowing = Windowing(bundle.manifest.preprocessing)
    with torch.inference_mode():
        images = torch.cat([windowing(torch.from_numpy(one.hu).unsqueeze(0)) for one in slices[:ENGINE_SLICES]])
    names: list[EngineName] = ["torch", "openvino"] + (["cuda"] if torch.cuda.is_available() else [])
    rows = []
    for name in names:
        began = time.perf_counter()
        open_engine(bundle, name, cache_directory=cache)
        first_s = time.perf_counter() - began
        began = time.perf_counter()
        engine = open_engine(bundle, name, cache_directory=cache)
        opened_s = time.perf_counter() - began
        engine.score(images[:2])
        rates = _timed(lambda engine=engine: engine.score(images), len(images))
        rows.append(
            (name, engine.device, engine.batch_size, median_and_range(rates), f"{first_s:.1f}", f"{opened_s:.1f}")
        )
    head = ("engine", "device", "batch", "slices/s", "first start s", "later starts s")
    size = bundle.manifest.preprocessing.size_px
    print_table(f"Engines: {bundle.manifest.backbone} at {size} px, {ENGINE_SLICES} slices, {RUNS} runs", head, rows)
    shutil.rmtree(cache, ignore_errors=True)
