"""What the second stage depends on."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ich_node.errors import TrainingError
from ich_node.model.network import SequenceHeadSettings


class SequenceSettings(BaseModel):
    """The resolved configuration of the second stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: int = Field(default=64, ge=1)
    layers: int = Field(default=1, ge=1, le=8)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    epochs: int = Field(default=40, ge=1)
    batch: int = Field(default=8, ge=1)
    """Series."""
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    study_weight: float = Field(default=0.5, ge=0)
    """Of the study's loss beside that of the slices."""
    skip: float = Field(default=0.1, ge=0, lt=1)
    """Probability that a slice is left out of a series at a reading."""
    parts: int = Field(default=3, ge=2)
    """Into how many parts, by patient, held-out slices are split to judge the head."""
    seed: int = 0

    @classmethod
    def of(cls, changes: dict[str, Any]) -> "SequenceSettings":
        """Make settings that differ from the usual ones.

        Raises:
            TrainingError: there is no such setting, or a value is out of range.
        """
        try:
            return cls(**changes)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise TrainingError(f"settings of the sequence head: {faults}") from None

    def head(self, embedding_size: int) -> SequenceHeadSettings:
        """The shape of the head, as the manifest states it."""
        return SequenceHeadSettings(
            embedding_size=embedding_size, hidden_size=self.hidden_size, layers=self.layers, dropout=self.dropout
        )
