import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ich_node.errors import ModelError
from ich_node.model import bundle as bundle_module
from ich_node.model.bundle import load_bundle, verify_bundle, write_bundle
from ich_node.model.engine import build_network
from ich_node.model.manifest import OperatingPoint
from ich_node.model.network import SequenceHead, SequenceHeadSettings, SliceNetwork
from ich_node.records import HEMORRHAGE_CLASSES, ClassThresholds
from ich_node.windowing import Preprocessing

HEAD = SequenceHeadSettings(embedding_size=96, hidden_size=8)


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "version": "1.2",
        "trained": False,
        "backbone": "test_resnet",
        "preprocessing": Preprocessing(size_px=64),
        "temperature": dict.fromkeys(HEMORRHAGE_CLASSES, 1.0),
        "thresholds": {name: {"low": 0.2, "high": 0.7} for name in HEMORRHAGE_CLASSES},
        "thresholds_basis": "nothing",
        **changes,
    }


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = SliceNetwork("test_resnet").state_dict()
    write_bundle(tmp_path / "tiny", fields(sequence_head=HEAD), state, SequenceHead(HEAD).state_dict())
    return tmp_path / "tiny"


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def first_shard(directory: Path) -> Path:
    return min(directory.glob("slice-network-*.safetensors"))


def test_a_bundle_comes_back_as_it_was_written(directory: Path) -> None:
    torch.manual_seed(0)
    written = SliceNetwork("test_resnet").state_dict()
    loaded = load_bundle(directory)
    assert loaded.network_state.keys() == written.keys()
    assert all(torch.equal(loaded.network_state[key], written[key]) for key in written)
    assert loaded.head_state is not None
    assert loaded.thresholds["any"] == ClassThresholds(0.2, 0.7)
    assert loaded.manifest.preprocessing == Preprocessing(size_px=64)
    assert verify_bundle(directory) == []


def test_its_identity_is_the_hash_of_the_manifest(directory: Path) -> None:
    identity = load_bundle(directory).identity
    assert identity.sha256 == hashlib.sha256((directory / "manifest.json").read_bytes()).hexdigest()
    assert (identity.name, identity.version, identity.trained, identity.backbone) == (
        "tiny",
        "1.2",
        False,
        "test_resnet",
    )


def test_the_card_of_an_untrained_model_says_so(directory: Path) -> None:
    assert "Not trained" in (directory / "MODEL_CARD.md").read_text()


def test_weights_are_split_into_small_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "SHARD_BYTES", 1_500_000)
    state = SliceNetwork("test_resnet").state_dict()
    write_bundle(tmp_path, fields(), state)
    shards = list(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert all(shard.stat().st_size <= 1_500_000 for shard in shards)
    assert load_bundle(tmp_path).network_state.keys() == state.keys()


def test_writing_again_leaves_nothing_of_the_older_bundle(directory: Path) -> None:
    write_bundle(directory, fields(), SliceNetwork("test_resnet").state_dict())
    assert verify_bundle(directory) == []
    assert load_bundle(directory).head_state is None


def test_the_network_weights_can_be_let_go(directory: Path) -> None:
    bundle = load_bundle(directory).without_network_weights()
    assert bundle.network_state == {}
    assert bundle.head_state is not None


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none/manifest.json.*ich-node model init-untrained"):
        load_bundle(tmp_path / "none")


def test_an_altered_weight_file_is_named(directory: Path) -> None:
    shard = first_shard(directory)
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ModelError, match=rf"{shard.name}: altered or damaged"):
        load_bundle(directory)
    assert len(verify_bundle(directory)) == 1


def test_a_missing_weight_file_is_named(directory: Path) -> None:
    first_shard(directory).unlink()
    with pytest.raises(ModelError, match=r"slice-network-01-of-01.safetensors: cannot be read"):
        load_bundle(directory)


def test_every_fault_is_listed(directory: Path) -> None:
    first_shard(directory).unlink()
    (directory / "MODEL_CARD.md").write_text("other")
    (directory / "stranger.bin").write_bytes(b"x")
    assert len(verify_bundle(directory)) == 3


