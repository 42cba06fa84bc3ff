"""One process or many: who am I, on which device, and what the others say (torch.distributed, started by torchrun)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ich_node.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """This is the one that writes."""
        return self.rank == 0

    def part(self, whole: int) -> tuple[int, int]:
        """First item of this process's share of a batch, and the one after its last."""
        return whole * self.rank // self.count, whole * (self.rank + 1) // self.count

    def mean(self, value: Tensor) -> float:
        """Mean of a number over all processes."""
        if self.count == 1:
            return float(value)
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return float(total) / self.count

    def any_of(self, *flags: bool) -> list[bool]:
        """Whether a flag is up in any process, for each flag: what all must do together, all decide together."""
        if self.count == 1:
            return list(flags)
        raised = torch.tensor([int(flag) for flag in flags], device=self.device)
        torch.distributed.all_reduce(raised)
        return [number > 0 for number in raised.tolist()]

    def share_statistics(self, network: nn.Module) -> None:
        """Give every process the first one's batch statistics, so that all score with the network that is kept."""
        if self.count > 1:
            for statistic in network.buffers():
                torch.distributed.broadcast(statistic, 0)

    def sum_rows(self, values: Tensor) -> Tensor:
        """Add up tensors of which each process filled its own rows."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            torch.distributed.barrier()

    def spread(self, network: nn.Module) -> nn.Module:
        """Make a network that averages its gradients over all processes; with one process, the network itself."""
        if self.count == 1:
            return network
        if self.device.type == "cuda":
            # torch's own drops the activations that stand in timm's norms
            network = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # timm annotates most
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids)


@contextmanager
def join_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that torchrun started, or be the only one.

    Args:
        device: ``cuda``, ``cpu``, or ``auto``: CUDA where there is one.
    """
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    here = _device(device)
    if count == 1:
        yield Processes(0, 1, here)
        return
    torch.distributed.init_process_group("nccl" if here.type == "cuda" else "gloo", rank=rank, world_size=count)
    try:
        yield Processes(rank, count, here)
    finally:
        torch.distributed.destroy_process_group()


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainingError("there is no CUDA device here; leave --device out, or say --device cpu")
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
