"""Which model answers, which one scores in silence beside it, and where they differ.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse

from ich_node.accounts import Role
from ich_node.job_queue.model_choices import choose_model, model_before, model_choices, model_in_use, wanted_model
from ich_node.model_shelf import ShelvedModel, shelved_model, shelved_models
from ich_node.queries.models import NO_RESULT, Comparison, compare_models
from ich_node.queries.workers import running_workers
from ich_node.records import ModelChoice, ModelChoiceState, ModelUse, RunningWorker, Triage
from ich_node.web.deeds import Deed, acting, done, what_was_done
from ich_node.web.gate import Visitor
from ich_node.web.site import Site

_ANSWERS = (*map(str, Triage), NO_RESULT)


@dataclass(frozen=True, slots=True)
class ModelsInUse:
    """What the page of models shows."""

    shelf: list[ShelvedModel]
    configured: ShelvedModel
    active: ModelChoice | None
    """None where the configuration's model answers."""
    silent: ModelChoice | None
    pending: dict[ModelUse, ModelChoice]
    before: ShelvedModel | None
    """What the active model took the place of; None where no other was used."""
    comparison: Comparison | None
    choices: list[ModelChoice]
    active_sha256: str
    workers: tuple[RunningWorker, ...]


def add_node_models(app: FastAPI, site: Site) -> None:
    """Add ``/node/models``."""
    operator, acts = site.gate.needs(Role.OPERATOR), acting(site, Role.ADMINISTRATOR)

    @app.get("/node/models")
    def models(
        visitor: Annotated[Visitor, Depends(operator)], said: Annotated[str, Depends(what_was_done)]
    ) -> HTMLResponse:
        """Show the models."""
        page = site.pages.of_template(
            "node_models.html.j2", visitor, place="node", here="models", said=said, models=_in_use(site),
            answers=_ANSWERS,
        )  # fmt: skip
        return HTMLResponse(page)

    @app.post("/node/models/use")
    def use(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Let a model answer from now on."""
        return _choose(site, deed, ModelUse.ACTIVE)

    @app.post("/node/models/silent")
    def silent(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Let a model score in silence what the other one answers."""
        return _choose(site, deed, ModelUse.SILENT)

    @app.post("/node/models/silence-none")
    def none(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Let no model score in silence any more."""
        reason = deed.reason()
        configured = site.config.model.directory
        choose_model(site.database, ModelUse.SILENT, None, reason=reason, by=deed.visitor.name, configured=configured)
        site.audit.operated(deed.visitor.name, deed.address, "model-silent", Name="none", Reason=reason)
        return done("/node/models", "no-silent-model")


def _choose(site: Site, deed: Deed, use: ModelUse) -> RedirectResponse:
    sha256, reason = deed.field("sha256"), deed.reason()
    configured = site.config.model.directory
    model = next(
        (one for one in _shelf(site, model_choices(site.database)) if one.sha256 == sha256 and not one.fault), None
    )
    if model is None:
        raise deed.refused(
            409, "There is no such model any more", "Nothing was changed: the bundle has gone or is another one now."
        )
    choose_model(site.database, use, model, reason=reason, by=deed.visitor.name, configured=configured)
    command = "model-use" if use is ModelUse.ACTIVE else "model-silent"
    site.audit.operated(
        deed.visitor.name, deed.address, command, Name=model.name, Version=model.version, Sha256=sha256, Reason=reason
    )
    return done("/node/models", command)


def _in_use(site: Site) -> ModelsInUse:
    database, directory = site.database, site.config.model.directory
    choices = model_choices(database)
    shelf = _shelf(site, choices)
    active = model_in_use(database, ModelUse.ACTIVE, directory)
    silent = model_in_use(database, ModelUse.SILENT, directory)
    wanted = {use: wanted_model(database, use, directory) for use in ModelUse}
    pending = {use: one for use, one in wanted.items() if one and one.state is ModelChoiceState.REQUESTED}
    silent = silent if silent is not None and silent.directory is not None else None
    active_sha256 = shelf[0].sha256 if active is None else active.sha256
    return ModelsInUse(
        shelf=shelf,
        configured=shelf[0],
        active=active,
        silent=silent,
        pending=pending,
        before=_before(site, active, shelf[0]),
        comparison=compare_models(database, silent.sha256, active_sha256) if silent else None,
        choices=choices,
        active_sha256=active_sha256,
        workers=running_workers(database),
    )


def _before(site: Site, active: ModelChoice | None, configured: ShelvedModel) -> ShelvedModel | None:
    if active is None:
        return None
    choice = model_before(site.database, site.config.model.directory)
    if choice is None or choice.directory is None:
        return configured
    return shelved_model(choice.directory)


def _shelf(site: Site, choices: Sequence[ModelChoice]) -> list[ShelvedModel]:
    """List the bundles beside the configured one, and those that were chosen by a command elsewhere."""
    shelf = shelved_models(site.config.model.directory)
    known = {one.directory for one in shelf}
    chosen = dict.fromkeys(one.directory for one in choices if one.directory is not None)
    return shelf + [shelved_model(one) for one in chosen if one not in known]
