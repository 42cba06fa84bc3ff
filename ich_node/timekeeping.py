"""Every role watches the clock of its machine: see ``job_queue.clock``."""

from __future__ import annotations

from collections.abc import Callable

from ich_node.config import Config
from ich_node.database import Database
from ich_node.job_queue import LongestWaits, watch_clock
from ich_node.log import EventLog

_SECONDS_AN_HOUR = 3600.0

log = EventLog("clock")


def keep_time(config: Config, database: Database, on_step: Callable[[], None] = lambda: None) -> None:
    """Have what waits move with the clock from now on, whenever that is set.

    Args:
        on_step: called after each step that this process saw.
    """

    def noticed(step_s: float) -> None:
        log.warning("the clock was set; what waits was moved with it", step_s=round(step_s, 1))
        on_step()

    retry_s = max(config.delivery.longest_retry_s, config.delivery.paused_retry_s)
    asked_again_s = config.delivery.commitment_wait_h * _SECONDS_AN_HOUR
    waits = LongestWaits(series_s=config.series.max_wait_s, retry_s=retry_s, commitment_s=asked_again_s)
    watch_clock(database, config.state_directory, waits, noticed)