@pytest.mark.parametrize("name", ["weights.pt", "weights.pkl", "weights.bin", "weights", "../weights.safetensors"])
def test_a_file_that_is_no_safetensors_is_refused(directory: Path, name: str) -> None:
    content = pickle.dumps({"any": 1})
    (directory / name).write_bytes(content)
    edit_manifest(directory, lambda manifest: manifest["files"].update({name: hashlib.sha256(content).hexdigest()}))
    with pytest.raises(ModelError, match=r"manifest\.json"):
        load_bundle(directory)


def test_a_pickle_under_the_right_name_and_hash_is_refused(directory: Path) -> None:
    content = pickle.dumps({"any": 1})
    shard = first_shard(directory)
    shard.write_bytes(content)
    edit_manifest(
        directory, lambda manifest: manifest["files"].update({shard.name: hashlib.sha256(content).hexdigest()})
    )
    with pytest.raises(ModelError, match="no safetensors file"):
        load_bundle(directory)
    assert len(verify_bundle(directory)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(classes=m["classes"][1:] + m["classes"][:1]), "class order"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m.update(format_version=2), "format_version"),
        (lambda m: m["preprocessing"].update(surprise=1), "surprise"),
        (lambda m: m["temperature"].pop("any"), "temperature"),
        (lambda m: m["temperature"].update(any=0), "temperature"),
        (lambda m: m["thresholds"].update(any={"low": 0.8, "high": 0.2}), "low must not exceed high"),
        (lambda m: m.update(files={}), "no weights"),
        (lambda m: m.update(sequence_head=None), "sequence head"),
    ],
)
def test_a_manifest_that_cannot_be_followed_is_refused(
    directory: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(directory, change)
    with pytest.raises(ModelError, match=message):
        load_bundle(directory)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = SliceNetwork("test_resnet").state_dict()
    state["classifier.bias"][2] = float("nan")
    write_bundle(tmp_path, fields(), state)
    with pytest.raises(ModelError, match=r"classifier\.bias holds NaN"):
        load_bundle(tmp_path)


def test_a_manifest_that_is_not_json_is_refused(directory: Path) -> None:
    (directory / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match=r"manifest\.json"):
        load_bundle(directory)


def test_float16_on_disk_is_float32_in_use(tmp_path: Path) -> None:
    network = SliceNetwork("test_resnet")
    write_bundle(tmp_path / "whole", fields(), network.state_dict())
    write_bundle(
        tmp_path / "half", fields(sequence_head=HEAD), network.state_dict(), SequenceHead(HEAD).state_dict(), None,
        "float16",
    )  # fmt: skip
    loaded = load_bundle(tmp_path / "half")
    assert loaded.head_state is not None
    for state in (loaded.network_state, loaded.head_state, build_network(loaded).state_dict()):
        assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float32}
    assert torch.equal(loaded.network_state["classifier.bias"], network.state_dict()["classifier.bias"])
    assert torch.equal(
        loaded.network_state["classifier.weight"], network.state_dict()["classifier.weight"].half().float()
    )
    assert first_shard(tmp_path / "half").stat().st_size < 0.55 * first_shard(tmp_path / "whole").stat().st_size


def test_a_weight_too_large_for_float16_is_named(tmp_path: Path) -> None:
    state = SliceNetwork("test_resnet").state_dict()
    state["classifier.weight"][0, 0] = 1e6
    with pytest.raises(ModelError, match=r"classifier\.weight.*store float32"):
        write_bundle(tmp_path, fields(), state, stored="float16")


def test_an_operating_point_short_of_cases_says_so_wherever_the_model_is_named(tmp_path: Path) -> None:
    point = OperatingPoint(
        level="study", positives=36, negatives=50, target_sensitivity=0.95, sensitivity=0.972, sensitivity_low=0.855,
        specificity=0.7, target_specificity=0.95,
    )  # fmt: skip
    points = dict.fromkeys(HEMORRHAGE_CLASSES, point)
    write_bundle(tmp_path, fields(operating_points=points), SliceNetwork("test_resnet").state_dict())
    said = "any: sensitivity 0.97 (lower bound 0.85, target 0.95 NOT met: 36 positive studies), specificity 0.70"
    assert load_bundle(tmp_path).identity.operating_points["any"].startswith(said)
    assert said in (tmp_path / "MODEL_CARD.md").read_text()
    assert load_bundle(tmp_path).manifest.operating_points == points
