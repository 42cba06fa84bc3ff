"""What a codec that was taken over would do, in a child that decodes. It imports little: a child has limits."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

from ich_node.decode import DecodeLimits
from ich_node.records import NotAnalysedReason, SliceFacts

LIMITS = DecodeLimits(seconds_per_object=10.0)
CRASHES, WRITES, BURNS, REPORTS = 901, 902, 903, 904
"""Instance numbers that say what is to be done."""


def act_by_number(facts: SliceFacts) -> NotAnalysedReason | None:
    """Runs in the child, as a codec that was taken over would."""
    if facts.instance_number == CRASHES:
        os.kill(os.getpid(), signal.SIGSEGV)
    if facts.instance_number == WRITES:
        Path(os.environ["WHERE_TO_WRITE"]).write_bytes(b"x")
    if facts.instance_number == BURNS:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        while True:
            pass
    if facts.instance_number == REPORTS:
        raise ValueError(" ".join(_what_is_allowed()))
    return None


def _what_is_allowed() -> Iterator[str]:
    status = Path("/proc/self/status").read_text()
    yield "no-new-privs" if "NoNewPrivs:\t1" in status else "NEW PRIVILEGES"
    for name, most in (("CORE", 0), ("FSIZE", 0), ("NOFILE", 64), ("AS", LIMITS.address_space_bytes)):
        yield name if resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) == (most, most) else f"{name} UNLIMITED"
    yield "CPU" if resource.getrlimit(resource.RLIMIT_CPU)[0] < 3600 else "CPU UNLIMITED"
    links = [os.readlink(one) for one in Path("/proc/self/fd").iterdir() if os.path.lexists(one)]  # noqa: PTH115
    yield "SOCKETS" if any(one.startswith("socket:") for one in links) else "no-sockets"
