"""The network in 8 bits of the model that comes with the program: on every study it decides as float32 does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ich_node.decode import DecodeLimits, DecoderPool
from ich_node.eligibility import slice_ineligibility
from ich_node.model.manifest import Manifest
from ich_node.model.openvino_backbone import has_int8
from ich_node.phantom import LESIONS, PhantomSettings, write_series
from ich_node.pipeline import Model, open_model
from ich_node.records import TriageFinding
from ich_node.scoring import score_paths

MODEL = Path(__file__).parents[2] / "models" / "ich-irv2"
WITHIN = 0.03
CQ500 = ("CQ500-CT-181", "CQ500-CT-342", "CQ500-CT-412", "CQ500-CT-427", "CQ500-CT-80", "CQ500-CT-47", "CQ500-CT-99")

pytestmark = pytest.mark.skipif(not has_int8(), reason="this processor does not compute in 8 bits")


@pytest.fixture(scope="module")
def models() -> tuple[Model, Model]:
    """In float32 and in 8 bits."""
    return open_model(MODEL, "torch"), open_model(MODEL, "openvino-int8")


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderPool]:
    with DecoderPool(DecodeLimits(), slice_ineligibility) as pool:
        yield pool


def test_its_figures_are_within_what_was_asked() -> None:
    stated = Manifest.model_validate_json((MODEL / "manifest.json").read_bytes()).quantized
    assert stated is not None
    assert stated.figures is not None
    assert stated.figures.largest_difference <= WITHIN
    assert stated.figures.equal_decisions == stated.figures.studies
    assert stated.figures.studies >= 20


@pytest.mark.parametrize("lesion", [None, "intraparenchymal"])
def test_a_phantom_is_decided_as_in_float32(
    tmp_path: Path, models: tuple[Model, Model], decoder: DecoderPool, lesion: str | None
) -> None:
    files = write_series(tmp_path, PhantomSettings(lesion=lesion, slices=16, slice_spacing_mm=10))
    agree(models, decoder, files)


@pytest.mark.slow
@pytest.mark.parametrize("lesion", [one for one in LESIONS if one != "intraparenchymal"])
def test_every_kind_of_phantom_is_decided_as_in_float32(
    tmp_path: Path, models: tuple[Model, Model], decoder: DecoderPool, lesion: str
) -> None:
    files = write_series(tmp_path, PhantomSettings(lesion=lesion, slices=30))
    agree(models, decoder, files)


@pytest.mark.slow
@pytest.mark.parametrize("study", [*(f"cq500/{name}" for name in CQ500), "ge-head-tilted"])
def test_a_real_head_is_decided_as_in_float32(
    shared_data: Path, models: tuple[Model, Model], decoder: DecoderPool, study: str
) -> None:
    files = sorted((shared_data / study).rglob("*.dcm"))
    if not files:
        pytest.skip(f"{study} is not there")
    agree(models, decoder, files)


def agree(models: tuple[Model, Model], decoder: DecoderPool, files: list[Path]) -> None:
    expected, found = (findings(model, decoder, files) for model in models)
    assert len(expected) == len(found) > 0
    for exact, fast in zip(expected, found, strict=True):
        assert (exact.triage, exact.reason) == (fast.triage, fast.reason)
        for one, other in zip(exact.slices, fast.slices, strict=True):
            assert one.sop_instance_uid == other.sop_instance_uid
            for name, probability in one.probabilities.items():
                assert abs(probability - other.probabilities[name]) <= WITHIN, (one.sop_instance_uid, name)


def findings(model: Model, decoder: DecoderPool, files: list[Path]) -> list[TriageFinding]:
    scores = score_paths(files, model, decoder, lambda _done, _all: None)
    return [one.analysis.finding for one in scores.series if one.analysis is not None]
