"""Which model the worker uses: another one is loaded beside it and takes its place when it works."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import IchNodeError
from ich_node.job_queue.model_choices import give_up_silent, settle_choice, wanted_model
from ich_node.log import EventLog
from ich_node.model.memory import remember_model
from ich_node.models_in_use import open_chosen_model
from ich_node.pipeline import Model
from ich_node.records import ModelChoice, ModelUse

_LOOK_S: Final = 2.0

log = EventLog("work")


class ModelKeeper:
    """Looks for what people choose, and loads it in a thread of its own while the worker goes on."""

    def __init__(self, config: Config, database: Database, active: ModelChoice | None) -> None:
        self._config = config
        self._database = database
        self._threads = ThreadPoolExecutor(1, "model")
        self._settled: dict[ModelUse, int | None] = {ModelUse.ACTIVE: None if active is None else active.id}
        self._failed: set[int] = set()
        """Choices that could not be loaded here: not again and again."""
        self._loading: tuple[ModelChoice, Future[Model]] | None = None
        self._look_at = 0.0
        self.silent: tuple[ModelChoice, Model] | None = None
        """The model that scores in silence."""

    def look(self) -> Model | None:
        """Give another active model once it is ready; None: go on with the one that there is."""
        if self._loading is not None:
            return self._take() if self._loading[1].done() else None
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_S
            self._begin()
        return None

    def drop_silent(self, why: str) -> None:
        """Use the silent model no more: it failed, and nothing rests on it."""
        assert self.silent is not None, "there is one that failed"
        choice, _ = self.silent
        give_up_silent(self._database, choice, why)  # first: what nobody was told of is tried, and told of, again
        self.silent = None
        log.error("the silent model failed; it is used no more", name=choice.name, why=why)

    def close(self) -> None:
        """Wait until nothing is being loaded any more."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _begin(self) -> None:
        """Begin to load what is wanted and not in use yet; one at a time."""
        for use in ModelUse:
            wanted = wanted_model(self._database, use, self._config.model.directory)
            if wanted is None or wanted.id in self._failed or wanted.id == self._settled.get(use):
                continue
            if wanted.directory is None:
                self.silent = None
                self._settle(wanted)
                continue
            if use is ModelUse.SILENT:
                self.silent = None  # of three at once there might be no room
                self._settled.pop(use, None)  # where it cannot be loaded, the one before comes back
            log.info(
                "a model is being loaded; the other one works on", use=use, name=wanted.name, version=wanted.version
            )
            self._loading = wanted, self._threads.submit(open_chosen_model, self._config, wanted)
            return

    def _take(self) -> Model | None:
        assert self._loading is not None, "something was being loaded"
        choice, future = self._loading
        self._loading = None
        if (error := future.exception()) is not None:
            self._refuse(choice, error)
            return None
        wanted = wanted_model(self._database, choice.use, self._config.model.directory)
        if wanted is None or wanted.id != choice.id:
            return None  # another was chosen meanwhile, or another worker refused it
        model = future.result()
        if choice.use is ModelUse.SILENT:
            self._settle(choice)
            self.silent = choice, model
            return None
        remember_model(self._config.state_directory, model.identity)  # first: on a full disk it is loaded again
        self._settle(choice)
        return model

    def _refuse(self, choice: ModelChoice, error: BaseException) -> None:
        why = str(error) if isinstance(error, IchNodeError) else type(error).__name__
        others_use_it = not settle_choice(self._database, choice, why)  # first, as in `drop_silent`
        self._failed.add(choice.id)
        log.error("the chosen model cannot be used; the one before works on", use=choice.use, why=why,
                  others_use_it=others_use_it)  # fmt: skip

    def _settle(self, choice: ModelChoice) -> None:
        settle_choice(self._database, choice)
        self._settled[choice.use] = choice.id
        log.info("another model is in use", use=choice.use, name=choice.name or "none", version=choice.version,
                 sha256=choice.sha256, by=choice.chosen_by)  # fmt: skip
