"""A bundle that is ready to score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ich_node.model.bundle import ModelBundle, load_bundle
from ich_node.model.engine import Engine, EngineName, open_engine
from ich_node.records import (
    ModelIdentity,
)
from ich_node.windowing import Windowing


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A bundle that is ready to score."""

    bundle: ModelBundle
    windowing: Windowing
    engine: Engine
    show_untrained: bool

    @property
    def identity(self) -> ModelIdentity:
        return self.bundle.identity


def open_model(
    directory: Path,
    engine: EngineName = "auto",
    *,
    threads: int = 0,
    show_untrained: bool = False,
    cache: Path | None = None,
) -> Model:
    """Load a bundle, its hashes checked, and make it ready to score.

    Raises:
        ModelError: a file is missing, altered, or of another kind.
    """
    bundle = load_bundle(directory)
    opened = open_engine(bundle, engine, threads=threads or None, cache_directory=cache)
    windowing = Windowing(bundle.manifest.preprocessing)
    return Model(bundle.without_network_weights(), windowing, opened, show_untrained)
