"""What noise and a shifted level do to a network's answers: the gap between its data and other scanners.

Slices that a network has not seen are scored as they are and changed. Noise is given in multiples of what a usual thick
slice has; a thin one has three times as much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ich_node.errors import TrainingError
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.evaluate.evaluation import Disturbance
from ich_node.training.fit.augment import add_noise, draw
from ich_node.training.fit.objective import area_under_roc
from ich_node.training.fit.settings import NO_AUGMENTATION
from ich_node.training.held_out import HeldOutNetwork, held_out_networks
from ich_node.training.look import PreparedSlices
from ich_node.training.prepared import PreparedSet, SliceRow
from ich_node.triage import calibrate

USUAL_NOISE_HU: Final = 4.0
"""Standard deviation in the brain on a slice of 5 mm."""
DISTURBANCES: Final = ((1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (0.0, -5.0), (0.0, 5.0))
"""Times the usual noise that is added, and HU that the level is shifted by."""

_ANY: Final = HEMORRHAGE_CLASSES.index("any")


def measure_disturbances(
    runs: Sequence[Path], data: Sequence[PreparedSet], temperature: Mapping[str, float], slices: int
) -> tuple[Disturbance, ...]:
    """Score slices that each run held out, as they are and disturbed.

    Args:
        runs: One for each fold.
        data: The sets they were trained on.
        temperature: Per class, see ``calibrate``.
        slices: At most so many of each run, drawn evenly.

    Raises:
        TrainingError: the runs held nothing out, or are of other data.
    """
    pictures = PreparedSlices(data)
    labels: list[int] = []
    plain: list[NDArray[np.float64]] = []
    disturbed: dict[tuple[float, float], list[NDArray[np.float64]]] = {one: [] for one in DISTURBANCES}
    for opened in held_out_networks(runs, data):
        rows = _some(opened.rows, slices)
        hu = [pictures.hu(row) for row in rows]
        labels += [row.labels[_ANY] for row in rows]
        plain.append(_any_of(opened, hu, temperature))
        for noise, level_hu in DISTURBANCES:
            changed = disturb(hu, noise * USUAL_NOISE_HU, level_hu)
            disturbed[noise, level_hu].append(_any_of(opened, changed, temperature))
    if not labels:
        raise TrainingError("these runs held no slice out; give one run for each fold")
    before, truth = np.concatenate(plain), torch.tensor(labels)
    results = []
    for (noise, level_hu), parts in {(0.0, 0.0): plain, **disturbed}.items():
        after = np.concatenate(parts)
        results.append(
            Disturbance(
                noise=noise,
                noise_hu=noise * USUAL_NOISE_HU,
                level_hu=level_hu,
                slices=len(labels),
                positives=sum(labels),
                mean_difference=float(np.abs(after - before).mean()),
                auc_any=area_under_roc(torch.from_numpy(after), truth),
            )
        )
    return tuple(results)


def disturb(hu: Sequence[NDArray[np.float32]], noise_hu: float, level_hu: float) -> list[NDArray[np.float32]]:
    """Add noise of this standard deviation and shift the level: the same slice always gets the same noise."""
    results = []
    for number, one in enumerate(hu):
        drawn = draw(1, NO_AUGMENTATION, torch.Generator().manual_seed(number))
        drawn = replace(drawn, noise_hu=torch.full((1,), noise_hu))
        results.append((add_noise(torch.from_numpy(one)[None], drawn)[0] + level_hu).numpy())
    return results


def _any_of(
    opened: HeldOutNetwork, slices: Sequence[NDArray[np.float32]], temperature: Mapping[str, float]
) -> NDArray[np.float64]:
    return calibrate(opened.logits(slices).double().numpy(), temperature)[:, _ANY]


def _some(rows: Sequence[SliceRow], count: int) -> list[SliceRow]:
    """Draw slices evenly, so that what is said of them holds for all."""
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[number] for number in sorted(order[:count])]
