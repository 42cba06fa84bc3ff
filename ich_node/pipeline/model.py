"""A bundle that is ready to score."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ich_node.model.bundle import ModelBundle, load_bundle
from ich_node.model.engine import INT8, Engine, EngineName, open_engine
from ich_node.model.site_thresholds import SiteThresholds
from ich_node.records import ModelIdentity
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
    site_thresholds: SiteThresholds | None = None,
) -> Model:
    """Load a bundle, its hashes and signature checked, and make it ready to score.

    Args:
        directory: of the bundle.
        engine: what computes.
        threads: of the processor; 0: all.
        show_untrained: show findings of an untrained model.
        cache: keeps what was made of the weights. With ``public_key`` it is not used: nobody signs what is in it.
        public_key: file of the key that the bundle must be signed with; None demands no signature.
        site_thresholds: that a person signed off; used where they are of this very model.

    Raises:
        ModelError: a file is missing, altered, or of another kind; the signature is missing or wrong.
    """
    bundle = _with_site_thresholds(load_bundle(directory, public_key), site_thresholds)
    cache = None if public_key else cache
    opened = open_engine(bundle, engine, threads=threads or None, cache_directory=cache)
    bundle = replace(bundle, identity=replace(bundle.identity, engine=_in_words(bundle, opened)))
    return Model(bundle.without_network_weights(), opened.windowing, opened, show_untrained)


def _in_words(bundle: ModelBundle, engine: Engine) -> str:
    """Say what computes, and what is known of it where it is not as exact as the others."""
    stated = bundle.manifest.quantized
    measured = f": {stated.figures.in_words()}" if engine.name == INT8 and stated and stated.figures else ""
    return f"{engine.name} ({engine.device}){measured}"


def _with_site_thresholds(bundle: ModelBundle, site: SiteThresholds | None) -> ModelBundle:
    """Put a site's thresholds, and what was measured at them, in the place of the bundle's."""
    if site is None or site.signed_off is None or site.model.sha256 != bundle.identity.sha256:
        return bundle
    fields = {"thresholds": site.thresholds, "operating_points": site.operating_points}
    points = {name: site.measured(name) for name in site.operating_points}
    identity = replace(bundle.identity, operating_points=points, site_thresholds=site.in_words())
    return replace(bundle, manifest=bundle.manifest.model_copy(update=fields), identity=identity)
