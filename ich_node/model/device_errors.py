"""Errors of the processor that scores, told from those of the network: a GPU that is gone, or has no memory left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from ich_node.errors import DeviceFailed

_OF_THE_DEVICE: Final = ("CUDA", "cuDNN", "CUDNN", "cuBLAS", "CUBLAS", "NVML")


@contextmanager
def device_errors_are_named(device: str) -> Iterator[None]:
    """Turn what torch raises of a device into ``DeviceFailed``.

    After most errors of CUDA every later call of the same process fails too
    (https://docs.nvidia.com/cuda/cuda-runtime-api, ``cudaErrorIllegalAddress`` and others): only a fresh one helps.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceFailed(f"{device} has no memory left") from error
    except RuntimeError as error:
        if not is_of_the_device(error):
            raise
        raise DeviceFailed(f"{device} failed: {_first_line(error)}") from error


def is_of_the_device(error: BaseException) -> bool:
    """Tell whether an error says that the device failed, and not what was computed on it."""
    return isinstance(error, RuntimeError) and _first_line(error).startswith(_OF_THE_DEVICE)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
