"""What of one series is compared over time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

from ich_node.records import ModelIdentity, SeriesContent, SeriesMeasure, TriageFinding

_ENOUGH_BRAIN: Final = 0.03
"""Of all pixels: below it a slice shows the base of the skull or the vertex, whose median is no brain's."""
_LONGEST_KERNEL: Final = 64


def measure_series(content: SeriesContent, finding: TriageFinding, model: ModelIdentity) -> SeriesMeasure:
    """Measure a series that was looked at: medians over its slices, and what the model said of it.

    Slices are measured, not planes: a slab of several has less noise than they have. Objects of many frames are
    measured by their planes alone.
    """
    tissues = [one.tissue for one in content.facts if one.tissue is not None]
    tissues = tissues or [one.tissue for one in content.planes if one.tissue is not None]
    brains = [one for one in tissues if one.enclosed_brain_fraction >= _ENOUGH_BRAIN]
    return SeriesMeasure(
        convolution_kernel=_kernel(content),
        air_hu=_median(one.air_median_hu for one in tissues),
        brain_hu=_median(one.brain_median_hu for one in brains),
        noise_hu=_median(one.noise_hu for one in brains),
        slice_thickness_mm=_median(one.slice_thickness_mm for one in content.facts),
        probability=finding.probabilities.get("any"),
        model_sha256=model.sha256 if finding.probabilities else None,
    )


def _kernel(content: SeriesContent) -> str:
    """Give the kernel of most slices; a localizer among them names none."""
    named = Counter(one.convolution_kernel for one in content.facts if one.convolution_kernel)
    return named.most_common(1)[0][0][:_LONGEST_KERNEL] if named else ""


def _median(values: Iterable[float | None]) -> float | None:
    known: Sequence[float] = [one for one in values if one is not None and math.isfinite(one)]
    return median(known) if known else None
