"""Run the slice network where it runs best: CUDA, OpenVINO on the processor, or plain torch.

An engine computes embeddings; the linear layer behind them is always computed here, in float32. Batches have fixed
shapes, the last is padded: so a slice gets the same answer whatever it is batched with. Of the processor's engines to
the last digits; on a GPU batches of other sizes add up in another order, and bf16 differs a little.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ich_node.errors import DeviceFailed, ModelError
from ich_node.model.activation_map import FeatureMaps, activation_maps
from ich_node.model.buckets import split_into_runs
from ich_node.model.bundle import ModelBundle, QuantizedFiles
from ich_node.model.device_errors import device_errors_are_named
from ich_node.model.gpu import Compiler, DeviceNetwork, compile_folder
from ich_node.model.network import SequenceHead, SliceNetwork
from ich_node.windowing import Windowing

EngineName = Literal["auto", "cuda", "openvino", "openvino-int8", "torch"]
INT8: Final = "openvino-int8"
"""The one engine that does not give what the others give; so nobody gets it who did not name it."""

Floats = NDArray[np.float32]
Embed = Callable[[Tensor], Floats]
"""Of a whole batch."""
EmbedHu = Callable[[Sequence[Floats]], Floats]
"""Of any number of slices (rows, columns) in HU, whose shapes may differ: (slices, embedding)."""


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """A slice network ready to score."""

    name: str
    device: str
    """For people, such as "CPU, bf16, 2 threads"."""
    buckets: tuple[int, ...]
    """Numbers of slices that are computed at once, ascending; another number is filled up to one of them."""
    windowing: Windowing
    """On the processor."""
    embed: Embed
    """(bucket, 3, size, size) to (bucket, embedding)."""
    weight: Floats
    """(6, embedding)."""
    bias: Floats
    """(6,)."""
    map_features: Embed | None = None
    """(bucket, 3, size, size) to (bucket, embedding, rows, columns); None where the manifest has no maps."""
    embed_hu: EmbedHu | None = None
    """Windows on the device too; None where ``windowing`` does it."""

    @property
    def batch_size(self) -> int:
        """Slices that are best handed over at once."""
        return self.buckets[-1]

    def memory(self) -> tuple[int, int]:
        """Say how many bytes of the device are in use, and how many there are.

        Of a GPU all that is in use, by whomever; of a processor what this process holds, and what the machine has.
        """
        if self.name == "cuda":
            free, total = torch.cuda.mem_get_info()
            return total - free, total
        page = os.sysconf("SC_PAGE_SIZE")
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        return resident * page, os.sysconf("SC_PHYS_PAGES") * page

    def score_hu(self, planes: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Score slices in Hounsfield units, each by itself.

        Args:
            planes: Of (rows, columns) each, which may differ; at least 16 of both.

        Returns:
            Logits (slices, 6) and embeddings (slices, embedding).

        Raises:
            ModelError: The network gave something that is no number.
            DeviceFailed: The GPU is gone, or has too little memory.
        """
        if self.embed_hu is None or not planes:
            with torch.inference_mode():
                images = [self.windowing(torch.from_numpy(hu).unsqueeze(0)) for hu in planes]
            return self.score(torch.cat(images) if images else torch.zeros(0))
        with device_errors_are_named(self.name):
            return self._logits(self.embed_hu(planes))

    def score(self, images: Tensor) -> tuple[Floats, Floats]:
        """Score slices that were windowed before.

        Args:
            images: (slices, 3, size, size) float32, as ``Windowing`` gives them; any number of slices.

        Returns:
            Logits (slices, 6) and embeddings (slices, embedding).

        Raises:
            ModelError: The network gave something that is no number.
            DeviceFailed: The GPU is gone, or has too little memory.
        """
        if not len(images):
            return np.zeros((0, 6), np.float32), np.zeros((0, self.weight.shape[1]), np.float32)
        return self._logits(self._in_batches(self.embed, images))

    def _logits(self, embeddings: Floats) -> tuple[Floats, Floats]:
        logits = embeddings @ self.weight.T + self.bias
        if not (np.isfinite(logits).all() and np.isfinite(embeddings).all()):
            raise ModelError(f"the model gave NaN or infinity on {self.name} ({self.device}); run `ich-node doctor`")
        return logits, embeddings

    def activation_maps(self, images: Tensor) -> Floats:
        """Show where the scores of windowed slices come from; see ``activation_map``. Costs as much as scoring.

        Args:
            images: (slices, 3, size, size) float32, at least one.

        Returns:
            (slices, 6, rows, columns) in logits, over the whole image; a mean over places plus bias is the logit.

        Raises:
            ModelError: This backbone has no such maps, or they hold something that is no number.
        """
        if self.map_features is None:
            raise ModelError("this model has no class activation maps (activation_maps in its manifest)")
        maps = activation_maps(self._in_batches(self.map_features, images), self.weight)
        if not np.isfinite(maps).all():
            raise ModelError(f"the activation maps hold NaN or infinity on {self.name}; run `ich-node doctor`")
        return maps

    def _in_batches(self, run: Embed, images: Tensor) -> Floats:
        """Run any number of images; a batch that is too small is filled up."""
        runs = split_into_runs(len(images), self.buckets)
        parts = []
        with device_errors_are_named(self.name):
            for one, batch in zip(runs, torch.split(images, [one.used for one in runs]), strict=True):
                padded = functional.pad(batch, (0, 0, 0, 0, 0, 0, 0, one.bucket - one.used))
                parts.append(run(padded)[: one.used])
        return np.concatenate(parts)


