"""One table: each step from the first byte to the report in the PACS, its best alternative, and the machine's limit.

Both are measured in turns, in one run. The limit is what the machine could do if it did nothing but move the bytes of
the step, or its operations, at a rate that is measured here too. The figures are kept as JSON in ``var/bench``; two
such files are put side by side by ``python -m benchmarks compare OLD.json NEW.json``.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from torch import nn
from torch.nn import functional

from benchmarks import decode, gpu, limits, network, receive, report
from benchmarks.processes import dcmtk_environment, free_port, running, wait_for_port
from benchmarks.results import Row, keep, print_rows
from ich_node.association import Patience, associate
from ich_node.decode.codec import stored_values
from ich_node.deliver import store
from ich_node.model.bundle import load_bundle
from ich_node.model.engine import build_network
from ich_node.phantom import PhantomSettings, draw_volume, write_series
from ich_node.records import DeliveryObject, Destination
from ich_node.windowing import Windowing

MODEL: Final = Path("models/ich-irv2")
HEADS: Final = Path("../shared/data/cq500")
"""Real head CT, where it is there: slices of each of the compressed syntaxes of its series."""
ROUNDS: Final = 3
SLICES: Final = 24
HEAD_SLICES: Final = 36
REPORTS: Final = 5
OBJECTS: Final = 60
_STORESCU: Final = "/usr/bin/storescu"
_XML2DSR, _DSR2XML = "/usr/bin/xml2dsr", "/usr/bin/dsr2xml"

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Alternative:
    """What one would use instead."""

    name: str
    work: Work


def measure() -> int:
    """Measure, print the table and keep it; give the number of targets that were missed."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="ich-node-bench-") as name:
        folder = Path(name)
        for part in (_receive, _decode, _window, _network, _gpu, _head, _report, _deliver):
            part_folder = folder / part.__name__
            part_folder.mkdir()
            rows += part(part_folder)
    missed = print_rows(rows)
    print(f"\nkept in {keep(rows)}")
    return missed


def _in_turns(count: int, ours: Work, other: Alternative | None) -> tuple[list[float], list[float]]:
    """Give what each did a second, in each round, after one round that does not count."""
    rates: tuple[list[float], list[float]] = ([], [])
    works = [ours] + ([other.work] if other else [])
    for number in range(ROUNDS + 1):
        for work, found in zip(works, rates, strict=False):
            began = time.perf_counter()
            work()
            if number:
                found.append(count / (time.perf_counter() - began))
    return rates


# -------------------------------------------------------------------------------------------- receive


def _receive(folder: Path) -> Iterator[Row]:
    """Images/s by dcmtk's storescu; both make them durable."""
    if not Path(_STORESCU).exists():
        print("receive: skipped, dcmtk's storescu is missing (package dcmtk)")
        return
    sent = receive.make_images(folder / "sent")
    size = round(statistics.mean(size for _, size in sent.values()))
    others = {"Orthanc, SyncStorageArea": receive.run_orthanc} if Path(receive.ORTHANC).exists() else {}
    starts = {"": receive.run_node} | others
    for associations in receive.TARGET_IMAGES_PER_S:
        rates: dict[str, list[float]] = {name: [] for name in starts}
        for _ in range(ROUNDS):
            for name, start in starts.items():
                run = receive.one_run(start, folder / "run", folder / "sent", sent, associations)
                if not run.correct:
                    raise RuntimeError(f"{name or 'ich-node'} lost or changed an image")
                rates[name].append(run.images_per_s)
        other = next(iter(others), "")
        yield Row(
            step=f"receive, {associations} association{'s' if associations > 1 else ''}",
            unit="images/s",
            here=rates[""],
            alternative=other,
            there=rates.get(other, []),
            limit=limits.durable_files(folder, size, associations),
            limit_of="files written, flushed and named in turn, and nothing else",
            target_ratio=1.0 if associations > 1 else None,
        )


# --------------------------------------------------------------------------------------------- decode


