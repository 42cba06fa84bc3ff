"""A pool of models on a Ray cluster that has no room; the rest is tried on real clusters (integration)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ich_node.archive_scoring import ray_pool
from ich_node.decode import DecodeLimits
from ich_node.errors import BulkScoringStopped
from ich_node.records import EligibilityRules, ModelIdentity


class BusyCluster:
    """A cluster whose one machine is there, and never starts a worker."""

    waits = 0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 4.0}}]

    def remote(self, **_needs: Any) -> Any:
        worker = SimpleNamespace(model_sha256=SimpleNamespace(remote=object))
        return lambda _kind: SimpleNamespace(remote=lambda _setup: worker)

    def wait(self, tasks: Sequence[Any], **_how: Any) -> tuple[list[Any], Sequence[Any]]:
        self.waits += 1
        return [], tasks


def test_a_cluster_without_room_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "_LONGEST_WITHOUT_S", -1.0)
    cluster = BusyCluster()
    setup = ray_pool.ScoringSetup(
        tmp_path, "torch", 0, show_untrained=False, public_key=None, site_thresholds=None, limits=DecodeLimits(),
        decline=lambda _facts: None, rules=EligibilityRules(0, True, ()), decoders=1, largest_member=1,
    )  # fmt: skip
    identity = ModelIdentity("ich-irv2", "1.0.0", "ab" * 32, trained=True, backbone="resnet18")
    with pytest.raises(BulkScoringStopped, match="room for a model"):
        list(ray_pool._Work(cluster, setup, identity, None).run(iter(())))
    assert cluster.waits == 1