def open_engine(
    bundle: ModelBundle,
    engine: EngineName = "auto",
    threads: int | None = None,
    cache_directory: Path | None = None,
) -> Engine:
    """Set the slice network of a bundle up on the chosen engine.

    Args:
        bundle: With the network's weights. ``bundle.without_network_weights()`` may take its place afterwards.
        engine: ``auto`` takes CUDA where there is a device that works, else OpenVINO where it knows the processor,
            else torch; never ``openvino-int8``, the bundle's network in 8 bits.
        threads: On the processor; all cores of this process where it is None.
        cache_directory: Where the network that OpenVINO converted, or that was compiled for a GPU, is kept, which saves
            most of the time of a start. Without it nothing is compiled for a GPU, see ``gpu.compiling``.

    Raises:
        ModelError: The weights do not fit the backbone, or the engine is not to be had here.
        DeviceFailed: It was named, and its device does not work.
    """
    chosen = _choose() if engine == "auto" else engine
    threads = threads or len(os.sched_getaffinity(0))
    if chosen == "cuda":
        try:
            return _open_cuda(bundle, cache_directory)
        except DeviceFailed:
            if engine != "auto":
                raise
            chosen = _choose_processor()  # slower, and better than no result
    if chosen == "openvino":
        return _open_openvino(bundle, threads, cache_directory)
    if chosen == "openvino-int8":
        return _open_quantized(bundle, threads)
    return _open_torch(bundle, threads)


