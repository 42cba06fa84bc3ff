"""``python -m benchmarks [NAME ...]``: all, or those that are named. ``compare OLD.json NEW.json``: two runs."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module

from benchmarks.results import compare
from benchmarks.tables import machine

NAMES = (
    "steps",
    "receive",
    "attacks",
    "latency",
    "ready",
    "profile",
    "scanners",
    "decode",
    "network",
    "gpu",
    "report",
    "large",
    "early",
    "prepare",
    "worklist",
    "claims",
    "object_storage",
    "viewer",
    "browsers",
)


def main() -> None:
    """Run the benchmarks that are named, or all; exit status 1 where one of the attacks did what it may not."""
    if sys.argv[1:2] == ["compare"]:
        compare(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all where none is named")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in NAMES]:
        parser.error(f"no such benchmark: {', '.join(unknown)}; one of {', '.join(NAMES)}")
    print(machine())
    began = time.monotonic()
    missed = 0
    for name in options.names or NAMES:
        missed += import_module(f"benchmarks.{name}").measure() or 0
    print(f"\n{time.monotonic() - began:.0f} s in all")
    if missed:
        sys.exit(f"{missed} targets missed")


if __name__ == "__main__":
    main()
