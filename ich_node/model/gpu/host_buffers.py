"""Pinned memory of the host, from which a GPU fetches codes while the host already writes the next ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class HostBuffers:
    """Two buffers for codes, used in turns.

    Args:
        slices: That one buffer holds.
        side: Of their squares.
        device: That fetches them; memory is pinned for a GPU alone.
    """

    def __init__(self, slices: int, side: int, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        buffers = [torch.zeros(slices, side, side, dtype=torch.int16, pin_memory=on_gpu) for _ in range(2)]
        self._turns = cycle([(buffer, torch.cuda.Event() if on_gpu else None) for buffer in buffers])  # type: ignore[no-untyped-call]  # torch states no types of it

    def bring(self, write: Callable[[NDArray[np.int16]], None], slices: int, target: Tensor) -> None:
        """Have slices written here, and begin to copy them to the first places of a tensor of the device.

        Args:
            write: fills (slices, side, side).
            slices: How many.
            target: (slices or more, side, side) int16.
        """
        buffer, fetched = next(self._turns)
        if fetched is not None:
            fetched.synchronize()
        write(buffer[:slices].numpy())
        target[:slices].copy_(buffer[:slices], non_blocking=True)
        if fetched is not None:
            fetched.record()
