"""The slice network on a device, in batches of a few fixed sizes, all made ready when it is opened.

For each size two pieces of work are recorded, and replayed one after the other: windowing of slices of the usual side,
from int16 codes, and the network. Slices of another side are windowed by the same module without a recording, some
milliseconds a batch, and go into the same network: nothing is compiled or recorded while a study is scored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ich_node.errors import DeviceFailed
from ich_node.model.buckets import split_into_runs
from ich_node.model.gpu.compiling import Compiler
from ich_node.model.gpu.graphs import CudaRecorder, Recorded, Work, run_anew
from ich_node.model.gpu.host_buffers import HostBuffers
from ich_node.model.gpu.hounsfield_codes import HounsfieldCodes
from ich_node.model.gpu.modules import CodesToImages, InBfloat16, draw_example
from ich_node.model.gpu.steps import make_step
from ich_node.windowing import Preprocessing

BUCKETS: Final = (1, 4, 16, 36)
"""A slice that has just come; what comes meanwhile; a worker's step; a head in planes of 5 mm. Each costs a compilation
of the network, so they are few, and none is so large that a small GPU could not hold it."""

USUAL_SIDE: Final = 512
"""Of head CT, nearly always."""

_WINDOWING_TOLERANCE: Final = 0.01
_NETWORK_TOLERANCE: Final = 0.05
"""Relative to what the step gives by itself: two ways to add up in bf16 differ by less than 0.01."""

_LOG = logging.getLogger(__name__)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Bucket:
    """What is ready for one size of batch."""

    codes: Tensor
    """(bucket, side, side) int16: where ``window`` reads."""
    images: Tensor
    """(bucket, 3, size, size) float32: where ``window`` writes and ``network`` reads."""
    window: Recorded
    network: Recorded


class DeviceNetwork:
    """A slice network that is ready to run on a device; one thread at a time.

    Args:
        backbone: In evaluation mode, giving embeddings, or embeddings and feature maps. Its weights become bf16.
        preprocessing: Of its model.
        device: A GPU; on the processor nothing is recorded.
        compiler: Makes the steps faster.
        buckets: Sizes of batches, ascending. Those that do not fit into the memory are left out.
        side: Of the slices whose windowing is made ready.

    Raises:
        DeviceFailed: Not even one slice at a time fits into the memory, or the device gives wrong answers.
        ModelError: The windows of the model end beyond what 16 bits hold.
    """

    def __init__(
        self,
        backbone: nn.Module,
        preprocessing: Preprocessing,
        device: torch.device,
        compiler: Compiler,
        buckets: Sequence[int] = BUCKETS,
        side: int = USUAL_SIDE,
    ) -> None:
        self._device, self._compiler, self._side = device, compiler, side
        self._size_px = preprocessing.size_px
        self._codes = HounsfieldCodes.for_preprocessing(preprocessing)
        self._window = CodesToImages(self._codes, preprocessing).to(device)
        self._network = InBfloat16(backbone).to(device).to(memory_format=torch.channels_last)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # torch states no types of it
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))  # the weights are on their way
        self._record: Callable[[Work], Recorded] = run_anew if self._stream is None else CudaRecorder(self._stream)
        self._lock = Lock()
        with self._running():
            self._ready = self._make_ready(buckets)
        self._host = HostBuffers(self.buckets[-1], side, device)

    @property
    def buckets(self) -> tuple[int, ...]:
        """Sizes of batches, ascending."""
        return tuple(sorted(self._ready))

    @property
    def in_words(self) -> str:
        """Say how it runs, such as "bf16, compiled, CUDA graphs"."""
        recorded = all(one.network.is_graph and one.window.is_graph for one in self._ready.values())
        return "bf16" + (", compiled" if self._compiler.works else "") + (", CUDA graphs" if recorded else "")

    def embed_hu(self, planes: Sequence[Floats]) -> Floats:
        """Window and embed slices.

        Args:
            planes: Of (rows, columns) each, in HU; at least one.

        Returns:
            (slices, embedding), in the order of the slices.
        """
        by_side: dict[int, list[int]] = {}
        for number, hu in enumerate(planes):
            by_side.setdefault(max(hu.shape), []).append(number)
        parts: list[Tensor] = []
        with self._lock, self._running():
            for side, numbers in by_side.items():
                parts += self._embed_alike([planes[number] for number in numbers], side)
            embeddings = torch.cat(parts).cpu().numpy()
        ordered = np.empty_like(embeddings)
        ordered[[number for numbers in by_side.values() for number in numbers]] = embeddings
        return ordered

    def embed(self, images: Tensor) -> Floats:
        """Embed windowed slices (bucket, 3, size, size): (bucket, embedding)."""
        return self._run_on_images(images, 0)

    def map_features(self, images: Tensor) -> Floats:
        """Give the feature maps of windowed slices (bucket, 3, size, size), of a backbone that gives them."""
        return self._run_on_images(images, 1)

    def _run_on_images(self, images: Tensor, output: int) -> Floats:
        bucket = self._ready[len(images)]
        with self._lock, self._running():
            bucket.images.copy_(images)
            bucket.network.run()
            return np.array(bucket.network.outputs[output].cpu().numpy())

    def _embed_alike(self, planes: Sequence[Floats], side: int) -> Iterator[Tensor]:
        """Embed slices of one side; what is left in a batch from the one before fills it up."""
        for run in split_into_runs(len(planes), self.buckets):
            bucket, now, planes = self._ready[run.bucket], planes[: run.used], planes[run.used :]
            if side == self._side:
                self._host.bring(partial(self._write, now), run.used, bucket.codes)
                bucket.window.run()
            else:
                bucket.images[: run.used] = self._window_anew(now, side)
            bucket.network.run()
            yield bucket.network.outputs[0][: run.used].clone()

    def _write(self, planes: Sequence[Floats], codes: NDArray[np.int16]) -> None:
        for hu, square in zip(planes, codes, strict=True):
            self._codes.write(hu, square)

    def _window_anew(self, planes: Sequence[Floats], side: int) -> Tensor:
        """Window slices of an unusual side, as many at once as there is room for."""
        codes = np.empty((len(planes), side, side), np.int16)
        self._write(planes, codes)
        most = max(1, self.buckets[-1] * self._side**2 // side**2)
        parts = torch.split(torch.from_numpy(codes), most)
        return torch.cat([self._window(one.to(self._device)) for one in parts])

    def _make_ready(self, buckets: Sequence[int]) -> dict[int, _Bucket]:
        """Make the sizes ready that there is memory for, the largest first."""
        ready: dict[int, _Bucket] = {}
        for size in sorted(buckets, reverse=True):
            try:
                ready[size] = self._bucket(size)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                _LOG.warning("too little memory on the GPU for %d slices at once; it scores fewer", size)
        if not ready:
            raise DeviceFailed(f"{self._device.type} has no memory left for the network, not even slice by slice")
        return ready

    def _bucket(self, size: int) -> _Bucket:
        example = np.empty((self._side, self._side), np.int16)
        self._codes.write(draw_example(self._side), example)
        codes = torch.from_numpy(example).to(self._device).repeat(size, 1, 1)
        images = torch.empty(size, 3, self._size_px, self._size_px, device=self._device)
        images = images.contiguous(memory_format=torch.channels_last)
        with_tools = partial(make_step, compiler=self._compiler, record=self._record)
        # In this order: the network is tried with the images that windowing leaves.
        window = with_tools(self._window, codes, lambda run: (images.copy_(run(codes)),), _WINDOWING_TOLERANCE)
        network = with_tools(self._network, images, lambda run: run(images), _NETWORK_TOLERANCE)
        return _Bucket(codes, images, window, network)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Compute on our stream, and in float32 where float32 is meant: convolutions would take TF32 for it."""
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            if self._stream is not None:
                stack.enter_context(torch.cuda.stream(self._stream))
            yield
