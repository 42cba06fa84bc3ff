"""How much a network loses where a slice is known by its brain window alone, and restored from it.

Slices with true Hounsfield units, which the network has not seen, are scored twice: as they are, and after they were
cut to a grey brain window of unknown level and restored, as the grey images of a source are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.errors import TrainingError
from ich_node.training.fit.objective import area_under_roc
from ich_node.training.held_out import held_out_networks
from ich_node.training.look import PreparedSlices
from ich_node.training.prepare.regions import find_regions
from ich_node.training.prepared import Pixels, PreparedSet, SliceRow
from ich_node.training.restore import LEVEL_HU, WINDOW_WIDTH_HU, restore_hu, usual_restoration


@dataclass(frozen=True, slots=True)
class RestorationOutcome:
    """Scores of ``any`` from true windows against those from a restored brain window."""

    slices: int
    positives: int
    mean_difference: float
    """Of probabilities, without sign."""
    auc_true: float | None
    auc_restored: float | None


def check_restoration(runs: Sequence[Path], data: Sequence[PreparedSet]) -> RestorationOutcome:
    """Score what each run held out and is known in true HU, both ways.

    Raises:
        TrainingError: no such slice is there.
    """
    slices = PreparedSlices(data)
    labels: list[int] = []
    true: list[Tensor] = []
    restored: list[Tensor] = []
    for opened in held_out_networks(runs, data):
        held_out = [row for row in opened.rows if row.pixels == Pixels.HU]
        if held_out:
            true.append(opened.logits(slices.hu(row) for row in held_out)[:, 0])
            restored.append(opened.logits(_restored(slices.hu(row), row) for row in held_out)[:, 0])
            labels += [row.labels[0] for row in held_out]
    if not labels:
        raise TrainingError("none of the slices that these runs held out is known in true HU; give other runs or data")
    truth = torch.tensor(labels, dtype=torch.float32)
    one, other = torch.cat(true), torch.cat(restored)
    return RestorationOutcome(
        slices=len(labels),
        positives=sum(labels),
        mean_difference=float((one.sigmoid() - other.sigmoid()).abs().mean()),
        auc_true=area_under_roc(one, truth),
        auc_restored=area_under_roc(other, truth),
    )


def _restored(hu: NDArray[np.float32], row: SliceRow) -> NDArray[np.float32]:
    """Cut to a grey window whose level nobody is told, and back."""
    level_hu = np.random.default_rng(len(row.image_id) + row.index).uniform(*LEVEL_HU)
    share = (hu - (level_hu - WINDOW_WIDTH_HU / 2)) / WINDOW_WIDTH_HU
    gray = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    regions = find_regions(gray)
    back = restore_hu(torch.from_numpy(gray)[None], torch.from_numpy(regions)[None], usual_restoration(1))
    restored: NDArray[np.float32] = back[0].numpy()
    return restored