def _decode(folder: Path) -> Iterator[Row]:
    """Slices/s of one process on one core, from data set to stored values; beside what pydicom takes by itself."""
    files = write_series(folder / "explicit", PhantomSettings(lesion="subdural", slices=SLICES))
    copy = limits.copy_bytes()
    with decode.libraries_quiet():
        syntaxes = {"Explicit VR Little Endian": files} | decode.transcode(files, folder) | dict(_real_heads())
        for name, paths in syntaxes.items():
            images = [dcmread(path) for path in paths]
            moved = sum(len(one.PixelData) + 2 * one.Rows * one.Columns for one in images) / len(images)
            reads = _pydicom_reads(images[0])
            other = Alternative("", _decoding(images, _pydicom)) if reads else None
            with _one_core():  # the node has a process for each; some libraries have threads
                here, there = _in_turns(len(images), _decoding(images, _ours), other)
            yield Row(
                step=f"decode, {name}",
                unit="slices/s",
                here=here,
                alternative="pydicom's default" if reads else "pydicom has none",
                there=there,
                limit=copy / moved,
                limit_of="codestream and pixels copied once",
                target_ratio=2.0 if reads and name.startswith("JPEG Lossless") else None,
            )


@contextmanager
def _one_core() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _real_heads() -> Iterator[tuple[str, list[Path]]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(HEADS.rglob("*.dcm")) if HEADS.exists() else []:
        syntax = dcmread(path, specific_tags=["SOPInstanceUID"]).file_meta.TransferSyntaxUID
        short = "JPEG Lossless SV1" if str(syntax).endswith(".70") else "JPEG 2000 Lossless"
        found.setdefault(f"{short}, real heads", []).append(path)
    for name, paths in found.items():
        yield name, paths[:: max(1, len(paths) // SLICES)][:SLICES]


def _decoding(images: Sequence[Dataset], decode_one: Callable[[Dataset], object]) -> Work:
    return lambda: [decode_one(image) for image in images]


def _ours(image: Dataset) -> object:
    return list(stored_values(image, [0]))


def _pydicom(image: Dataset) -> object:
    return get_decoder(image.file_meta.TransferSyntaxUID).as_array(image, raw=True)


def _pydicom_reads(image: Dataset) -> bool:
    try:
        _pydicom(image)
    except Exception:  # noqa: BLE001 - whatever it is: it does not read this
        return False
    return True


# ---------------------------------------------------------------------------------- window and network


def _volume(slices: int) -> torch.Tensor:
    drawn = draw_volume(PhantomSettings(lesion="subdural", slices=slices, slice_spacing_mm=160 / slices))
    return torch.from_numpy(np.asarray(drawn, np.float32))


def _window(_: Path) -> Iterator[Row]:
    """Slices/s on one thread, from Hounsfield units to the network's image."""
    preprocessing = load_bundle(MODEL).manifest.preprocessing
    windowing, volume = Windowing(preprocessing), _volume(SLICES)
    torch.set_num_threads(1)
    lows = [window.low_hu for window in preprocessing.windows]
    widths = [window.width_hu for window in preprocessing.windows]
    size = preprocessing.size_px

    def plain() -> None:
        for hu in volume:
            image = torch.stack([((hu - low) / width).clamp(0, 1) for low, width in zip(lows, widths, strict=True)])
            functional.interpolate(image.unsqueeze(0), (size, size), mode="bilinear", antialias=True)

    with torch.inference_mode():
        here, there = _in_turns(SLICES, lambda: [windowing(hu.unsqueeze(0)) for hu in volume], Alternative("", plain))
    moved = 4 * (volume[0].numel() + 3 * size * size)
    yield Row(
        step=f"window, {size} px, one thread",
        unit="slices/s",
        here=here,
        alternative="torch: windows and resize, no crop to the head, no smoothing of noise",
        there=there,
        limit=limits.copy_bytes() / moved,
        limit_of="slice and image copied once",
    )


def _network(_: Path) -> Iterator[Row]:
    """Slices/s at 299 px, one at a time, by the engines of a processor; beside torch as it comes, in float32."""
    bundle, threads = load_bundle(MODEL), len(os.sched_getaffinity(0))
    gflops = network.measure_machine(threads)
    images = network.make_images(bundle, network.REFERENCE_PX)
    operations = network.giga_operations(build_network(bundle), images[:1])
    runners = network.make_runners(bundle, network.REFERENCE_PX, threads)
    rates = network.rates_in_turns(runners, images, threads)
    # a limit is what nothing disturbed: on a shared host the first measurement may have been
    again = network.measure_machine(threads)
    for runner, rate in zip(runners, rates, strict=True):
        if "engine openvino" in runner.name:
            yield Row(
                step=f"network, {bundle.manifest.backbone} at {network.REFERENCE_PX} px: {runner.name}",
                unit="slices/s",
                here=rate,
                alternative="torch eager, f32",
                there=rates[0],
                limit=max(gflops[runner.precision], again[runner.precision]) / operations,
                limit_of=f"its {operations:.1f} GFLOP at the rate of a large product of matrices in {runner.precision}",
                target_ratio=runner.target,
            )


def _gpu(_: Path) -> Iterator[Row]:
    """The network on a GPU; see ``benchmarks.gpu``."""
    yield from gpu.rows(MODEL)


def _head(_: Path) -> Iterator[Row]:
    """Studies/s: from the embeddings of a study to its logits."""
    bundle = load_bundle(MODEL)
    weight = bundle.network_state["classifier.weight"].float()
    bias = bundle.network_state["classifier.bias"].float()
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    embeddings = torch.randn(HEAD_SLICES, weight.shape[1])
    array, columns, offset, times = embeddings.numpy(), weight.numpy(), bias.numpy(), 500
    with torch.inference_mode():
        here, there = _in_turns(
            times,
            lambda: [array @ columns.T + offset for _ in range(times)],
            Alternative("", lambda: [linear(embeddings) for _ in range(times)]),
        )
    yield Row(
        step=f"head, {HEAD_SLICES} slices",
        unit="studies/s",
        here=here,
        alternative="torch's Linear",
        there=there,
        limit=limits.copy_bytes() / (4 * (embeddings.numel() + weight.numel())),
        limit_of="embeddings and weights read once",
    )


# --------------------------------------------------------------------------------- report and delivery


def _report(folder: Path) -> Iterator[Row]:
    """Reports/s, in all three encodings, from the headers on disk."""
    files = write_series(folder / "head", PhantomSettings(slices=30, slice_spacing_mm=5))
    make = report.maker(files)
    objects = make()
    (folder / "one.dcm").write_bytes(objects[-1].part10)
    other = None
    if Path(_XML2DSR).exists():
        xml = folder / "one.xml"
        xml.write_bytes(subprocess.run([_DSR2XML, folder / "one.dcm"], check=True, capture_output=True).stdout)
        command = [_XML2DSR, xml, folder / "made.dcm"]
        other = Alternative(
            "dcmtk's xml2dsr, one encoding",
            lambda: [subprocess.run(command, check=True, capture_output=True) for _ in range(REPORTS)],
        )
    here, there = _in_turns(REPORTS, lambda: [make() for _ in range(REPORTS)], other)
    size = sum(len(one.part10) for one in objects) // len(objects)
    yield Row(
        step="report, 30 slices, three encodings",
        unit="reports/s",
        here=here,
        alternative=other.name if other else "",
        there=there,
        limit=limits.durable_files(folder, size, 1) / len(objects),
        limit_of="its files written, flushed and named",
    )


def _deliver(folder: Path) -> Iterator[Row]:
    """Objects/s, reports in one association, to dcmtk's storescp."""
    if not Path(receive.STORESCP).exists():
        print("deliver: skipped, dcmtk's storescp is missing (package dcmtk)")
        return
    files = write_series(folder / "head", PhantomSettings(slices=30, slice_spacing_mm=5))
    part10 = report.maker(files)()[-1].part10
    paths = []
    for number in range(OBJECTS):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(part10)
    image = dcmread(paths[0])
    sop_class_uid, sop_instance_uid = str(image.SOPClassUID), str(image.SOPInstanceUID)
    objects = [
        DeliveryObject(path=path, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid, sha256="")
        for path in paths
    ]
    with _storescp(folder) as port:
        destination = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)

        def ours() -> None:
            with associate(destination, "ICH_NODE", [str(image.SOPClassUID)], Patience()) as association:
                for one in objects:
                    store(association, [one])

        command = [_STORESCU, "-aec", "PACS", "127.0.0.1", str(port), *paths]
        other = Alternative(
            "dcmtk's storescu",
            lambda: subprocess.run(command, check=True, env=dcmtk_environment(), capture_output=True),
        )
        here, there = _in_turns(OBJECTS, ours, other)
    yield Row(
        step="deliver, one association",
        unit="objects/s",
        here=here,
        alternative=other.name,
        there=there,
        limit=limits.round_trips(len(part10)),
        limit_of="as many bytes sent through a socket and answered",
    )


@contextmanager
def _storescp(folder: Path) -> Iterator[int]:
    port = free_port()
    (folder / "pacs").mkdir()
    command: list[str | Path] = [receive.STORESCP, "-od", folder / "pacs", str(port)]
    with ExitStack() as stack:
        stack.enter_context(running(command, folder / "storescp.log", dcmtk_environment()))
        wait_for_port(port)
        yield port
    shutil.rmtree(folder / "pacs")
