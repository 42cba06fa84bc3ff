"""The state of a run on disk, whole or not at all, as safetensors: nothing that is loaded can run code."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ich_node.errors import TrainingError


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and what is to be known with them."""
    part = path.with_name(f".{path.name}.part")
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, part, {"facts": json.dumps(facts)})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_state`` wrote.

    Raises:
        TrainingError: it is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - safe_open cannot be iterated
    except FileNotFoundError:
        raise TrainingError(f"{path}: not there") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise TrainingError(f"{path}: damaged ({error}); take another checkpoint, or train anew") from None


def pack(network: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten the state of a run to named tensors."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    return tensors


def unpack(
    tensors: Mapping[str, Tensor], network: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer
) -> None:
    """Put a packed state back.

    Raises:
        TrainingError: it is of another network.
    """
    try:
        network.load_state_dict(part_of(tensors, "network."))
        if average is not None:
            average.load_state_dict(part_of(tensors, "average."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part_of(tensors, "optimizer.").items():
            number, _, field = name.partition(".")
            state.setdefault(int(number), {})[field] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        _lay_out_alike(optimizer)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the checkpoint is of another network ({str(error).splitlines()[0]})") from None


def _lay_out_alike(optimizer: torch.optim.Optimizer) -> None:
    """Put an optimizer's state in memory in the order of its parameters' elements.

    A file keeps values, not the order; the fused step goes through the memory of both side by side, and does not check.
    """
    for parameter, state in optimizer.state.items():
        for name, tensor in state.items():
            if tensor.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
