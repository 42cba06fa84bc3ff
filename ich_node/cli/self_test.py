"""``ich-node self-test``: have the node that runs test itself, and say how that went."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ich_node.cli.node import Commands, audit_command, open_queue, read_config, with_config

if TYPE_CHECKING:
    from ich_node.config import Config
    from ich_node.database import Database
    from ich_node.records.self_tests import SelfTestStatus

_LOOK_EVERY_S: Final = 0.2
_SPARE_S: Final = 60.0
"""Beyond its limit: one that runs already may have to end first."""


def add_command(commands: Commands) -> None:
    """Add self-test."""
    parser = commands.add_parser("self-test", help="have the running node send itself a phantom, and judge the result")
    accept = "whatever the phantom scores is what later tests are compared with"
    parser.add_argument("--accept-score", action="store_true", help=accept)
    parser.set_defaults(run=_self_test)
    with_config(parser)
    parser.description = parser.description or ""


def _self_test(options: argparse.Namespace) -> int:
    from ich_node.audit import open_trail
    from ich_node.job_queue.self_tests import ask_self_test
    from ich_node.role_lock import role_is_held

    config = read_config(options)
    database = open_queue(config)
    if "deliver" in config.node.roles and not role_is_held(config.host_directory, "deliver"):
        sys.stderr.write("ich-node self-test: `ich-node deliver` does not run, which runs the tests\n")
        return 1
    trail = open_trail(config, "self-test")
    number, is_new = ask_self_test(database, trail.person.user_id[:64], accepts_score=options.accept_score)
    trail.close()
    if is_new:
        audit_command(config, "self-test", Accept=str(options.accept_score))
    else:
        sys.stdout.write("a test runs or waits already; this is how that one goes\n")
    test = _await_end(config, database, number)
    database.close()
    if test is None:
        sys.stderr.write("ich-node self-test: the test has not ended; look whether `ich-node deliver` still runs\n")
        return 1
    _show(test)
    return 0 if test.passed else 1


def _await_end(config: Config, database: Database, number: int) -> SelfTestStatus | None:
    from ich_node.queries import self_test_of

    deadline = time.monotonic() + 2 * config.self_test.limit_s + _SPARE_S
    while time.monotonic() < deadline:
        test = self_test_of(database, number)
        if test is None or test.finished_at is not None:
            return test
        time.sleep(_LOOK_EVERY_S)
    return None


def _show(test: SelfTestStatus) -> None:
    before = None
    for name, at in test.steps.items():
        since = "" if before is None else f"  +{at - before:.2f} s"
        sys.stdout.write(f"  {datetime.fromtimestamp(at).astimezone():%H:%M:%S.%f}  {name}{since}\n")
        before = at
    sys.stdout.write(f"self-test {test.says}\n")
