"""The second stage: a head that reads the slices of a series in their order, on cached embeddings."""

from ich_node.training.sequence.settings import SequenceSettings
from ich_node.training.sequence.stage import SequenceOutcome, train_sequence_stage

__all__ = ["SequenceOutcome", "SequenceSettings", "train_sequence_stage"]
