"""No other model than the one that was meant scores a slice: not by a flipped bit, a swap, an older one, a link."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ich_node.cli import main
from ich_node.config import parse_config
from ich_node.errors import ModelError, SecretFileError, StartError
from ich_node.model import bundle as bundle_module
from ich_node.model.bundle import load_bundle, sign_bundle, verify_bundle, write_bundle
from ich_node.model.engine import open_engine
from ich_node.model.memory import demand_not_older, remember_model
from ich_node.model.network import SliceNetwork
from ich_node.pipeline import open_model
from ich_node.records import ModelIdentity
from ich_node.worker import run_worker
from tests.running import settings
from tests.unit.test_bundle import fields

OPENSSL = Path("/usr/bin/openssl")
needs_openssl = pytest.mark.skipif(not OPENSSL.exists(), reason="openssl is not installed")


def make(directory: Path, seed: int, **changes: Any) -> Path:
    """Write a small bundle in two shards."""
    torch.manual_seed(seed)
    write_bundle(directory, fields(**changes), SliceNetwork("test_resnet").state_dict())
    return directory


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two bundles of one name and shape, with other weights: ``one``, and ``two``, a newer version."""
    folder = tmp_path_factory.mktemp("bundles")
    whole, bundle_module.SHARD_BYTES = bundle_module.SHARD_BYTES, 1_200_000
    try:
        make(folder / "one", 1, version="1.9")
        make(folder / "two", 2, version="1.10")
        assert len(list((folder / "one").glob("*.safetensors"))) > 1
        yield folder
    finally:
        bundle_module.SHARD_BYTES = whole


@pytest.fixture
def bundle(bundles: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles / "one", tmp_path / "one"))


