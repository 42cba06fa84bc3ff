"""Convert a backbone to OpenVINO, in memory, and compile it for this processor; or compile one that comes converted.

Conversion takes twelve seconds for Inception-ResNet-V2 and needs torch and timm; reading the converted network
takes half a second. So it may be kept in a cache folder of the node, named after the model's hash.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ich_node.errors import ModelError

BATCH_SIZE: Final = 1
"""On two cores a batch of four is no faster per slice, and four times slower to the first answer."""

Precision = Literal["bf16", "f32"]
_INT8_FLAGS: Final = ("avx512_vnni", "avx_vnni", "amx_int8")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class CompiledBackbone:
    """A backbone that OpenVINO runs."""

    request: Any
    """OpenVINO's ``InferRequest``."""
    precision: str
    batch_size: int

    def embed(self, images: Tensor) -> NDArray[np.float32]:
        """Embed (batch_size, 3, size, size) float32: (batch_size, embedding)."""
        return self._run(images, 0)

    def map_features(self, images: Tensor) -> NDArray[np.float32]:
        """Give the feature maps behind the embeddings, of a network converted with them: see ``activation_map``."""
        return self._run(images, 1)

    def _run(self, images: Tensor, output: int) -> NDArray[np.float32]:
        self.request.infer([np.ascontiguousarray(images.numpy())])
        return np.array(self.request.get_output_tensor(output).data, np.float32)


def compile_backbone(
    make_backbone: Callable[[], nn.Module],
    size_px: int,
    threads: int,
    cache_directory: Path | None = None,
    cache_key: str = "",
    batch_size: int = BATCH_SIZE,
) -> CompiledBackbone:
    """Compile a backbone for a fixed batch on the processor.

    Args:
        make_backbone: Called only where the cache does not hold the network.
        size_px: Side of the images.
        threads: To use.
        cache_directory: Where the converted network is kept; None keeps nothing.
        cache_key: Identifies the weights and the outputs; OpenVINO's version and the shape are added.
        batch_size: Of the fixed shape.
    """
    core = openvino_core()
    shape = [batch_size, 3, size_px, size_px]
    if cache_directory is None:
        model = convert_backbone(make_backbone(), shape)
    else:
        version = openvino.get_version().split("-")[0]
        cached = cache_directory / f"{cache_key}-{batch_size}x{size_px}-openvino-{version}.xml"
        model = _read_cached(core, cached) or _convert_and_keep(make_backbone(), shape, cached)
    precision = best_precision()
    return CompiledBackbone(compile_model(core, model, precision, threads), precision, batch_size)


def compile_quantized(graph: bytes, weights: bytes, threads: int) -> CompiledBackbone:
    """Compile a backbone in 8 bits for this processor.

    Args:
        graph: XML, as OpenVINO writes it.
        weights: That belong to it.
        threads: To use.

    Raises:
        ModelError: The processor cannot compute in 8 bits, or OpenVINO does not read these files.
    """
    if not has_int8():
        raise ModelError(
            f"engine openvino-int8: this processor has none of {', '.join(_INT8_FLAGS)}; what was measured of the "
            "network in 8 bits does not hold here; set [model] engine to auto"
        )
    core = openvino_core()
    try:
        model = core.read_model(graph, weights)
        batch_size = int(model.input(0).shape[0])
        request = compile_model(core, model, "f32", threads)  # of what is not in 8 bits: bf16 is no faster there
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"engine openvino-int8: OpenVINO {openvino.get_version()} cannot use the network in 8 bits ({reason}); "
            "set [model] engine to auto, or make it anew: ich-train quantize"
        ) from None
    return CompiledBackbone(request, "int8 and f32", batch_size)


def compile_model(core: Any, model: Any, precision: Precision, threads: int) -> Any:
    """Compile a converted network as the node runs it; gives OpenVINO's ``InferRequest``."""
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Other processes of the node share the cores; a pinned thread would wait for its own.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", settings).create_infer_request()


@cache
def openvino_core() -> Any:
    """Give the one OpenVINO of this process, for as long as it lives.

    Each brings a stack for signals to the thread that compiles first, and gives back the one before when it goes. Of
    two that end in the order in which they began, that one is unmapped by then: the next signal, a SIGTERM for
    example, would kill the process (seen with OpenVINO 2026.4).
    """
    return openvino.Core()


def convert_backbone(backbone: nn.Module, shape: list[int]) -> Any:
    """Convert a backbone for images of a fixed shape (slices, 3, size, size) to OpenVINO's ``Model``, in float32."""
    with torch.no_grad():
        exported = torch.export.export(backbone, (torch.zeros(shape),))
    model = openvino.convert_model(exported)
    model.reshape(shape)
    return model


def _convert_and_keep(backbone: nn.Module, shape: list[int], path: Path) -> Any:
    model = convert_backbone(backbone, shape)
    _keep(model, path)
    return model


def best_precision() -> Precision:
    """Give bf16 where the processor computes in it; OpenVINO claims it for every AVX-512, which only imitates it."""
    return "bf16" if _processor_has("avx512_bf16", "amx_bf16") else "f32"


def has_int8() -> bool:
    """True where the processor multiplies in 8 bits without saturating on the way."""
    return _processor_has(*_INT8_FLAGS)


def _processor_has(*flags: str) -> bool:
    try:
        known = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not set(flags).isdisjoint(known)


def _read_cached(core: Any, path: Path) -> Any | None:
    """Read a kept network: what is hashed, with the name it was kept by, are the very bytes that OpenVINO is given."""
    try:
        expected = _mark(path).read_text()
        graph, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
        if _fingerprint(path, graph, weights) == expected:
            return core.read_model(graph, weights)
    except FileNotFoundError:
        return None
    except OSError as error:
        _LOG.warning("cannot read the converted model %s: %s", path, error.strerror)
        return None
    _LOG.warning("the converted model %s is damaged and is made again", path)
    return None


def _keep(model: Any, path: Path) -> None:
    """Save a converted network; its mark is written last, so a file without it is not used."""
    part = path.with_name(f"{path.stem}-{os.getpid()}.part.xml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _mark(path).unlink(missing_ok=True)
        openvino.save_model(model, part, compress_to_fp16=False)
        fingerprint = _fingerprint(path, part.read_bytes(), part.with_suffix(".bin").read_bytes())
        part.with_suffix(".bin").replace(path.with_suffix(".bin"))
        part.replace(path)
        _mark(path).write_text(fingerprint)
    except (OSError, RuntimeError) as error:  # OpenVINO reports a full disk as RuntimeError
        _LOG.warning("cannot keep the converted model in %s: %s", path.parent, error)
        for leftover in (part, part.with_suffix(".bin")):
            with suppress(OSError):
                leftover.unlink()


def _mark(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _fingerprint(path: Path, graph: bytes, weights: bytes) -> str:
    """Hash a network with its name, which holds the model's hash: one of another model is none of this one."""
    digest = hashlib.sha256(path.stem.encode())
    for part in (graph, weights):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
