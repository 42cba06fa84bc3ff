"""Look at everything the node depends on, and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

from ich_node.config import Config
from ich_node.database import open_database, prepare_database
from ich_node.examination import Finding, examine_node, examine_peers, look
from ich_node.model.memory import demand_not_older
from ich_node.models_in_use import active_choice, open_chosen_model, open_configured_model
from ich_node.pipeline import Model


def examine(config: Config) -> Iterator[Finding]:
    """Look at disk, database, model, device, certificate, every destination and alert channel, one after the other."""
    yield from examine_node(config)
    yield look("model", lambda: _model(config))
    yield from examine_peers(config)


def _model(config: Config) -> str:
    """Look at the model that answers, be it the configuration's or one that a person chose."""
    database = open_database(config.database_url, config.database.busy_timeout_s)
    prepare_database(database, config.state_directory, host_directory=config.host_directory)
    chosen = active_choice(config, database)
    database.close()
    if chosen is not None:
        return f"{_in_words(config, open_chosen_model(config, chosen))}; {chosen.chosen_by} chose it"
    model = open_configured_model(config)
    said = demand_not_older(config.state_directory, model.identity, allow_older=config.model.allow_older)
    return _in_words(config, model) + (f"; {said}" if said else "")


def _in_words(config: Config, model: Model) -> str:
    identity = model.identity
    shown = config.model.show_findings_of_untrained_model
    untrained = "its findings are shown, as TEST MODEL" if shown else "no finding"
    trained = "trained" if identity.trained else f"UNTRAINED: {untrained}"
    return (
        f"{identity.name} {identity.version} ({identity.sha256[:12]}), {trained}, {identity.signature}; "
        f"engine {model.engine.name} on {model.engine.device}"
        + (f"; thresholds of the site, {identity.site_thresholds}" if identity.site_thresholds else "")
    )
