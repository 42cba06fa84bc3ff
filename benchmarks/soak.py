"""``make soak HOURS=1``: a whole node under 20 images a second for hours; what grows, and whether anything is lost.

Receiver, worker, deliverer and a small PACS run as processes with the shipped defaults, but for a small model, images
of 256 x 256, and a retention and self-tests of minutes: two cores hold the rate, and the disk is bounded. Samples:
var/soak/<start>/.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Final

from benchmarks.small_node import SENDERS, Sent, Template, send_studies, small_node
from benchmarks.soak_samples import Sampler, Samples, print_report

SAMPLE_S: Final = 10.0
TELL_S: Final = 300.0
_SETTLE_S: Final = 300.0

_RETENTION: Final = """\
[retention]
images_days = 0.001
not_head_days = 0.001
"""
"""A minute and a half; what is older goes every quarter of an hour, for the first time in the warm-up, after two
minutes: what a deletion needs once is not to be taken after it."""

_SELF_TEST: Final = """\
[self_test]
every_min = 2
"""
"""Its images are four times as large as the senders': what they need once is to be taken in the warm-up, not after it,
and what a test would leave behind to be seen seven times as soon."""


def soak(hours: float, folder: Path, sample_s: float = SAMPLE_S) -> int:
    """Run for so long; return 1 where anything was lost, refused or not reported, or a target was missed."""
    folder.mkdir(parents=True, exist_ok=True)
    template, sent = Template(folder / "template"), Sent()
    with small_node(folder, sections=_RETENTION + _SELF_TEST) as node:
        sampler = Sampler(folder, node.pids, node.state, sent)
        over = time.monotonic() + 3600 * hours
        sending = (node.port, template, sent, over)
        senders = [threading.Thread(target=send_studies, args=sending) for _ in range(SENDERS)]
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