def shards(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x01
    path.write_bytes(content)


# ------------------------------------------------------------------------------------------ substitution


@pytest.mark.parametrize("where", ["first byte", "header", "middle", "last byte"])
@pytest.mark.parametrize("file", ["first shard", "last shard", "card"])
def test_one_flipped_bit_anywhere_is_refused(bundle: Path, file: str, where: str) -> None:
    path = {"first shard": shards(bundle)[0], "last shard": shards(bundle)[-1], "card": bundle / "MODEL_CARD.md"}[file]
    size = path.stat().st_size
    flip(path, {"first byte": 0, "header": 20, "middle": size // 2, "last byte": size - 1}[where])
    with pytest.raises(ModelError, match=f"{path.name}: altered or damaged"):
        load_bundle(bundle)
    assert len(verify_bundle(bundle)) == 1


def swap(bundle: Path, _other: Path) -> None:
    first, *_, last = shards(bundle)
    first.rename(bundle / "x")
    last.rename(first)
    (bundle / "x").rename(last)


def take_from_another(bundle: Path, other: Path) -> None:
    shutil.copy(shards(other)[0], shards(bundle)[0])


def link_to_another(bundle: Path, other: Path) -> None:
    first = shards(bundle)[0]
    first.unlink()
    first.symlink_to(shards(other)[0])


def keep_the_older_manifest(bundle: Path, other: Path) -> None:
    for path in shards(other):
        shutil.copy(path, bundle)


@pytest.mark.parametrize("change", [swap, take_from_another, link_to_another, keep_the_older_manifest])
def test_weights_that_are_others_are_refused(bundle: Path, bundles: Path, change: Callable[[Path, Path], None]) -> None:
    change(bundle, bundles / "two")
    with pytest.raises(ModelError, match="altered or damaged"):
        load_bundle(bundle)


@pytest.mark.parametrize("by", ["replacing", "linking"])
def test_a_file_changed_between_check_and_load_changes_nothing(
    bundle: Path, bundles: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was hashed is what is parsed: the change comes right after each file's hash was taken."""
    meant = load_bundle(bundle).network_state
    other = bundles / "two"
    sha256, changed = hashlib.sha256, []

    def change_after(content: bytes) -> Any:
        digest = sha256(content)
        for path in shards(bundle):
            if path.read_bytes() == content:
                path.unlink()
                shutil.copy(other / path.name, path) if by == "replacing" else path.symlink_to(other / path.name)
                changed.append(path.name)
        return digest

    monkeypatch.setattr(bundle_module.hashlib, "sha256", change_after)
    loaded = load_bundle(bundle).network_state
    assert len(changed) == len(shards(bundle)) > 1
    assert all(torch.equal(loaded[name], meant[name]) for name in meant)
    monkeypatch.undo()
    with pytest.raises(ModelError, match="altered or damaged"):
        load_bundle(bundle)


def test_a_pipe_in_the_place_of_weights_does_not_hang(bundle: Path) -> None:
    shards(bundle)[0].unlink()
    os.mkfifo(bundle / "slice-network-01-of-02.safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        load_bundle(bundle)


# ------------------------------------------------------------------------------------------ older ones


def identity(version: str, name: str = "ich", sha256: str = "") -> ModelIdentity:
    return ModelIdentity(name, version, sha256 or hashlib.sha256(f"{name}{version}".encode()).hexdigest(), trained=True)


@pytest.mark.parametrize(
    ("newest", "older"),
    [("1.10", "1.9"), ("2.0", "1.99.99"), ("1.0.1", "1.0"), ("1.0", "1.0rc1"), ("1.0rc2", "1.0rc1"), ("v2", "1")],
)
def test_an_older_version_of_what_was_used_is_refused(tmp_path: Path, newest: str, older: str) -> None:
    remember_model(tmp_path, identity(older))
    assert demand_not_older(tmp_path, identity(newest), allow_older=False) == ""
    remember_model(tmp_path, identity(newest))
    with pytest.raises(ModelError, match=rf"ich {older} is older than {newest}.*allow_older = true"):
        demand_not_older(tmp_path, identity(older), allow_older=False)
    assert demand_not_older(tmp_path, identity(newest), allow_older=False) == ""


def test_an_older_version_is_used_where_a_site_says_so_and_the_newest_stays_known(tmp_path: Path) -> None:
    remember_model(tmp_path, identity("2.0"))
    assert "allow_older lets 1.0 be used" in demand_not_older(tmp_path, identity("1.0"), allow_older=True)
    remember_model(tmp_path, identity("1.0"))
    with pytest.raises(ModelError, match=r"older than 2\.0"):
        demand_not_older(tmp_path, identity("1.0"), allow_older=False)


def test_another_content_under_the_same_version_is_told(tmp_path: Path) -> None:
    remember_model(tmp_path, identity("1.0"))
    assert "with another content" in demand_not_older(tmp_path, identity("1.0", sha256="ab" * 32), allow_older=False)
    assert demand_not_older(tmp_path, identity("1.0"), allow_older=False) == ""


def test_models_of_other_names_are_not_compared(tmp_path: Path) -> None:
    remember_model(tmp_path, identity("2.0"))
    assert demand_not_older(tmp_path, identity("1.0", name="other"), allow_older=False) == ""


@pytest.mark.parametrize("content", ["{", "[]", '{"ich": {}}', '{"ich": 1}'])
def test_a_damaged_memory_is_named_and_not_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "models.json").write_text(content)
    with pytest.raises(StartError, match=r"models\.json is damaged; delete it"):
        demand_not_older(tmp_path, identity("1.0"), allow_older=False)


# --------------------------------------------------------------------------------------------- signature


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys as the document says to make them: ``key.pem``, ``public.pem``, and another pair."""
    folder = tmp_path_factory.mktemp("keys")
    for private, public in (("key.pem", "public.pem"), ("other.pem", "other-public.pem")):
        openssl("genpkey", "-algorithm", "ed25519", "-out", str(folder / private))
        openssl("pkey", "-in", str(folder / private), "-pubout", "-out", str(folder / public))
    openssl("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x", "-out", str(folder / "locked.pem"))
    openssl("genpkey", "-algorithm", "x25519", "-out", str(folder / "x25519.pem"))
    openssl("pkey", "-in", str(folder / "x25519.pem"), "-pubout", "-out", str(folder / "x25519-public.pem"))
    for path in folder.glob("*.pem"):
        path.chmod(0o600)
    return folder


def openssl(*arguments: str) -> str:
    ended = subprocess.run([OPENSSL, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@needs_openssl
def test_a_signed_bundle_is_used_and_says_by_whom_it_was_signed(bundle: Path, keys: Path) -> None:
    assert load_bundle(bundle).identity.signature == "not signed"
    sign_bundle(bundle, keys / "key.pem")
    assert load_bundle(bundle).identity.signature == "signed, not checked"
    der = subprocess.run(
        [OPENSSL, "pkey", "-pubin", "-in", keys / "public.pem", "-outform", "DER"], capture_output=True, check=True
    ).stdout
    said = f"signed by {hashlib.sha256(der).hexdigest()[:16]}"
    assert load_bundle(bundle, keys / "public.pem").identity.signature == said
    assert verify_bundle(bundle, keys / "public.pem") == []


@needs_openssl
def test_openssl_checks_our_signature_and_makes_one_that_we_take(bundle: Path, keys: Path) -> None:
    manifest, signature = str(bundle / "manifest.json"), str(bundle / "manifest.json.sig")
    sign_bundle(bundle, keys / "key.pem")
    check = ("-verify", "-pubin", "-inkey", str(keys / "public.pem"), "-sigfile", signature)
    assert "Success" in openssl("pkeyutl", *check, "-rawin", "-in", manifest)
    Path(signature).unlink()
    openssl("pkeyutl", "-sign", "-inkey", str(keys / "key.pem"), "-rawin", "-in", manifest, "-out", signature)
    assert load_bundle(bundle, keys / "public.pem").identity.signature.startswith("signed by")


def unsign(bundle: Path, _keys: Path) -> None:
    (bundle / "manifest.json.sig").unlink()


def sign_by_another(bundle: Path, keys: Path) -> None:
    sign_bundle(bundle, keys / "other.pem")


def cut_the_signature(bundle: Path, _keys: Path) -> None:
    path = bundle / "manifest.json.sig"
    path.write_bytes(path.read_bytes()[:-1])


def flip_the_signature(bundle: Path, _keys: Path) -> None:
    flip(bundle / "manifest.json.sig", 40)


def alter_weights_and_manifest(bundle: Path, _keys: Path) -> None:
    """What whoever may write the folder does: the hashes agree again."""
    path = shards(bundle)[0]
    flip(path, path.stat().st_size - 1)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def lower_a_threshold(bundle: Path, _keys: Path) -> None:
    manifest = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(manifest.replace('"high": 0.7', '"high": 0.9', 1))


@needs_openssl
@pytest.mark.parametrize(
    "change",
    [unsign, sign_by_another, cut_the_signature, flip_the_signature, alter_weights_and_manifest, lower_a_threshold],
)
def test_where_a_key_is_set_whatever_is_not_signed_as_it_is_is_refused(
    bundle: Path, keys: Path, change: Callable[[Path, Path], None]
) -> None:
    sign_bundle(bundle, keys / "key.pem")
    load_bundle(bundle, keys / "public.pem")
    change(bundle, keys)
    with pytest.raises(ModelError, match=r"is not signed|signature is not that of"):
        load_bundle(bundle, keys / "public.pem")
    assert len(verify_bundle(bundle, keys / "public.pem")) == 1


@needs_openssl
def test_a_bundle_with_faults_is_not_signed(bundle: Path, keys: Path) -> None:
    flip(shards(bundle)[0], 100)
    with pytest.raises(ModelError, match="altered or damaged"):
        sign_bundle(bundle, keys / "key.pem")
    assert not (bundle / "manifest.json.sig").exists()


@needs_openssl
def test_a_bundle_that_is_written_anew_loses_the_signature_of_the_old_one(bundle: Path, keys: Path) -> None:
    sign_bundle(bundle, keys / "key.pem")
    make(bundle, 3)
    assert load_bundle(bundle).identity.signature == "not signed"
    assert verify_bundle(bundle) == []


@needs_openssl
def test_keys_that_cannot_be_used_are_named(bundle: Path, keys: Path, tmp_path: Path) -> None:
    for name in ("locked.pem", "public.pem", "x25519.pem"):
        with pytest.raises(ModelError, match=f"{name}: .*private key"):
            sign_bundle(bundle, keys / name)
    sign_bundle(bundle, keys / "key.pem")
    for name in ("key.pem", "x25519-public.pem"):
        with pytest.raises(ModelError, match=f"{name}: .*public key"):
            load_bundle(bundle, keys / name)
    private, public = (Path(shutil.copy(keys / name, tmp_path)) for name in ("key.pem", "public.pem"))
    private.chmod(0o644)
    with pytest.raises(SecretFileError, match="others can read"):
        sign_bundle(bundle, private)
    public.chmod(0o666)
    with pytest.raises(SecretFileError, match="others can change it"):
        load_bundle(bundle, public)


@needs_openssl
def test_the_commands_sign_and_verify_and_list(bundle: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    public = str(keys / "public.pem")
    assert main(["model", "verify", str(bundle), "--public-key", public]) == 1
    assert "is not signed" in capsys.readouterr().err
    assert main(["model", "sign", "--key", str(keys / "key.pem"), str(bundle)]) == 0
    assert main(["model", "verify", str(bundle), "--public-key", public]) == 0
    assert "agrees with its hash, and the signature with the key" in capsys.readouterr().out
    assert main(["model", "list", str(bundle.parent)]) == 0
    assert "UNTRAINED  signed, not checked" in capsys.readouterr().out
    assert main(["model", "sign", "--key", str(keys / "x25519.pem"), str(bundle)]) == 78


# ------------------------------------------------------------------------------------- what is kept of it


def kept(cache: Path, suffix: str) -> Path:
    (path,) = cache.glob(f"*{suffix}")
    return path


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory, bundles: Path) -> dict[str, Any]:
    """Caches of both bundles, and what they score."""
    images = torch.linspace(-1, 1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)
    found: dict[str, Any] = {"images": images}
    for name in ("one", "two"):
        cache = tmp_path_factory.mktemp(f"cache-{name}")
        engine = open_engine(load_bundle(bundles / name), "openvino", threads=1, cache_directory=cache)
        found[name] = cache, engine.score(images)[0]
    return found


def flip_in(suffix: str) -> Callable[[Path, Path], None]:
    def change(cache: Path, _other: Path) -> None:
        path = kept(cache, suffix)
        flip(path, path.stat().st_size // 2)

    change.__name__ = f"flip_in_{suffix[1:]}"
    return change


def put_another_model(cache: Path, other: Path) -> None:
    """With its own mark, under this one's name: all that the file system knows agrees."""
    for suffix in (".xml", ".bin", ".sha256"):
        shutil.copy(kept(other, suffix), kept(cache, suffix))


@pytest.mark.parametrize(
    "change",
    [
        flip_in(".bin"),
        put_another_model,
        *(pytest.param(flip_in(suffix), marks=pytest.mark.slow) for suffix in (".xml", ".sha256")),
    ],
)
def test_a_conversion_that_was_tampered_with_is_made_again(
    tmp_path: Path, bundles: Path, conversions: dict[str, Any], change: Callable[[Path, Path], None]
) -> None:
    (mine, meant), (other, others) = conversions["one"], conversions["two"]
    assert np.abs(meant - others).max() > 1e-3
    cache = Path(shutil.copytree(mine, tmp_path / "cache"))
    change(cache, other)
    engine = open_engine(load_bundle(bundles / "one"), "openvino", threads=1, cache_directory=cache)
    assert np.array_equal(engine.score(conversions["images"])[0], meant)


def test_a_conversion_that_is_changed_while_it_is_read_changes_nothing(
    tmp_path: Path, bundles: Path, conversions: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ich_node.model import openvino_backbone

    (mine, meant), (other, _) = conversions["one"], conversions["two"]
    cache = Path(shutil.copytree(mine, tmp_path / "cache"))
    fingerprint = openvino_backbone._fingerprint

    def change_after(*content: Any) -> str:
        answer = fingerprint(*content)
        put_another_model(cache, other)
        return answer

    monkeypatch.setattr(openvino_backbone, "_fingerprint", change_after)
    monkeypatch.setattr(torch.export, "export", lambda *_: pytest.fail("converted again"))
    engine = open_engine(load_bundle(bundles / "one"), "openvino", threads=1, cache_directory=cache)
    assert np.array_equal(engine.score(conversions["images"])[0], meant)


@needs_openssl
def test_where_models_are_signed_nothing_unsigned_is_kept_or_read(
    tmp_path: Path, bundle: Path, keys: Path, conversions: dict[str, Any]
) -> None:
    sign_bundle(bundle, keys / "key.pem")
    model = open_model(bundle, "openvino", threads=1, cache=tmp_path / "cache", public_key=keys / "public.pem")
    assert not (tmp_path / "cache").exists()
    assert np.array_equal(model.engine.score(conversions["images"])[0], conversions["one"][1])


def test_older_rows_without_a_signature_are_still_read() -> None:
    row = dataclasses.asdict(identity("1.0"))
    del row["signature"]
    assert ModelIdentity(**row).signature == ""


@needs_openssl
def test_a_worker_starts_with_neither_an_older_nor_an_unsigned_model(bundle: Path, keys: Path, tmp_path: Path) -> None:
    def start(**model: Any) -> None:
        values = settings(tmp_path / "state", bundle)
        values["model"] |= model
        run_worker(parse_config(values))

    with pytest.raises(ModelError, match="is not signed"):
        start(public_key=str(keys / "public.pem"))
    remember_model(tmp_path / "state", identity("1.10", name="tiny"))
    with pytest.raises(ModelError, match=r"tiny 1\.9 is older than 1\.10"):
        start()
