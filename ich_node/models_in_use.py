"""Load the model that the node is to use: the configuration's, or the one that a person chose."""

from __future__ import annotations

import numpy as np

from ich_node.config import Config
from ich_node.database import Database
from ich_node.errors import ModelError
from ich_node.job_queue.model_choices import model_in_use
from ich_node.log import EventLog
from ich_node.model.site_thresholds import signed_thresholds
from ich_node.pipeline import Model, open_model
from ich_node.records import ModelChoice, ModelUse
from ich_node.windowing import AIR_HU

log = EventLog("work")


def active_choice(config: Config, database: Database) -> ModelChoice | None:
    """Give the choice that the node goes on with; None: the configuration's model answers."""
    return model_in_use(database, ModelUse.ACTIVE, config.model.directory)


def open_configured_model(config: Config) -> Model:
    """Load the model that the configuration names, with the thresholds that the site signed off for it.

    Raises:
        ModelError: it is missing or altered, or the site's thresholds are damaged.
        DeviceFailed: the device has no room for it.
    """
    settings, site = config.model, signed_thresholds(config.state_directory)
    model = open_model(
        settings.directory,
        settings.engine,
        threads=settings.threads,
        show_untrained=settings.show_findings_of_untrained_model,
        cache=config.host_directory / "cache",
        public_key=settings.public_key_file,
        site_thresholds=site,
    )
    if site is not None and not model.identity.site_thresholds:
        log.warning(
            "the site's thresholds are of another model; the model's own are used",
            name=model.identity.name, sha256=model.identity.sha256, of=site.model.name, of_sha256=site.model.sha256,
        )  # fmt: skip
    return model


def open_chosen_model(config: Config, choice: ModelChoice) -> Model:
    """Load a model that a person chose, and see that it scores.

    Raises:
        ModelError: it is missing, altered, or another one than was chosen.
        DeviceFailed: the device has no room for it.
    """
    assert choice.directory is not None, "none was chosen"
    chosen = config.model.model_copy(update={"directory": choice.directory})
    model = open_configured_model(config.model_copy(update={"model": chosen}))
    if model.identity.sha256 != choice.sha256:
        raise ModelError(f"{choice.directory}: it was changed since it was chosen; look at it and choose it again")
    air = np.full((512, 512), AIR_HU, np.float32)
    model.engine.score_hu([air])  # the first run takes longest: nobody shall wait for it
    return model
