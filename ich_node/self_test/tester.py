"""The thread that tests the node: by the clock, or when somebody asks. One test at a time; each leaves nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ich_node.audit import AuditTrail
from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import TransientError
from ich_node.forgotten_files import unlink_forgotten
from ich_node.job_queue.self_test_cleaning import forget_self_test_studies, note_cleaned
from ich_node.job_queue.self_tests import (
    ask_self_test,
    end_self_test,
    end_self_tests_of_the_dead,
    forget_old_self_tests,
    next_self_test,
)
from ich_node.log import EventLog
from ich_node.records.self_tests import BY_SCHEDULE, SelfTestToRun, SelfTestVerdict
from ich_node.self_test.run import Stopped, run_self_test
from ich_node.stored_files import stored_files

_POLL_S: Final = 1.0
_DIED: Final = "the process that ran it ended"
_STOPPED: Final = "the process was stopped"

log = EventLog("self-test")


class SelfTester:
    """Runs what is asked for, asks for it when it is time, and clears up.

    The first test comes a whole interval after the start: the roles have to get ready, and a short life sees none.

    Args:
        is_our_turn: says whether this host is the one that tests.
    """

    def __init__(
        self, config: Config, database: Database, trail: AuditTrail, is_our_turn: Callable[[], bool] = lambda: True
    ) -> None:
        self._is_our_turn = is_our_turn
        self._config = config
        self._database = database
        self._trail = trail
        self._due_at = time.monotonic() + config.self_test.every_s
        self._clear = False
        """Nothing is left of tests that nobody runs any more."""

    def run(self, stop: threading.Event) -> None:
        """Test until told to stop."""
        while not stop.is_set():
            try:
                self.step(stop)
            except TransientError as error:
                self._clear = False
                log.error("nothing can be written now; trying again", error)
            stop.wait(_POLL_S)

    def step(self, stop: threading.Event) -> SelfTestVerdict | None:
        """Run the test that is asked for, or that it is time for; None where there is none, or it was stopped."""
        if not self._is_our_turn():
            self._clear = False
            return None
        if not self._clear:
            self._clear_up()
        if self._config.self_test.enabled and time.monotonic() >= self._due_at:
            self._due_at = time.monotonic() + self._config.self_test.every_s
            ask_self_test(self._database, BY_SCHEDULE)
        test = next_self_test(self._database)
        if test is None:
            return None
        self._clear = False
        try:
            verdict = run_self_test(self._config, self._database, test, stop)
        except Stopped:
            self._forget(test)
            return None
        end_self_test(self._database, test.id, verdict)
        _log(verdict)
        self._clear_up()
        return verdict

    def _clear_up(self) -> None:
        """End what nobody runs, and delete the studies of what has ended; whoever was killed did neither."""
        if ended := end_self_tests_of_the_dead(self._database, _DIED):
            log.error("self-test failed", None, why=_DIED, count=ended)
        tests = forget_self_test_studies(self._database)
        if tests:
            unlink_forgotten(stored_files(self._config), self._database, self._trail)
            note_cleaned(self._database, tests)  # files that stay are on the list, and housekeeping tries them again
        forget_old_self_tests(self._database)
        self._clear = True

    def _forget(self, test: SelfTestToRun) -> None:
        """A test that was stopped says nothing, and is not to alarm anybody."""
        end_self_test(self._database, test.id, SelfTestVerdict(None, _STOPPED))
        self._clear_up()


@contextmanager
def testing_itself(
    config: Config,
    database: Database,
    stop: threading.Event,
    trail: AuditTrail,
    is_our_turn: Callable[[], bool],
) -> Iterator[None]:
    """Test the node in a thread of its own, until told to stop; the block ends when it has cleared up.

    A host that does not receive cannot: a test calls the receiver from its own host.
    """
    if "receive" not in config.node.roles:
        yield
        return
    tester = SelfTester(config, database, trail, is_our_turn)
    thread = threading.Thread(target=tester.run, args=(stop,), name="self-test", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _log(verdict: SelfTestVerdict) -> None:
    seconds = None if verdict.seconds is None else round(verdict.seconds, 2)
    if verdict.passed:
        log.info("self-test passed", seconds=seconds, probability=verdict.probability)
    else:
        log.error("self-test failed", None, why=verdict.fault, seconds=seconds)
