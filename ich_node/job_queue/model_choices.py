"""Which model a person chose: asked for, taken by the worker or refused; and what the silent one says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, and_, exists, insert, select, update

from ich_node.database import Database, ModelChoiceRow, SecondOpinionRow, SeriesRow, new_id
from ich_node.database.of_patients import series_of_patients
from ich_node.model_shelf import ShelvedModel
from ich_node.records import (
    ModelChoice,
    ModelChoiceState,
    ModelUse,
    SecondOpinion,
    SeriesState,
)

_LONGEST_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class AnsweredSeries:
    """A series that has an answer, and none of the silent model yet."""

    id: int
    study_id: int
    answer: Any
    """Row of the series as it was concluded."""


def choose_model(
    database: Database, use: ModelUse, model: ShelvedModel | None, *, reason: str, by: str, configured: Path
) -> int:
    """Ask for a model; the worker takes it when it has loaded it, and goes on with the other one until then.

    Args:
        model: None: none any more, for silent use.
        configured: directory of the configuration's model. Where that names another one, this choice does not count.

    Returns:
        Number of the choice.
    """
    named = {} if model is None else {
        "directory": str(model.directory), "name": model.name, "version": model.version, "sha256": model.sha256,
    }  # fmt: skip
    values = {
        "use": use, "state": ModelChoiceState.REQUESTED, "reason": reason, "chosen_by": by, "chosen_at": time.time(),
        "configured_directory": _place(configured), **named,
    }  # fmt: skip
    with database.writing() as connection:
        _replace(connection, use, ModelChoiceState.REQUESTED)
        return new_id(connection.execute(insert(ModelChoiceRow).values(values)))


def wanted_model(database: Database, use: ModelUse, configured: Path) -> ModelChoice | None:
    """Give the newest choice that was not refused; None where there is none: the configuration's, or none."""
    return _newest(database, use, configured, (ModelChoiceState.REQUESTED, ModelChoiceState.IN_USE))


def model_in_use(database: Database, use: ModelUse, configured: Path) -> ModelChoice | None:
    """Give the choice that the worker has taken; None where that is none: it uses the configuration's, or none."""
    return _newest(database, use, configured, (ModelChoiceState.IN_USE,))


def model_before(database: Database, configured: Path) -> ModelChoice | None:
    """Give the choice that the active model took the place of; None where that was the configuration's."""
    return _newest(database, ModelUse.ACTIVE, configured, (ModelChoiceState.REPLACED,), settled=True)


def model_choices(database: Database, most: int = 20) -> list[ModelChoice]:
    """List what was chosen, the newest first."""
    with database.reading() as connection:
        rows = connection.execute(select(ModelChoiceRow).order_by(ModelChoiceRow.id.desc()).limit(most)).all()
    return [_choice(row) for row in rows]


def settle_choice(database: Database, choice: ModelChoice, refused: str = "") -> bool:
    """Note that the worker took a model, or why not. False: another worker had said so before.

    A refusal counts only as long as no worker has taken it: then it is that one worker's fault.
    """
    mine = and_(ModelChoiceRow.id == choice.id, ModelChoiceRow.state == ModelChoiceState.REQUESTED)
    state = ModelChoiceState.REFUSED if refused else ModelChoiceState.IN_USE
    with database.writing() as connection:
        if not refused and _is_requested(connection, choice.id):
            _replace(connection, choice.use, ModelChoiceState.IN_USE)
        values = {"state": state, "error": refused[:_LONGEST_ERROR] or None, "settled_at": time.time()}
        return connection.execute(update(ModelChoiceRow).where(mine).values(values)).rowcount == 1


def give_up_silent(database: Database, choice: ModelChoice, why: str) -> None:
    """Note that a silent model that was in use failed: it is used no more until a person chooses it again."""
    values = {"state": ModelChoiceState.REFUSED, "error": why[:_LONGEST_ERROR]}
    with database.writing() as connection:
        connection.execute(update(ModelChoiceRow).where(ModelChoiceRow.id == choice.id).values(values))


def next_without_opinion(database: Database, sha256: str, since: float) -> AnsweredSeries | None:
    """Give the series that was concluded last, since a time, and that the silent model has not scored; or None."""
    opinion = exists().where(SecondOpinionRow.series_id == SeriesRow.id, SecondOpinionRow.model_sha256 == sha256)
    wanted = (
        select(SeriesRow)
        .where(
            SeriesRow.concluded_at >= since, SeriesRow.state == SeriesState.CONCLUDED,
            SeriesRow.images_deleted_at.is_(None), series_of_patients(), ~opinion,
        )
        .order_by(SeriesRow.concluded_at.desc())
        .limit(1)
    )  # fmt: skip
    with database.reading() as connection:
        row = connection.execute(wanted).first()
    return None if row is None else AnsweredSeries(row.id, row.study_id, row)


def save_opinion(database: Database, series: AnsweredSeries, model: ModelChoice, opinion: SecondOpinion) -> bool:
    """Save what the silent model says beside what the active one had said. False: it is saved already."""
    answer = series.answer
    values = {
        "study_id": series.study_id, "series_id": series.id, "model_name": model.name, "model_version": model.version,
        "model_sha256": model.sha256, "triage": opinion.triage, "reason": opinion.reason and opinion.reason.name,
        "probabilities": None if opinion.probabilities is None else dict(opinion.probabilities),
        "active_sha256": (answer.model or {}).get("sha256", ""), "active_triage": answer.triage,
        "active_probabilities": (answer.finding or {}).get("probabilities"), "seconds": opinion.seconds,
        "made_at": time.time(),
    }  # fmt: skip
    known = select(SecondOpinionRow.id).where(
        SecondOpinionRow.series_id == series.id, SecondOpinionRow.model_sha256 == model.sha256
    )
    with database.writing() as connection:
        if connection.execute(known).first() is not None:
            return False
        connection.execute(insert(SecondOpinionRow).values(values))
        return True


def _newest(
    database: Database, use: ModelUse, configured: Path, states: tuple[ModelChoiceState, ...], *, settled: bool = False
) -> ModelChoice | None:
    wanted = select(ModelChoiceRow).where(
        ModelChoiceRow.use == use,
        ModelChoiceRow.state.in_(states),
        ModelChoiceRow.configured_directory == _place(configured),
    )
    if settled:
        wanted = wanted.where(ModelChoiceRow.settled_at.is_not(None))
    with database.reading() as connection:
        row = connection.execute(wanted.order_by(ModelChoiceRow.id.desc()).limit(1)).first()
    return None if row is None else _choice(row)


def _is_requested(connection: Connection, choice_id: int) -> bool:
    state = connection.execute(select(ModelChoiceRow.state).where(ModelChoiceRow.id == choice_id)).scalar()
    return state == ModelChoiceState.REQUESTED


def _replace(connection: Connection, use: ModelUse, state: ModelChoiceState) -> None:
    of_before = update(ModelChoiceRow).where(ModelChoiceRow.use == use, ModelChoiceRow.state == state)
    connection.execute(of_before.values(state=ModelChoiceState.REPLACED))


def _place(directory: Path) -> str:
    return str(directory.resolve())


def _choice(row: Any) -> ModelChoice:
    return ModelChoice(
        id=row.id,
        use=ModelUse(row.use),
        directory=None if row.directory is None else Path(row.directory),
        name=row.name,
        version=row.version,
        sha256=row.sha256,
        state=ModelChoiceState(row.state),
        error=row.error or "",
        reason=row.reason,
        chosen_by=row.chosen_by,
        chosen_at=row.chosen_at,
        settled_at=row.settled_at,
    )
