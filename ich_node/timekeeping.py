"""Every role watches the clock of its host: ``job_queue.clock``; of several hosts, ``job_queue.shared_clock``."""

from __future__ import annotations

from collections.abc import Callable

from ich_node.config import Config
from ich_node.database import Database
from ich_node.job_queue import LongestWaits, watch_clock
from ich_node.job_queue.shared_clock import SharedClock
from ich_node.log import EventLog
from ich_node.repeats import Repeats

_SECONDS_AN_HOUR = 3600.0

log = EventLog("clock")


def keep_time(config: Config, database: Database, on_step: Callable[[], None] = lambda: None) -> None:
    """Have what waits move with the clock from now on, whenever that is set; of several hosts, have the clocks agree.

    Args:
        on_step: called after each step that this process saw.

    Raises:
        ClockDisagrees: the clock of this host is not that of the others.
    """
    if config.has_several_hosts:
        _keep_shared_time(database, on_step)
        return

    def noticed(step_s: float) -> None:
        log.warning("the clock was set; what waits was moved with it", step_s=round(step_s, 1))
        on_step()

    retry_s = max(config.delivery.longest_retry_s, config.delivery.paused_retry_s)
    asked_again_s = config.delivery.commitment_wait_h * _SECONDS_AN_HOUR
    waits = LongestWaits(series_s=config.series.max_wait_s, retry_s=retry_s, commitment_s=asked_again_s)
    watch_clock(database, config.state_directory, waits, noticed)


def _keep_shared_time(database: Database, on_step: Callable[[], None]) -> None:
    repeats = Repeats()

    def noticed(step_s: float) -> None:
        log.warning("the clock of this host was set", step_s=round(step_s, 1))
        on_step()

    def differs(ahead_s: float) -> None:
        if repeats.count("clock", "host"):
            log.error("the clock of this host is not the database server's", None, ahead_s=round(ahead_s, 1))

    clock = SharedClock(database, noticed, differs)
    clock.look()
    database.before_transaction = clock.look
