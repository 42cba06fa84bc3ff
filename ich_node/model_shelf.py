"""Which model bundles lie beside the one of the configuration, by their manifests alone: no weight is read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ich_node.records import MODEL_MANIFEST, MODEL_SIGNATURE, quantized_in_words

_LARGEST: Final = 4 * 1024 * 1024
_MOST: Final = 100
_FIGURES: Final = 6


@dataclass(frozen=True, slots=True)
class ShelvedModel:
    """What a bundle says of itself. Whether that is true is seen when it is loaded: every file has its hash there."""

    directory: Path
    name: str = ""
    version: str = ""
    sha256: str = ""
    """Of the manifest, which names the hashes of all other files."""
    trained: bool = False
    backbone: str = ""
    signed: bool = False
    figures: tuple[str, ...] = ()
    """Of how well it does, in words."""
    in_8_bits: str = ""
    """How far its network in 8 bits is from float32, in words; empty where it has none that was measured."""
    fault: str = ""
    """Why it cannot be used; empty where nothing is known against it."""


def shelved_models(configured: Path) -> list[ShelvedModel]:
    """List the bundles in the folder that holds the configured one, which comes first."""
    first = configured.resolve()
    beside = sorted(path.parent.resolve() for path in first.parent.glob(f"*/{MODEL_MANIFEST}"))
    return [shelved_model(one) for one in [first, *(one for one in beside if one != first)][:_MOST]]


def shelved_model(directory: Path) -> ShelvedModel:
    """Read what one bundle says of itself."""
    path = directory / MODEL_MANIFEST
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        return ShelvedModel(directory, directory.name, fault=f"its manifest cannot be read: {error.strerror}")
    try:
        stated = json.loads(content) if len(content) <= _LARGEST else None
    except ValueError:
        stated = None
    if not isinstance(stated, dict) or not {"name", "version", "backbone", "trained"} <= stated.keys():
        return ShelvedModel(directory, directory.name, fault="its manifest is not understood")
    return ShelvedModel(
        directory=directory,
        name=str(stated["name"])[:64],
        version=str(stated["version"])[:32],
        sha256=hashlib.sha256(content).hexdigest(),
        trained=stated["trained"] is True,
        backbone=str(stated["backbone"])[:64],
        signed=(directory / MODEL_SIGNATURE).exists(),
        figures=tuple(filter(None, map(_in_words, _some(stated.get("metrics"))))),
        in_8_bits=_of_8_bits(stated.get("quantized")),
    )


def _some(metrics: Any) -> list[Any]:
    return metrics[:_FIGURES] if isinstance(metrics, list) else []


def _of_8_bits(stated: Any) -> str:
    try:
        return quantized_in_words(stated["figures"])[:200] if stated else ""
    except (KeyError, TypeError, ValueError):
        return ""


def _in_words(metric: Any) -> str:
    try:
        value, low, high = metric["value"], metric.get("low"), metric.get("high")
        interval = f" ({low:.3g} to {high:.3g})" if low is not None and high is not None else ""
        return f"{metric['name']}: {value:.3g}{interval}"[:120]
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""
