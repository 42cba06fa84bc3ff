"""Compile what runs on the device, and do without where that fails: a slower result is better than none.

``torch.compile`` needs Triton and a C compiler, which many hospitals' machines lack, and minutes the first time. What
it made is code: it is kept only in a folder that the caller, or whoever set ``TORCHINDUCTOR_CACHE_DIR``, trusts like
the program itself. Where there is none, nothing is compiled.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ich_node.model.device_errors import is_of_the_device
from ich_node.model.gpu.graphs import is_out_of_memory

FOLDER: Final = "TORCHINDUCTOR_CACHE_DIR"
"""PyTorch's own variable."""

_SHAPES: Final = 4096
"""That one network may be compiled for: PyTorch would give up after eight, but models change while the node runs."""

_LOG = logging.getLogger(__name__)

Run = Callable[[Tensor], object]


def compile_folder(cache_directory: Path | None) -> Path | None:
    """Say where compiled code is kept; None: nowhere, so nothing is compiled."""
    if named := os.environ.get(FOLDER):
        return Path(named)
    return None if cache_directory is None else cache_directory / "compiled"


class Compiler:
    """Compiles modules for the shapes they will be called with; after a failure it gives them back as they are.

    Args:
        folder: For the code; None: nothing is compiled.
        backend: Of ``torch.compile``.
    """

    def __init__(self, folder: Path | None, backend: str | Callable[..., Any] = "inductor") -> None:
        self._folder = folder
        self._backend = backend
        self.works = folder is not None

    def ready(self, module: nn.Module, example: Tensor) -> Run:
        """Give a module that is compiled for the shape of an example, or itself.

        Call it as it will be called later: in the same inference mode and precision.

        Raises:
            torch.OutOfMemoryError: The device has too little memory.
            RuntimeError: The device failed.
        """
        if self._folder is None or not self.works:
            return module
        try:
            with self._settings(self._folder):
                compiled: Run = torch.compile(module, dynamic=False, fullgraph=True, backend=self._backend)
                compiled(example)
        except Exception as error:  # a broad catch (docs/architecture.md): compilers raise what their parts raise
            cause: Exception = getattr(error, "inner_exception", error)
            if is_out_of_memory(error):
                raise torch.OutOfMemoryError("CUDA out of memory while the network was compiled") from error
            if is_of_the_device(cause):
                raise cause from None
            reason = next(iter(str(cause).strip().splitlines()), "")
            self.give_up(f"{type(cause).__name__}: {reason}")
            return module
        return compiled

    def give_up(self, why: str) -> None:
        """Compile no more."""
        self.works = False
        _LOG.warning("the network is not compiled (%s); it runs as it is, and slower", why)

    @contextmanager
    def _settings(self, folder: Path) -> Iterator[None]:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        places = {FOLDER: str(folder), "TRITON_CACHE_DIR": str(folder / "triton")}
        with (
            _environment(places),
            torch._dynamo.config.patch(recompile_limit=_SHAPES),
            torch._inductor.config.patch(compile_threads=1),  # no processes that stay
        ):
            yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
