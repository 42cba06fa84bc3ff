"""The soak itself, for a moment: everything that is sent is stored, reported and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.soak import soak
from benchmarks.soak_samples import Samples


@pytest.mark.slow
def test_a_moment_of_the_soak_loses_nothing(tmp_path: Path) -> None:
    assert soak(20 / 3600, tmp_path, sample_s=2.0) == 0
    end = json.loads((tmp_path / "end.json").read_text())
    assert end["answered"] == end["rows"] >= 120
    assert end["delivered"] == end["studies"] == end["in_pacs"]
    assert {one["role"] for one in Samples(tmp_path).roles} == {"pacs", "receive", "work", "deliver"}
