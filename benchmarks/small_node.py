"""A whole node that two cores hold at 20 images a second, and who sends to it.

Receiver, worker, deliverer and a small PACS run as processes with the shipped defaults, but for a small model and
images of 256 x 256.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom.uid import generate_uid

from benchmarks.processes import NODE, free_port, running, running_role, wait_for_port
from benchmarks.raw_sender import RawSender
from ich_node.phantom import PhantomSettings, write_series

IMAGES_PER_S: Final = 20.0
SENDERS: Final = 4
SLICES: Final = 30
ROWS: Final = 256
CT: Final = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
_UID_LENGTH: Final = 60

_CONFIG: Final = (
    NODE
    + """\
[model]
directory = "{model}"
engine = "torch"
threads = 1
show_findings_of_untrained_model = true
[viewer]
summary_also_for = []
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs_port}
objects = ["report"]
"""
)


@dataclass(frozen=True, slots=True)
class SmallNode:
    """The node that runs."""

    port: int
    """Of the receiver."""
    state: Path
    pids: dict[str, int]
    """Of each role, and of the PACS."""


@contextmanager
def small_node(
    folder: Path, *, roles: Sequence[str] = ("receive", "work", "deliver"), sections: str = ""
) -> Iterator[SmallNode]:
    """Run a node in a folder, until the block ends.

    Args:
        sections: more of the configuration.
    """
    port, pacs_port, state, model = free_port(), free_port(), folder / "state", folder / "model"
    _make_model(model)
    config = folder / "ich-node.toml"
    config.write_text(sections + _CONFIG.format(port=port, state=state, model=model, pacs_port=pacs_port))
    with ExitStack() as stack:
        pacs = [sys.executable, "-m", "ich_node", "pacs", "--port", str(pacs_port), "--directory", str(folder / "pacs")]
        pids = {"pacs": stack.enter_context(running(pacs, folder / "pacs.log"))}
        wait_for_port(pacs_port)
        for role in roles:
            (log := folder / f"{role}.log").touch()
            pids[role] = stack.enter_context(running_role(role, config, log))
        yield SmallNode(port, state, pids)


class Template:
    """One study whose UIDs are exchanged in its bytes: cheaper than to encode it again."""

    def __init__(self, folder: Path, rows: int = ROWS, station_name: str = "") -> None:
        from pydicom import dcmread
        from pydicom.filebase import DicomBytesIO
        from pydicom.filewriter import write_dataset

        self._study, self._series = _uid(), _uid()
        self._slices: list[tuple[str, bytes]] = []
        for path in write_series(folder, PhantomSettings(slices=SLICES, rows=rows)):
            image = dcmread(path)
            image.StationName = station_name or image.StationName
            image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = self._study, self._series, _uid()
            buffer = DicomBytesIO()
            buffer.is_little_endian, buffer.is_implicit_VR = True, False
            write_dataset(buffer, image)
            self._slices.append((str(image.SOPInstanceUID), buffer.getvalue()))
            path.unlink()

    def fresh_study(self) -> list[tuple[str, bytes]]:
        """Give the objects of a new study, with the UID of each."""
        return self.fresh()[1]

    def fresh(self) -> tuple[str, list[tuple[str, bytes]]]:
        """Give a new study's UID, and its objects with the UID of each."""
        study, series = _uid().encode(), _uid().encode()
        made = []
        for uid, encoded in self._slices:
            fresh = _uid()
            renamed = encoded.replace(self._study.encode(), study).replace(self._series.encode(), series)
            made.append((fresh, renamed.replace(uid.encode(), fresh.encode())))
        return study.decode(), made


def _uid() -> str:
    """Make a UID of one length, so that one can take the place of another."""
    return str(generate_uid())[: _UID_LENGTH - 1].ljust(_UID_LENGTH - 1, "1") + "1"


@dataclass(slots=True)
class Sent:
    """What the senders saw; shared by their threads."""

    answers: dict[str, int] = field(default_factory=dict)
    """How often each status, or what happened instead."""
    studies: int = 0
    times: list[tuple[float, float]] | None = None
    """When each image was answered, by the monotonic clock, and how long that took, in seconds; None: not kept."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, answer: str, began: float | None = None) -> None:
        now = time.monotonic()
        with self.lock:
            self.answers[answer] = self.answers.get(answer, 0) + 1
            if began is not None and self.times is not None:
                self.times.append((now, now - began))

    @property
    def success(self) -> int:
        return self.answers.get("0x0000", 0)


def send_studies(port: int, template: Template, sent: Sent, over: float) -> None:
    """Send studies at this sender's part of the rate until it is over; each study in an association of its own."""
    pause_s = SENDERS / IMAGES_PER_S
    while time.monotonic() < over:
        with sent.lock:
            sent.studies += 1
        try:
            with RawSender(port, CT, EXPLICIT) as sender:
                due = time.monotonic()
                for uid, encoded in template.fresh_study():
                    time.sleep(max(0.0, due - time.monotonic()))
                    began = time.monotonic()
                    sent.note(f"0x{sender.store(uid, encoded):04X}", began)
                    due += pause_s
        except OSError as error:
            sent.note(type(error).__name__)
            time.sleep(1.0)


def _make_model(directory: Path) -> None:
    """Make a small bundle, quick enough for 20 images a second."""
    from ich_node.model.untrained import make_untrained_bundle
    from ich_node.phantom import LESIONS, draw_volume

    heads = [
        draw_volume(PhantomSettings(lesion=one, slices=8, rows=64, slice_spacing_mm=16)) for one in (None, *LESIONS)
    ]
    make_untrained_bundle(directory, heads, backbone="test_resnet", size_px=64, name="tiny", denoised=False)
