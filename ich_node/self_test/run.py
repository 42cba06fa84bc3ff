"""One test, from the first byte to its verdict."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from ich_node.config import Config
from ich_node.database import Database
from ich_node.job_queue.self_tests import SelfTestLook, expected_score, look_at_self_test, open_series_of_patients
from ich_node.records.self_tests import SelfTestToRun, SelfTestVerdict
from ich_node.self_test.judging import fault_of, probability_of
from ich_node.self_test.order import SendingOrder, sending_order

_LOOK_EVERY_S: Final = 0.1
_COMMAND: Final = (sys.executable, "-m", "ich_node.self_test.sending")


class Stopped(Exception):
    """The process ends: nothing can be said of the test."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the child process said."""

    began: float
    """By the monotonic clock, which all processes of a machine share."""
    fault: str


def run_self_test(config: Config, database: Database, test: SelfTestToRun, stop: threading.Event) -> SelfTestVerdict:
    """Send the phantom, wait for its report, and judge that.

    Raises:
        Stopped: the process ends meanwhile.
        StorageUnavailable, StorageFailed: the database cannot be read.
    """
    limit_s = config.self_test.limit_s
    deadline = time.monotonic() + limit_s
    order = sending_order(config, test)
    try:
        sent = send_phantom(order, deadline, stop)
    except OSError as error:
        sent = Sent(0.0, f"the process that sends could not be started: {error.strerror}")
    if sent.fault:
        return SelfTestVerdict(False, sent.fault)
    look = _await_report(database, test, deadline, stop)
    seconds = time.monotonic() - sent.began
    if look.revision == 0 and not look.ended:
        others = open_series_of_patients(database)
        before = f"; {others} series of patients are under way" if others else ""
        return SelfTestVerdict(False, f"no report within {limit_s:g} s{before}")
    return _verdict(config, database, test, look, seconds)


def send_phantom(order: SendingOrder, deadline: float, stop: threading.Event) -> Sent:
    """Have the child process draw and send.

    Raises:
        Stopped: the process ends meanwhile.
    """
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*_COMMAND, order.to_json()], text=True, **pipes) as child:
        said = complained = ""
        try:
            while child.returncode is None:
                if stop.is_set():
                    raise Stopped
                if time.monotonic() >= deadline:
                    return Sent(0.0, "the phantom was not sent in time")
                with suppress(subprocess.TimeoutExpired):
                    said, complained = child.communicate(timeout=_LOOK_EVERY_S)
        finally:
            if child.returncode is None:
                child.kill()
    try:
        return Sent(**json.loads(said))
    except (ValueError, TypeError):
        why = "".join(f": {line[:200]}" for line in complained.strip().splitlines()[-1:])
        return Sent(0.0, f"the phantom could not be drawn or sent (its process ended with {child.returncode}{why})")


def _await_report(database: Database, test: SelfTestToRun, deadline: float, stop: threading.Event) -> SelfTestLook:
    while True:
        look = look_at_self_test(database, test.study_instance_uid)
        if look.revision or look.ended or time.monotonic() >= deadline:
            return look
        if stop.wait(_LOOK_EVERY_S):
            raise Stopped


def _verdict(
    config: Config, database: Database, test: SelfTestToRun, look: SelfTestLook, seconds: float
) -> SelfTestVerdict:
    sha256 = str((look.model or {}).get("sha256", ""))
    score = None if test.accepts_score else expected_score(database, sha256)
    fault = fault_of(look, slices=sending_order(config, test).slices, expect=config.self_test.expect, score=score)
    return SelfTestVerdict(
        passed=not fault, fault=fault, seconds=seconds, steps=look.steps, triage=look.triage,
        probability=probability_of(look), model_sha256=sha256 or None,
    )  # fmt: skip
