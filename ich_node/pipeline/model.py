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
    public_key: Path | None = None,
) -> Model:
    """Load a bundle, its hashes and signature checked, and make it ready to score.

    Args:
        directory: of the bundle.
        engine: what computes.
        threads: of the processor; 0: all.
        show_untrained: show findings of an untrained model.
        cache: keeps what was made of the weights. With ``public_key`` it is not used: nobody signs what is in it.
        public_key: file of the key that the bundle must be signed with; None demands no signature.

    Raises:
        ModelError: a file is missing, altered, or of another kind; the signature is missing or wrong.
    """
    bundle = load_bundle(directory, public_key)
    cache = None if public_key else cache
    opened = open_engine(bundle, engine, threads=threads or None, cache_directory=cache)
    windowing = Windowing(bundle.manifest.preprocessing)
    return Model(bundle.without_network_weights(), windowing, opened, show_untrained)