def build_network(bundle: ModelBundle) -> SliceNetwork:
    """Make the slice network of a bundle, in evaluation mode; it shares the bundle's tensors."""
    backbone = bundle.manifest.backbone
    try:
        network = SliceNetwork(backbone)
        network.load_state_dict(bundle.network_state, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{bundle.manifest.name}: weights do not fit timm's {backbone!r} ({reason})") from None
    return network.eval().requires_grad_(False)


def run_sequence_head(
    bundle: ModelBundle, embeddings: NDArray[np.floating], positions_mm: NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Refine the scores of one series, on the processor in float32.

    Args:
        bundle: One with a sequence head.
        embeddings: (slices, embedding), in anatomical order.
        positions_mm: (slices,), along the slice normal.

    Returns:
        Logits (slices, 6) of the slices and (6,) of the study.

    Raises:
        ModelError: The head gave something that is no number.
    """
    if bundle.manifest.sequence_head is None or bundle.head_state is None:
        raise ValueError("this bundle has no sequence head")
    head = SequenceHead(bundle.manifest.sequence_head)
    head.load_state_dict(bundle.head_state, assign=True)
    head.eval()
    with torch.inference_mode():
        slice_logits, study_logits = head(
            torch.from_numpy(np.asarray(embeddings, np.float32)), torch.from_numpy(np.asarray(positions_mm, np.float32))
        )
    if not (slice_logits.isfinite().all() and study_logits.isfinite().all()):
        raise ModelError("the sequence head gave NaN or infinity; run `ich-node doctor`")
    return slice_logits.numpy(), study_logits.numpy()


def _choose() -> Literal["cuda", "openvino", "torch"]:
    return "cuda" if torch.cuda.is_available() else _choose_processor()


def _choose_processor() -> Literal["openvino", "torch"]:
    return "openvino" if os.uname().machine in ("x86_64", "aarch64") else "torch"


def _open_cuda(bundle: ModelBundle, cache_directory: Path | None) -> Engine:
    if not torch.cuda.is_available():
        raise ModelError("engine cuda: there is no CUDA device here; set [model] engine to auto")
    preprocessing, with_maps = bundle.manifest.preprocessing, bundle.manifest.activation_maps
    with device_errors_are_named("cuda"):
        device = torch.device("cuda", torch.cuda.current_device())
        backbone = build_network(bundle).backbone
        compiler = Compiler(compile_folder(cache_directory))
        network = DeviceNetwork(FeatureMaps(backbone) if with_maps else backbone, preprocessing, device, compiler)
        device_name = f"{torch.cuda.get_device_name(device)}, {network.in_words}"
    maps = network.map_features if with_maps else None
    windowing, last = Windowing(preprocessing), _last_layer(bundle)
    return Engine("cuda", device_name, network.buckets, windowing, network.embed, *last, maps, network.embed_hu)


def _open_torch(bundle: ModelBundle, threads: int) -> Engine:
    torch.set_num_threads(threads)
    backbone = build_network(bundle).backbone.to(memory_format=torch.channels_last)

    def run(module: nn.Module, images: Tensor) -> Floats:
        with torch.inference_mode():
            return _last(module(images.contiguous(memory_format=torch.channels_last)))

    maps = partial(run, FeatureMaps(backbone)) if bundle.manifest.activation_maps else None
    windowing, device = Windowing(bundle.manifest.preprocessing), f"CPU, f32, {_threads(threads)}"
    return Engine("torch", device, (1,), windowing, partial(run, backbone), *_last_layer(bundle), maps)


def _last(output: Tensor | tuple[Tensor, ...]) -> Floats:
    return _to_numpy(output[-1] if isinstance(output, tuple) else output)


def _open_openvino(bundle: ModelBundle, threads: int, cache_directory: Path | None) -> Engine:
    from ich_node.model.openvino_backbone import compile_backbone  # a GPU machine may do without OpenVINO

    key = bundle.identity.sha256 if cache_directory else ""
    size_px = bundle.manifest.preprocessing.size_px
    # torch only does the windowing then, which is too little per slice to share: where other processes want the cores,
    # its threads wait for each other (measured on two busy cores: 21 ms a slice alone, 115 ms in twos).
    torch.set_num_threads(1)
    with_maps = bundle.manifest.activation_maps

    def make() -> nn.Module:
        backbone = build_network(bundle).backbone
        return FeatureMaps(backbone) if with_maps else backbone

    compiled = compile_backbone(make, size_px, threads, cache_directory, f"{key}-maps" if with_maps else key)
    device = f"CPU, {compiled.precision}, {_threads(threads)}"
    maps = compiled.map_features if with_maps else None
    windowing = Windowing(bundle.manifest.preprocessing)
    return Engine("openvino", device, (compiled.batch_size,), windowing, compiled.embed, *_last_layer(bundle), maps)


def _open_quantized(bundle: ModelBundle, threads: int) -> Engine:
    stated, named = bundle.manifest.quantized, f"{bundle.manifest.name} {bundle.manifest.version}"
    remedy = "set [model] engine to auto, or make one (`ich-train quantize`)"
    if stated is None or bundle.quantized is None:
        raise ModelError(f"engine {INT8}: {named} holds no network in 8 bits; {remedy}")
    if stated.figures is None:
        raise ModelError(
            f"engine {INT8}: nobody measured how far the network in 8 bits of {named} is from float32; {remedy}"
        )
    return open_quantized(bundle, bundle.quantized, threads)


def open_quantized(bundle: ModelBundle, files: QuantizedFiles, threads: int) -> Engine:
    """Set a network in 8 bits up, measured or not: for whoever measures it. ``open_engine`` is for everybody else.

    Args:
        bundle: Whose last layer and maps these are.
        files: The network.
        threads: On the processor.

    Raises:
        ModelError: This processor cannot compute in 8 bits, or OpenVINO does not read the files.
    """
    from ich_node.model.openvino_backbone import compile_quantized  # as above

    torch.set_num_threads(1)  # as with OpenVINO in float32
    compiled = compile_quantized(files.graph, files.weights, threads)
    device = f"CPU, {compiled.precision}, {_threads(threads)}"
    maps = compiled.map_features if bundle.manifest.activation_maps else None
    windowing = Windowing(bundle.manifest.preprocessing)
    return Engine(INT8, device, (compiled.batch_size,), windowing, compiled.embed, *_last_layer(bundle), maps)


def _threads(threads: int) -> str:
    return f"{threads} thread" + ("s" if threads > 1 else "")


def _last_layer(bundle: ModelBundle) -> tuple[Floats, Floats]:
    state = bundle.network_state
    return _to_numpy(state["classifier.weight"].clone()), _to_numpy(state["classifier.bias"].clone())


def _to_numpy(tensor: Tensor) -> Floats:
    return np.asarray(tensor.float().cpu().numpy(), np.float32)
