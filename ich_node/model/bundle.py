"""A model on disk: a manifest, weights as safetensors, a model card. Nothing is used before its hash was checked.

The manifest names the SHA-256 of every other file, so its own hash identifies the whole. It is written last: a folder
with a manifest is a whole bundle.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from ich_node.errors import ModelError
from ich_node.model.manifest import QUANTIZED_STEM, WEIGHT_SUFFIX, Manifest, is_quantized_file
from ich_node.model.signature import SIGNATURE, check_signature, sign
from ich_node.records import MODEL_MANIFEST, ClassThresholds, ModelIdentity

MANIFEST: Final = MODEL_MANIFEST
MODEL_CARD: Final = "MODEL_CARD.md"
SHARD_BYTES: Final = 50_000_000
"""Largest weight file; only a single tensor above it gets a larger file, for itself."""

_NETWORK: Final = "slice-network"
_HEAD: Final = "sequence-head"

State = dict[str, Tensor]
Stored = Literal["float16", "float32"]
"""How weights lie on disk; they are float32 wherever they are used."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedFiles:
    """The slice network in 8 bits, as OpenVINO reads it."""

    graph: bytes
    """XML."""
    weights: bytes


@dataclass(frozen=True, slots=True, eq=False)
class ModelBundle:
    """A bundle whose every file agreed with its hash."""

    manifest: Manifest
    identity: ModelIdentity
    network_state: State
    """Weights of the slice network in float32, however they are stored; empty after ``without_network_weights``."""
    head_state: State | None
    quantized: QuantizedFiles | None = None
    """None where the bundle holds no network in 8 bits, and after ``without_network_weights``."""

    @property
    def thresholds(self) -> dict[str, ClassThresholds]:
        return {name: ClassThresholds(pair.low, pair.high) for name, pair in self.manifest.thresholds.items()}

    def without_network_weights(self) -> "ModelBundle":
        """Let go of the slice network's weights, which an open engine holds in a form of its own."""
        return replace(self, network_state={}, quantized=None)


def load_bundle(directory: Path, public_key: Path | None = None) -> ModelBundle:
    """Read a bundle; every file once, its hash checked on the very bytes that are then parsed.

    So it does not matter what becomes of a file, or of a link in its place, after or while it is read.

    Args:
        directory: Of the bundle.
        public_key: File of the key that it must be signed with; None demands no signature.

    Raises:
        ModelError: A file is missing, altered or not understood, or the signature is; says which and what to do.
    """
    manifest, manifest_sha256, signature = _read_manifest(directory, public_key)
    states: dict[str, State] = {_NETWORK: {}, _HEAD: {}}
    in_8_bits: dict[str, bytes] = {}
    for name, sha256 in manifest.files.items():
        content = _read_checked(directory / name, sha256)
        if name.endswith(WEIGHT_SUFFIX):
            _part_state(states, directory / name).update(_parse_weights(directory / name, content))
        elif is_quantized_file(name):
            in_8_bits[name] = content
    if not states[_NETWORK]:
        raise ModelError(f"{directory / MANIFEST}: names no weights of the slice network; restore the model folder")
    if (manifest.sequence_head is None) == bool(states[_HEAD]):
        raise ModelError(
            f"{directory / MANIFEST}: sequence head and its weights do not agree; restore the model folder"
        )
    points = {name: point.in_words(name) for name, point in (manifest.operating_points or {}).items()}
    identity = ModelIdentity(
        manifest.name, manifest.version, manifest_sha256, manifest.trained, manifest.backbone, points, signature
    )
    quantized = _quantized_files(directory, manifest, in_8_bits)
    return ModelBundle(manifest, identity, states[_NETWORK], states[_HEAD] or None, quantized)


def verify_bundle(directory: Path, public_key: Path | None = None) -> list[str]:
    """List every fault of a bundle; empty when it is whole. Files that the manifest does not name are faults too."""
    try:
        manifest, _, _ = _read_manifest(directory, public_key)
    except ModelError as error:
        return [str(error)]
    faults = []
    for name, sha256 in manifest.files.items():
        try:
            content = _read_checked(directory / name, sha256)
            if name.endswith(WEIGHT_SUFFIX):
                _parse_weights(directory / name, content)
        except ModelError as error:
            faults.append(str(error))
    strangers = {path.name for path in directory.iterdir()} - set(manifest.files) - {MANIFEST, SIGNATURE}
    return faults + [f"{directory / name}: the manifest does not name this file" for name in sorted(strangers)]


