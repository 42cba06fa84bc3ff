"""In which order the slices of a series arrived: what waits to be read, and what is known of where the others lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from ich_node.database import Database, InstanceRow, PlaneRow
from ich_node.job_queue.facts import facts_from_json
from ich_node.records import InstanceState, SliceFacts

_ENOUGH: Final = 32
"""Slices that were read: they show how the position goes on from one arrival to the next."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """The current instances of a series by their place in the order of arrival, and what was scored."""

    waiting: dict[int, int]
    """Number of each instance that is to be read, by its place."""
    others: int
    """How many do not wait, whatever they are."""
    read: dict[int, SliceFacts]
    """Of single slices that were read first, by the place of their instance."""
    scored: tuple[tuple[float, tuple[float, ...]], ...]
    """Position in mm and logits of each plane."""


def load_arrivals(database: Database, series_id: int, model_sha256: str) -> Arrivals:
    """Read what the order of reading is chosen by."""
    mine = (InstanceRow.series_id == series_id, InstanceRow.current)
    known = select(InstanceRow.id, InstanceRow.facts).where(*mine, InstanceRow.state == InstanceState.DECODED)
    scored = select(PlaneRow.position_mm, PlaneRow.logits).where(
        PlaneRow.series_id == series_id, PlaneRow.model_sha256 == model_sha256
    )
    with database.reading() as connection:
        arrived = connection.execute(
            select(InstanceRow.id, InstanceRow.state, InstanceRow.path).where(*mine).order_by(InstanceRow.id)
        ).all()
        read = connection.execute(known.order_by(InstanceRow.id).limit(_ENOUGH)).all()
        planes = connection.execute(scored).all()
    places = {row.id: place for place, row in enumerate(arrived)}
    facts = {places[row.id]: facts_from_json(row.facts) for row in read if row.id in places}
    waiting = {place: one.id for place, one in enumerate(arrived) if one.path and one.state == InstanceState.RECEIVED}
    return Arrivals(
        waiting=waiting,
        others=len(arrived) - len(waiting),
        read={place: of_one[0] for place, of_one in facts.items() if len(of_one) == 1},
        scored=tuple((one.position_mm, tuple(one.logits)) for one in planes),
    )
