"""The networks of runs, each with what it has not seen: to look again at slices that were changed on purpose."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.model.network import SliceNetwork
from ich_node.training.fit.networks import load_network
from ich_node.training.fit.settings import read_settings
from ich_node.training.prepared import PreparedSet, SliceRow
from ich_node.training.run_folder import demand_data
from ich_node.windowing import Windowing

_BATCH: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutNetwork:
    """A run's network as the node would use it, and the slices that it was not trained on."""

    rows: tuple[SliceRow, ...]
    network: SliceNetwork
    windowing: Windowing

    def logits(self, slices: Iterable[NDArray[np.float32]]) -> Tensor:
        """Score slices in HU, each (rows, columns), at least one: (slices, 6). Of many, few are in memory at a time."""
        parts, left = [], iter(slices)
        with torch.inference_mode():
            while some := list(islice(left, _BATCH)):
                images = torch.cat([self.windowing(torch.from_numpy(one)[None]) for one in some])
                parts.append(self.network(images)[0])
        return torch.cat(parts)


def held_out_networks(runs: Sequence[Path], data: Sequence[PreparedSet]) -> Iterator[HeldOutNetwork]:
    """Open the runs one after the other.

    Raises:
        TrainingError: a run is not finished, or is of other data.
    """
    for run in runs:
        settings = read_settings(run)
        demand_data(run, data)
        rows = tuple(row for one in data for row in one.rows if row.fold == settings.fold)
        windowing = Windowing(settings.preprocessing.model_copy(update={"size_px": settings.used_at_px}))
        yield HeldOutNetwork(rows, load_network(run), windowing)
