"""``make soak HOURS=1``: a whole node under 20 images a second for hours; what grows, and whether anything is lost.

Receiver, worker, deliverer and a small PACS run as processes with the shipped defaults, but for a small model, images
of 256 x 256 and a retention of minutes: two cores hold the rate, and the disk is bounded. Samples: var/soak/<start>/.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom.uid import generate_uid

from benchmarks.processes import free_port, running, running_role, wait_for_port
from benchmarks.raw_sender import RawSender
from benchmarks.soak_samples import Sampler, Samples, print_report
from ich_node.phantom import PhantomSettings, write_series

IMAGES_PER_S: Final = 20.0
SENDERS: Final = 4
SLICES: Final = 30
ROWS: Final = 256
SAMPLE_S: Final = 10.0
TELL_S: Final = 300.0
_SETTLE_S: Final = 300.0
_CT: Final = "1.2.840.10008.5.1.4.1.1.2"
_EXPLICIT: Final = "1.2.840.10008.1.2.1"
_UID_LENGTH: Final = 60

_CONFIG: Final = """\
[node]
bind = "127.0.0.1"
port = {port}
state_directory = "{state}"
[receiver]
allow_any = true
[model]
directory = "{model}"
engine = "torch"
threads = 1
show_findings_of_untrained_model = true
[viewer]
summary_also_for = []
[retention]
images_days = {days}
not_head_days = {days}
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs_port}
objects = ["report"]
"""
_KEPT_DAYS: Final = 0.007
"""Ten minutes; what is older goes every quarter of an hour."""


@dataclass(slots=True)
class Sent:
    """What the senders saw; shared by their threads."""

    answers: dict[str, int] = field(default_factory=dict)
    """How often each status, or what happened instead."""
    studies: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, answer: str) -> None:
        with self.lock:
            self.answers[answer] = self.answers.get(answer, 0) + 1

    @property
    def success(self) -> int:
        return self.answers.get("0x0000", 0)


class Template:
    """One study whose UIDs are exchanged in its bytes: cheaper than to encode it again."""

    def __init__(self, folder: Path) -> None:
        from pydicom import dcmread
        from pydicom.filebase import DicomBytesIO
        from pydicom.filewriter import write_dataset

        self._study, self._series = _uid(), _uid()
        self._slices: list[tuple[str, bytes]] = []
        for path in write_series(folder, PhantomSettings(slices=SLICES, rows=ROWS)):
            image = dcmread(path)
            image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = self._study, self._series, _uid()
            buffer = DicomBytesIO()
            buffer.is_little_endian, buffer.is_implicit_VR = True, False
            write_dataset(buffer, image)
            self._slices.append((str(image.SOPInstanceUID), buffer.getvalue()))
            path.unlink()

    def fresh_study(self) -> list[tuple[str, bytes]]:
        """Give the objects of a new study, with the UID of each."""
        study, series = _uid().encode(), _uid().encode()
        made = []
        for uid, encoded in self._slices:
            fresh = _uid()
            renamed = encoded.replace(self._study.encode(), study).replace(self._series.encode(), series)
            made.append((fresh, renamed.replace(uid.encode(), fresh.encode())))
        return made


def _uid() -> str:
    """Make a UID of one length, so that one can take the place of another."""
    return str(generate_uid())[: _UID_LENGTH - 1].ljust(_UID_LENGTH - 1, "1") + "1"


def send_studies(port: int, template: Template, sent: Sent, over: float) -> None:
    """Send studies at this sender's part of the rate until it is over; each study in an association of its own."""
    pause_s = SENDERS / IMAGES_PER_S
    while time.monotonic() < over:
        with sent.lock:
            sent.studies += 1
        try:
            with RawSender(port, _CT, _EXPLICIT) as sender:
                due = time.monotonic()
                for uid, encoded in template.fresh_study():
                    time.sleep(max(0.0, due - time.monotonic()))
                    sent.note(f"0x{sender.store(uid, encoded):04X}")
                    due += pause_s
        except OSError as error:
            sent.note(type(error).__name__)
            time.sleep(1.0)


def soak(hours: float, folder: Path, sample_s: float = SAMPLE_S) -> int:
    """Run for so long; return 1 where anything was lost, refused or not reported, or a target was missed."""
    folder.mkdir(parents=True, exist_ok=True)
    model, state, port, pacs_port = folder / "model", folder / "state", free_port(), free_port()
    _make_model(model)
    config = folder / "ich-node.toml"
    config.write_text(_CONFIG.format(port=port, state=state, model=model, days=_KEPT_DAYS, pacs_port=pacs_port))
    template, sent = Template(folder / "template"), Sent()
    with ExitStack() as stack:
        pacs = [sys.executable, "-m", "ich_node", "pacs", "--port", str(pacs_port), "--directory", str(folder / "pacs")]
        pids = {"pacs": stack.enter_context(running(pacs, folder / "pacs.log"))}
        wait_for_port(pacs_port)
        for role in ("receive", "work", "deliver"):
            (log := folder / f"{role}.log").touch()
            pids[role] = stack.enter_context(running_role(role, config, log))
        sampler = Sampler(folder, pids, state, sent)
        over = time.monotonic() + 3600 * hours
        senders = [threading.Thread(target=send_studies, args=(port, template, sent, over)) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        told_at = time.monotonic()
        while any(sender.is_alive() for sender in senders):
            time.sleep(sample_s)
            sampler.sample()
            if time.monotonic() - told_at > TELL_S:
                print_report(Samples(folder))
                told_at = time.monotonic()
        end = _wait_until_settled(sampler, sent, sample_s)
        (folder / "end.json").write_text(json.dumps(end | {"answers": sent.answers, "hours": hours}, indent=1))
    return print_report(Samples(folder))


def _wait_until_settled(sampler: Sampler, sent: Sent, sample_s: float) -> dict[str, int]:
    """Wait until every study is reported, or for a while; count once more."""
    deadline = time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline and sampler.sample().delivered < sent.studies:
        time.sleep(sample_s)
    last = sampler.sample()
    reports = {path.name for path in sampler.folder.joinpath("pacs").rglob("*") if path.is_file()}
    return {
        "studies": sent.studies,
        "answered": sent.success,
        "rows": last.rows,
        "delivered": last.delivered,
        "in_pacs": len(reports),
    }


def _make_model(directory: Path) -> None:
    from ich_node.model.untrained import make_untrained_bundle
    from ich_node.phantom import LESIONS, draw_volume

    heads = [
        draw_volume(PhantomSettings(lesion=one, slices=8, rows=64, slice_spacing_mm=16)) for one in (None, *LESIONS)
    ]
    make_untrained_bundle(directory, heads, backbone="test_resnet", size_px=64, name="tiny", denoised=False)


def main() -> int:
    """Run a soak, or print the report of one that ran or was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0, help="default 1; fractions work")
    parser.add_argument("--folder", type=Path, default=Path("var/soak") / time.strftime("%Y-%m-%dT%H%M%S"))
    parser.add_argument("--report", action="store_true", help="only print what the samples in --folder say")
    options = parser.parse_args()
    if options.report:
        return print_report(Samples(options.folder))
    print(f"samples in {options.folder}; at any time: python -m benchmarks.soak --report --folder {options.folder}")
    return soak(options.hours, options.folder.resolve(), min(SAMPLE_S, 3600 * options.hours / 20))


if __name__ == "__main__":
    sys.exit(main())
