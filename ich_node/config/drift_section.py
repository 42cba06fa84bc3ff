"""The section of the configuration about drift."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from ich_node.config.values import Section
from ich_node.records import DriftRules

_Days = Annotated[float, Field(ge=1, le=92)]
_Chance = Annotated[float, Field(gt=0, le=0.5)]
_Series = Annotated[int, Field(ge=10, le=2000)]


class DriftSettings(Section):
    """``[drift]``: how series are compared with earlier ones of the same station and kernel."""

    enabled: bool = True
    reference_series: _Series = 200
    minimum_series: _Series = 50
    recent_days: _Days = 14
    recent_series: _Series = 20
    false_alarms_per_year: _Chance = 0.05

    @model_validator(mode="after")
    def _reference_can_be_filled(self) -> DriftSettings:
        if self.minimum_series > self.reference_series:
            raise ValueError("minimum_series must not be more than reference_series")
        return self

    @property
    def rules(self) -> DriftRules:
        return DriftRules(
            reference_series=self.reference_series,
            minimum_series=self.minimum_series,
            recent_days=self.recent_days,
            recent_series=self.recent_series,
            false_alarms_per_year=self.false_alarms_per_year,
        )