def write_bundle(
    directory: Path,
    manifest_fields: Mapping[str, Any],
    network_state: State,
    head_state: State | None = None,
    card: str | None = None,
    stored: Stored = "float32",
) -> Manifest:
    """Write a bundle: weights in shards of at most 50 MB, the model card, and last of all the manifest.

    Args:
        directory: Made if need be; an older bundle in it is replaced.
        manifest_fields: Of ``Manifest``, all but ``files``.
        network_state: Of the ``SliceNetwork``.
        head_state: Of the ``SequenceHead``, where there is one.
        card: Text of the model card; made from the manifest where it is None.
        stored: ``float16`` halves the tensors of two and more dimensions; biases and statistics stay float32.

    Raises:
        ModelError: A weight is too large for float16.
    """
    draft = Manifest(**manifest_fields, files={})
    directory.mkdir(parents=True, exist_ok=True)
    for name in (MANIFEST, SIGNATURE):
        (directory / name).unlink(missing_ok=True)
    for stale in directory.glob(f"*{WEIGHT_SUFFIX}"):
        stale.unlink()
    files = {}
    for stem, state in ((_NETWORK, network_state), (_HEAD, head_state or {})):
        for name, content in _shards(stem, round_weights(state, stored)):
            files[name] = _write_durably(directory / name, content)
    files[MODEL_CARD] = _write_durably(directory / MODEL_CARD, (card or describe(draft)).encode())
    manifest = draft.model_copy(update={"files": files})
    _write_durably(directory / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    return manifest


def write_quantized_bundle(
    source: Path, directory: Path, manifest: Manifest, quantized: QuantizedFiles, card: str
) -> Manifest:
    """Write a bundle whose files are those of another one, byte for byte, with the network in 8 bits beside them.

    Args:
        source: The other bundle.
        directory: An empty folder.
        manifest: With ``quantized``; its ``files`` are those of ``source``.
        quantized: What ``manifest.quantized`` is about.
        card: Text of the model card.

    Raises:
        ModelError: A file of the other bundle is missing or altered.
    """
    files = {}
    for name, sha256 in manifest.files.items():
        if name != MODEL_CARD and not is_quantized_file(name):
            files[name] = _write_durably(directory / name, _read_checked(source / name, sha256))
    parts = [quantized.weights[at : at + SHARD_BYTES] for at in range(0, len(quantized.weights), SHARD_BYTES)]
    for number, part in enumerate(parts, start=1):
        name = f"{QUANTIZED_STEM}-{number:02d}-of-{len(parts):02d}.bin"
        files[name] = _write_durably(directory / name, part)
    name = f"{QUANTIZED_STEM}.xml"
    files[name] = _write_durably(directory / name, quantized.graph)
    files[MODEL_CARD] = _write_durably(directory / MODEL_CARD, card.encode())
    written = manifest.model_copy(update={"files": files})
    _write_durably(directory / MANIFEST, (written.model_dump_json(indent=2) + "\n").encode())
    return written


def sign_bundle(directory: Path, key_file: Path) -> None:
    """Sign a bundle that is whole; the signature lies beside its manifest.

    Raises:
        ModelError: The bundle has faults, or the key is none of Ed25519.
        SecretFileError: Others can read the key.
    """
    if faults := verify_bundle(directory):
        raise ModelError(faults[0])
    _write_durably(directory / SIGNATURE, sign(_read_file(directory / MANIFEST), key_file))


def round_weights(state: State, stored: Stored) -> State:
    """Round weights to what is stored.

    Raises:
        ModelError: A weight is too large for float16.
    """
    if stored == "float32":
        return state
    rounded = {
        name: tensor.half() if tensor.dim() >= 2 and tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
    for name, tensor in rounded.items():
        if tensor.dtype == torch.float16 and not tensor.isfinite().all():
            raise ModelError(f"{name} holds a weight that float16 cannot; store float32")
    return rounded


def describe(manifest: Manifest) -> str:
    """Write a model card from what the manifest states."""
    data = "\n".join(f"- {source.name}: {source.terms}" for source in manifest.training_data) or "- none"
    metrics = "\n".join(f"- {metric.in_words()}" for metric in manifest.metrics)
    points = "".join(f"- {point.in_words(name)}\n" for name, point in (manifest.operating_points or {}).items())
    warning = "" if manifest.trained else "\n**Not trained: its scores mean nothing.**\n"
    head = "with a sequence head" if manifest.sequence_head else "without a sequence head"
    return (
        f"# {manifest.name} {manifest.version}\n{warning}\n"
        f"Finds intracranial hemorrhage on head CT. Research software, not a medical device.\n\n"
        f"Slice network: `{manifest.backbone}` (timm) at {manifest.preprocessing.size_px} px, {head}.\n\n"
        f"## Training data and terms\n{data}\n\n"
        f"## Metrics\n{metrics or '- none'}\n\n"
        f"## Thresholds\nThey rest on: {manifest.thresholds_basis}\n{points}"
    )


def _read_manifest(directory: Path, public_key: Path | None) -> tuple[Manifest, str, str]:
    """Read the manifest, and give its hash and what is known of its signature: all of the very same bytes."""
    path = directory / MANIFEST
    try:
        content = _read_file(path)
        signature = _read_file(directory / SIGNATURE) if (directory / SIGNATURE).exists() else None
    except FileNotFoundError:
        remedy = "run `ich-node model init-untrained`, or set [model] directory to where the model is"
        raise ModelError(f"{path}: there is no model here; {remedy}") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check its owner and permissions") from None
    signed = check_signature(content, signature, public_key, directory)
    try:
        return Manifest.model_validate_json(content), hashlib.sha256(content).hexdigest(), signed
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ModelError(f"{path}: {faults}; restore the model folder or use another version of the node") from None


def _read_file(path: Path) -> bytes:
    """Read a plain file; a device or a pipe in its place would never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no file")
        return file.read()


def _read_checked(path: Path, sha256: str) -> bytes:
    try:
        content = _read_file(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); restore the model folder") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(f"{path}: altered or damaged, its SHA-256 is not the manifest's; restore the model folder")
    return content


def _parse_weights(path: Path, content: bytes) -> State:
    try:
        state: State = safetensors.torch.load(content)
    except SafetensorError as error:
        raise ModelError(f"{path}: no safetensors file ({error}); restore the model folder") from None
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise ModelError(f"{path}: {broken[0]} holds NaN or infinity; make the model anew")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _quantized_files(directory: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> QuantizedFiles | None:
    """Put the parts of the network in 8 bits together; None where there is none."""
    graphs = [content for name, content in contents.items() if name.endswith(".xml")]
    weights = [contents[name] for name in sorted(contents) if name.endswith(".bin")]
    if (manifest.quantized is not None) != bool(graphs and weights) or bool(graphs) != bool(weights):
        raise ModelError(
            f"{directory / MANIFEST}: the network in 8 bits and its files do not agree; restore the model folder"
        )
    return QuantizedFiles(graphs[0], b"".join(weights)) if graphs else None


def _part_state(states: dict[str, State], path: Path) -> State:
    for stem, state in states.items():
        if path.name.startswith(stem):
            return state
    raise ModelError(f"{path}: weights of an unknown part; use another version of the node")


def _shards(stem: str, state: State) -> Iterable[tuple[str, bytes]]:
    groups: list[State] = []
    room = 0
    for name, tensor in state.items():
        if tensor.nbytes > room:
            groups.append({})
            room = SHARD_BYTES - 1_000_000
        groups[-1][name] = tensor.detach().cpu().contiguous()
        room -= tensor.nbytes
    for number, group in enumerate(groups, start=1):
        yield f"{stem}-{number:02d}-of-{len(groups):02d}{WEIGHT_SUFFIX}", safetensors.torch.save(group)


def _write_durably(path: Path, content: bytes) -> str:
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return hashlib.sha256(content).hexdigest()
