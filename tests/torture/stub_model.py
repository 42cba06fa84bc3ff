"""A network without torch: what the worker imports of torch is replaced before it is imported, in this process only."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from ich_node.decode.instance import DeclineSlice, DecodedInstance, read_instance
from ich_node.decode.limits import DecodeLimits
from ich_node.decode.plane import DecodedPlane, MemberFile, read_plane
from ich_node.records import HEMORRHAGE_CLASSES, ClassThresholds, ModelIdentity


def install() -> None:
    """Let the worker be imported without torch. Call it before anything imports ``ich_node.worker``."""
    assert "torch" not in sys.modules, "too late"
    sys.modules["torch"] = _module(
        "torch",
        inference_mode=nullcontext,
        from_numpy=lambda hu: SimpleNamespace(unsqueeze=lambda _axis: hu),
        cat=list,
    )
    sys.modules["ich_node.windowing"] = _module(
        "ich_node.windowing", AIR_HU=-1000.0, Windowing=None, place_on_slice=None
    )
    sys.modules["ich_node.model.bundle"] = _module("ich_node.model.bundle", ModelBundle=None, load_bundle=None)
    sys.modules["ich_node.model.engine"] = _module(
        "ich_node.model.engine", INT8="", Engine=None, EngineName=str, open_engine=None, run_sequence_head=None
    )
    sys.modules["ich_node.model.site_thresholds"] = _module(
        "ich_node.model.site_thresholds", SiteThresholds=None, signed_thresholds=None
    )


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    return module


@dataclass(frozen=True)
class StubEngine:
    """Scores every slice as a hemorrhage; how sure it is depends on the pixels alone."""

    name: str = "stub"
    device: str = "none"
    batch_size: int = 4
    map_features: None = None

    def memory(self) -> tuple[int, int]:
        return 0, 1

    def score_hu(self, planes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        sure = np.array([3.0 + float(np.mean(hu)) / 1000.0 for hu in planes], np.float32)
        return np.repeat(sure[:, None], len(HEMORRHAGE_CLASSES), 1), np.repeat(sure[:, None], 8, 1)


def open_stub(*_arguments: Any, show_untrained: bool = False, **_options: Any) -> Any:
    """What ``open_configured_model`` would give."""
    identity = ModelIdentity("stub", "1", "0" * 64, trained=True)
    manifest = SimpleNamespace(
        sequence_head=None, temperature=dict.fromkeys(HEMORRHAGE_CLASSES, 1.0), trained=True, preprocessing=None
    )
    thresholds = dict.fromkeys(HEMORRHAGE_CLASSES, ClassThresholds(0.3, 0.7))
    bundle = SimpleNamespace(manifest=manifest, identity=identity, thresholds=thresholds)
    return SimpleNamespace(
        bundle=bundle,
        windowing=lambda hu: hu,
        engine=StubEngine(),
        show_untrained=show_untrained,
        identity=identity,
    )


@dataclass(frozen=True)
class _Done:
    answer: Any

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self.answer


class DecoderInside:
    """Decodes in the worker itself: starting a child takes a second, and our files are whole."""

    def __init__(self, limits: DecodeLimits, decline: DeclineSlice, _processes: int = 1) -> None:
        self._limits, self._decline = limits, decline

    def __enter__(self) -> DecoderInside:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was started."""

    def submit(self, path: Path, older: Path | None = None) -> _Done:
        read: DecodedInstance = read_instance(path, self._limits, self._decline, older)
        return _Done(read)

    def submit_plane(self, members: Sequence[MemberFile]) -> _Done:
        read: DecodedPlane = read_plane(tuple(members), self._limits)
        return _Done(read)
