"""Work of the device that is always the same: recorded once as a CUDA graph, then replayed.

A replay starts a thousand kernels by one call, where PyTorch would need 5 µs of the host for each. What a graph reads
and writes lies where it lay when it was recorded, so inputs are copied there, and outputs from there.
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs)
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

Work = Callable[[], tuple[Tensor, ...]]
"""Reads and writes tensors that stay where they are; gives what it made."""

_WARM_UPS: Final = 3
"""Runs before the recording: libraries choose their kernels and workspaces in them."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """Work that can be done again."""

    outputs: tuple[Tensor, ...]
    """Where each run leaves what it made."""
    run: Callable[[], object]
    is_graph: bool


class CudaRecorder:
    """Records on one stream; all graphs share their memory, so no two may run at a time.

    A graph's outputs keep their place as long as it lives; what it needed on the way is the next one's too. So the
    largest is best recorded first.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._pool: Any = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> Recorded:
        """Record work; where that cannot be, it is run anew each time.

        Raises:
            torch.OutOfMemoryError: The device has too little memory.
            RuntimeError: The device failed.
        """
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                work()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # Another thread may score with the model before this one meanwhile: its calls are no concern of ours.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                outputs = work()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise torch.OutOfMemoryError("CUDA out of memory while a graph was recorded") from error
            _LOG.warning("no CUDA graph (%s); the network runs without, and slower", str(error).partition("\n")[0])
            return run_anew(work)
        return Recorded(outputs, graph.replay, is_graph=True)


def run_anew(work: Work) -> Recorded:
    """Do without a recording: work is run anew each time, and leaves what it made in the same place."""
    outputs = tuple(one.clone() for one in work())

    def run() -> None:
        for place, made in zip(outputs, work(), strict=True):
            place.copy_(made)

    return Recorded(outputs, run, is_graph=False)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it came from, says that the device has no memory left."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        seen.add(id(error))
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__
    return False
